"""Hartigan's dip: how far the empirical distribution is from the nearest one with a single mode.

A second opinion beside the mixtures of `modes.py`, never the first: it looks at the balance of two modes, and with a
second mode of weight .1 and 20 seeds it has a power of 5 %. Values on a coarse grid are ties, and ties are modes to it.
Between 1/(2n) and 1/4. Written from the paper; the p is simulated from the uniform, the least favourable single mode.
Source: Hartigan & Hartigan 1985, Annals of Statistics 13.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DipTest:
    """The dip and the part of `draws` uniform samples whose dip is as large."""

    dip: float
    p: float
    draws: int
    cohort: Cohort
    method: str = "Hartigan's dip, uniform null"
    unit: str = "run"
    stopping_rule: str = FIXED


def dip_test(values: Floats, cohort: Cohort, rng: np.random.Generator, draws: int = 999) -> DipTest:
    """Return the dip of values [run] and its p."""
    seen = dip(values)
    null = dip_null(len(values), rng, draws)
    return DipTest(seen, float((1 + (null >= seen - 1e-12).sum()) / (draws + 1)), draws, cohort)


def dip_null(n: int, rng: np.random.Generator, draws: int) -> Floats:
    """Return [draw]: dips of uniform samples of n."""
    return np.array([dip(sample) for sample in rng.random((draws, n))])


def dip(values: Floats) -> float:
    """Return the dip of values [run], ties allowed.

    Shrinks an interval that holds the mode: left of it the best fit is the greatest convex minorant of the empirical
    distribution, right of it the least concave majorant.
    """
    if not len(values) or not np.isfinite(values).all():
        raise ValueError("a dip needs at least one value, and all of them finite")
    places, sizes = np.unique(values, return_counts=True)
    upper = np.cumsum(sizes) / len(values)
    lower = upper - sizes / len(values)
    first, last, deepest = 0, len(places) - 1, 1 / len(values)
    while first < last:
        span = np.arange(first, last + 1)
        minorant = _hull(places, lower, span)
        majorant = _hull(places, -upper, span)
        convex = np.interp(places[span], places[minorant], lower[minorant])
        concave = np.interp(places[span], places[majorant], upper[majorant])
        gap_minorant = concave[minorant - first] - lower[minorant]
        gap_majorant = upper[majorant] - convex[majorant - first]
        if max(gap_minorant.max(), gap_majorant.max()) <= deepest:
            break
        if gap_minorant.max() >= gap_majorant.max():
            left = int(minorant[gap_minorant.argmax()])
            right = int(majorant[np.searchsorted(majorant, left)])
        else:
            right = int(majorant[gap_majorant.argmax()])
            left = int(minorant[np.searchsorted(minorant, right, side="right") - 1])
        below = (upper[span] - convex)[: left - first]
        above = (concave - lower[span])[right - first + 1 :]
        deepest = max(deepest, below.max(initial=0.0), above.max(initial=0.0))
        if (left, right) == (first, last):
            break
        first, last = left, right
    return float(deepest / 2)


def _hull(places: Floats, heights: Floats, span: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the indices of `span` on the lower convex hull of (places, heights)."""
    x, y = places.tolist(), heights.tolist()
    hull: list[int] = []
    for i in span.tolist():
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (y[b] - y[a]) * (x[i] - x[a]) < (y[i] - y[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return np.array(hull)
