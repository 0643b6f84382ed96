"""When a run's metric breaks through, as the interval that the probe grid can tell.

The onset of a run lies in (low, high]: the last probe before, and the first from which on the metric stays at
or above the threshold for `sustained` probes in a row. The probes are a grid: taking `high` for the time itself
biased medians by +13 % on a Pythia-like grid, and leaving out runs without onset by +6 %; so brackets stay
brackets, and a run without onset counts as later than its last probe, which may be an early one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.order_statistics import ranks

Floats = NDArray[np.float64]
METHOD = "order statistics of brackets"
Direction = Literal["up", "down"]


@dataclass(frozen=True, slots=True, order=True)
class Bracket:
    """The onset is later than `low` and not later than `high`, in steps.

    `high` is infinite where it was not seen; `low` is -inf where it was there at the first probe.
    """

    high: float
    low: float


@dataclass(frozen=True, slots=True)
class MedianOnset:
    """The median onset of a cohort as a bracket, with an interval for it from order statistics.

    bracket   where the median of these runs may lie, whatever the probes did not see
    interval  where the median of all runs that could be trained lies; its level is at least `level`
    runs      how many brackets there were, runs that ended early among them
    note      what a reader must know beside the numbers; empty where there is nothing
    """

    bracket: Bracket
    interval: tuple[float, float]
    level: float
    runs: int
    cohort: Cohort
    method: str = METHOD
    unit: str = "run"
    note: str = ""
    stopping_rule: str = FIXED


def onsets(
    steps: NDArray[np.int64],
    values: Floats,
    threshold: float,
    sustained: int,
    direction: Direction = "up",
    ended: bool | NDArray[np.bool_] = True,
) -> tuple[Floats, Floats]:
    """Return ([run], [run]): low and high of every run's onset; the fields of `Bracket` say what infinities mean.

    steps: [step], ascending; values: [run, step], NaN where a run was not measured (such probes are left out). A
    crossing too near the end to be seen `sustained` times counts if it holds up to the run's last probe.
    direction: "up" where the metric has to reach the threshold from below, "down" (a loss) from above.
    ended: [run] or for all, whether the last probe is the run's end; of a run that was lost before, a crossing that
    was not seen `sustained` times has no `high`: it might not have held.
    Raises ValueError for axes that do not fit and for `sustained` < 1.
    """
    _check(steps, values, sustained, direction)
    runs, probes = values.shape
    if not probes:
        return np.full(runs, -inf), np.full(runs, inf)
    missing = np.isnan(values)
    # Measured probes first, in their order: then "sustained probes in a row" skips what was not measured.
    order = np.argsort(missing, axis=1, kind="stable")
    measured = probes - missing.sum(axis=1)
    there = values >= threshold if direction == "up" else values <= threshold
    absent = np.take_along_axis(~there & ~missing, order, axis=1)
    seen = np.zeros((runs, probes + sustained), np.int64)
    seen[:, 1 : probes + 1] = np.cumsum(absent, axis=1)
    seen[:, probes + 1 :] = seen[:, probes : probes + 1]
    holds = (seen[:, sustained:] == seen[:, :probes]) & (np.arange(probes) < measured[:, None])
    first = np.where(holds.any(axis=1), holds.argmax(axis=1), measured)
    at = np.take_along_axis(np.asarray(steps, np.float64)[order], np.clip(_pair(first), 0, probes - 1), axis=1)
    told = (first < measured) & (np.asarray(ended) | (first + sustained <= measured))
    return np.where(first > 0, at[:, 0], -inf), np.where(told, at[:, 1], inf)


def onset(steps: NDArray[np.int64], values: Floats, threshold: float, sustained: int) -> Bracket:
    """Return the bracket of one run's onset; values: [step], see `onsets`."""
    low, high = onsets(steps, values[None, :], threshold, sustained)
    return Bracket(float(high[0]), float(low[0]))


def _pair(first: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return [run, 2]: the places of the last probe before, and of the first from which on."""
    return np.stack([first - 1, first], axis=1)


def _check(steps: NDArray[np.int64], values: Floats, sustained: int, direction: str) -> None:
    if values.ndim != 2 or values.shape[1] != len(steps):
        raise ValueError(f"values are [run, step], but have shape {values.shape} for {len(steps)} steps")
    if (np.diff(steps) <= 0).any():
        raise ValueError("steps must ascend")
    if sustained < 1:
        raise ValueError(f"an onset is sustained for at least 1 probe, not {sustained}")
    if direction not in ("up", "down"):
        raise ValueError(f"a metric goes up or down, not {direction!r}")


def median_onset(brackets: Sequence[Bracket], cohort: Cohort, level: float = 0.95) -> MedianOnset:
    """Return the lower median of the onsets, and the interval between two order statistics that covers it.

    The interval [x_(l), x_(u)] has level P(l <= K < u), K ~ Binomial(n, 1/2) (David & Nagaraja 2003, 7.1); where n is
    too small for `level` (below 6) it is (-inf, inf). Of a run that was lost early only "later than its last probe" is
    known: lows and highs are ordered apart, so that the bounds hold wherever in their brackets the onsets are, and
    also if runs were lost because they were late (or early). They are Manski's (2003): wider, never wrong.
    """
    n = len(brackets)
    if not n:
        return MedianOnset(Bracket(inf, -inf), (-inf, inf), level, 0, cohort)
    lows = sorted(one.low for one in brackets)
    highs = sorted(one.high for one in brackets)
    middle = ceil(n / 2) - 1
    first, last = ranks(n, 0.5, level)
    interval = (lows[first - 1] if first else -inf, highs[last - 1] if last <= n else inf)
    note = "" if first and last <= n else f"{n} runs do not bound a median at {level:g}"
    return MedianOnset(Bracket(highs[middle], lows[middle]), interval, level, n, cohort, note=note)
