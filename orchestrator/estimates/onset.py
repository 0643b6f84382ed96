"""When a run's metric breaks through, as the interval that the probe grid can tell.

The onset of a run lies in (low, high]: the last probe before, and the first from which on the metric stays at
or above the threshold for `sustained` probes in a row. The probes are a grid: taking `high` for the time itself
biased medians by +13 % on a Pythia-like grid, and leaving out runs without onset by +6 %; so brackets stay
brackets, and a run without onset counts as later than its last probe.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom


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

    interval  (low of the lower, high of the upper order statistic); exact, so its level is at least `level`
    """

    bracket: Bracket
    interval: tuple[float, float]
    level: float
    runs: int


def onset(steps: NDArray[np.int64], values: NDArray[np.float64], threshold: float, sustained: int) -> Bracket:
    """Return the bracket of one run's onset.

    steps: ascending probe steps; values: the metric there, NaN where it was not measured (such probes are left
    out). A crossing too near the end to be seen `sustained` times counts if it holds up to the last probe.
    """
    seen = ~np.isnan(values)
    steps, above = steps[seen], values[seen] >= threshold
    if not len(steps):
        return Bracket(inf, -inf)
    for index in range(len(steps)):
        window = above[index : index + sustained]
        if window.all():
            return Bracket(float(steps[index]), float(steps[index - 1]) if index else -inf)
    return Bracket(inf, float(steps[-1]))


def median_onset(brackets: Sequence[Bracket], level: float = 0.95) -> MedianOnset:
    """Return the lower median of the onsets, and the interval between two order statistics that covers it.

    The interval [x_(l), x_(u)] has level P(l <= K < u), K ~ Binomial(n, 1/2) (David & Nagaraja 2003, 7.1); where n is
    too small for `level` it is (-inf, inf).
    """
    ordered = sorted(brackets)
    n = len(ordered)
    if not n:
        return MedianOnset(Bracket(inf, -inf), (-inf, inf), level, 0)
    middle = ordered[ceil(n / 2) - 1]
    below = int(binom.ppf((1 - level) / 2, n, 0.5))
    if below < 1:
        return MedianOnset(middle, (-inf, inf), level, n)
    return MedianOnset(middle, (ordered[below - 1].low, ordered[n - below].high), level, n)
