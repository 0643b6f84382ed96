"""How long until a metric breaks through, from brackets alone: no shape of the distribution is assumed.

Turnbull's estimate is the distribution that makes the brackets (low, high] most likely. It says how much mass lies in
each of a few innermost intervals, and nothing of where in them: so the curve is known at their ends, and the median
is an interval even without sampling error. Sampling error is told by resampling runs.
Sources: Turnbull 1976; self-consistency by EM (Gentleman & Geyer 1994).
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.onset import Bracket

Floats = NDArray[np.float64]
_STEPS, _TOLERANCE = 2000, 1e-7


@dataclass(frozen=True, slots=True)
class Turnbull:
    """The distribution of onsets as masses of innermost intervals (left, right].

    mass                     [interval], sums to 1; the last may reach to infinity (runs without onset)
    survival                 [interval], P(onset later than `right`)
    low, high                [interval], its percentile interval over resampled runs
    median                   the innermost interval in which the curve passes 1/2
    interval                 (left end, right end) within which the median lies, at `level`
    """

    left: Floats
    right: Floats
    mass: Floats
    survival: Floats
    low: Floats
    high: Floats
    median: Bracket
    interval: tuple[float, float]
    level: float
    cohort: Cohort
    method: str = "turnbull, percentile over resampled runs"
    unit: str = "run"
    stopping_rule: str = FIXED


def turnbull(
    low: Floats,
    high: Floats,
    cohort: Cohort,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Turnbull:
    """Return the distribution of onsets from brackets; low, high: [run], (low, high], infinite where not seen."""
    check_brackets(low, high)
    ordered = np.lexsort((high, low))
    brackets, counts = np.unique(np.stack([low, high])[:, ordered], axis=1, return_counts=True)
    left, right = _innermost(brackets[0], brackets[1])
    inside = (brackets[0][:, None] <= left) & (right <= brackets[1][:, None])
    runs = len(low)
    weights = np.vstack([counts[None, :], generator.multinomial(runs, counts / runs, size=resamples)]) / runs
    masses = _most_likely(weights, inside.astype(np.float64))
    survival = np.clip(1 - np.cumsum(masses, axis=1), 0, 1)
    tail = (1 - level) / 2
    band = np.quantile(survival[1:], [tail, 1 - tail], axis=0) if resamples else np.stack([survival[0]] * 2)
    middle = (survival <= 0.5 + 1e-6).argmax(axis=1)
    first, last = np.quantile(middle[1:], [tail, 1 - tail], method="inverted_cdf") if resamples else middle[[0, 0]]
    return Turnbull(
        left=left,
        right=right,
        mass=masses[0],
        survival=survival[0],
        low=band[0],
        high=band[1],
        median=Bracket(float(right[middle[0]]), float(left[middle[0]])),
        interval=(float(left[int(first)]), float(right[int(last)])),
        level=level,
        cohort=cohort,
    )


def check_brackets(low: Floats, high: Floats) -> None:
    """Raise ValueError unless low and high are [run] with low < high."""
    if low.ndim != 1 or low.shape != high.shape or not len(low):
        raise ValueError(f"low and high are [run] of at least one run, but have shapes {low.shape} and {high.shape}")
    if not (low < high).all():
        raise ValueError("a bracket (low, high] has low < high")


def _innermost(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the intervals (left, right] that begin with a low and end with the next end, if that is a high."""
    lows, highs = np.unique(low), np.unique(high)
    following = np.searchsorted(highs, lows, side="right")
    right = highs[np.minimum(following, len(highs) - 1)]
    next_low = np.append(lows[1:], inf)
    # An equal low comes after a high: (a, b] and (b, c] do not meet.
    keep = (following < len(highs)) & (right <= next_low)
    return lows[keep], right[keep]


def _most_likely(weights: Floats, inside: Floats) -> Floats:
    """Return the masses [resample, interval] for weights [resample, bracket]; inside: [bracket, interval]."""
    masses = np.full((len(weights), inside.shape[1]), 1 / inside.shape[1])
    for _ in range(_STEPS):
        chance = masses @ inside.T
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(weights > 0, weights / chance, 0.0)
        following = masses * (ratio @ inside)
        change = np.abs(following - masses).max()
        masses = following
        if change < _TOLERANCE:
            break
    return np.asarray(masses / masses.sum(axis=1, keepdims=True), np.float64)
