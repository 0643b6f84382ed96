"""Many comparisons at once: adjusted p values, and a band that holds everywhere at the same time.

Holm (1979) keeps the chance of any false claim at its level under every dependence: for claims. Benjamini & Hochberg
(1995) keeps the expected share of false ones among the discoveries, for independent or positively dependent tests:
for screening. The order of the p values changes nothing; NaN (no test could be made) stays NaN and does not count.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.estimates.estimate import Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """Means over runs with intervals that cover all columns together."""

    value: Floats
    low: Floats
    high: Floats
    critical: float
    cohort: Cohort
    method: str
    level: float
    unit: str = "run"


def holm(p: ArrayLike) -> Floats:
    """Return the adjusted p values: below α they are claims, with at most α chance of any false one."""
    values, order, places = _ordered(p)
    count = len(order)
    stepped = np.maximum.accumulate(values[order] * (count - np.arange(count)))
    return _back(places, order, np.minimum(stepped, 1))


def benjamini_hochberg(p: ArrayLike) -> Floats:
    """Return the adjusted p values: below q they are discoveries, of which a share of at most q is expected false."""
    values, order, places = _ordered(p)
    count = len(order)
    stepped = np.minimum.accumulate((values[order] * count / np.arange(1, count + 1))[::-1])[::-1]
    return _back(places, order, np.minimum(stepped, 1))


def simultaneous_band(
    values: Floats, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, resamples: int = 2_000
) -> Band:
    """Return the means of values [run, column] with a sup-t band: one draw of runs serves all columns.

    The critical value is the quantile of the largest |t| over columns in resampled runs, each with its own standard
    error (bootstrap-t). Columns without spread have width 0. Raises ValueError for missing values or below 3 runs.
    """
    runs, columns = values.shape
    if runs < 3 or np.isnan(values).any():
        raise ValueError("a band over columns needs at least 3 runs, each with a value in every column")
    centre, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(runs)
    largest = np.zeros(resamples)
    for index in range(resamples):
        drawn = values[rng.integers(runs, size=runs)]
        spread = drawn.std(axis=0, ddof=1) / np.sqrt(runs)
        # All draws of one run: this replicate knows no error of its own, the whole sample's stands in.
        spread = np.where(spread > 1e-12 * error, spread, error)
        off = np.abs(drawn.mean(axis=0) - centre)
        largest[index] = np.max(off[error > 0] / spread[error > 0], initial=0.0)
    critical = float(np.quantile(largest, level))
    half = critical * error
    return Band(centre, centre - half, centre + half, critical, cohort, f"sup-t over {columns} columns", level)


def _ordered(p: ArrayLike) -> tuple[Floats, NDArray[np.intp], NDArray[np.bool_]]:
    given = np.asarray(p, float)
    if given.ndim != 1 or bool(((given < 0) | (given > 1)).any()):
        raise ValueError("p values are one list of numbers from 0 to 1, or NaN where no test was made")
    there = ~np.isnan(given)
    values = given[there]
    return values, np.argsort(values, kind="stable"), there


def _back(there: NDArray[np.bool_], order: NDArray[np.intp], adjusted: Floats) -> Floats:
    found = np.full(len(there), np.nan)
    inner = np.empty(len(order))
    inner[order] = adjusted
    found[there] = inner
    return found
