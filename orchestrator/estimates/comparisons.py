"""Many comparisons at once: adjusted p values. A band that holds everywhere at the same time is in `bands.py`.

Holm (1979) keeps the chance of any false claim at its level under every dependence: for claims. Benjamini & Hochberg
(1995) keeps the expected share of false ones among the discoveries, for independent or positively dependent tests:
for screening. The order of the p values changes nothing; NaN (no test could be made) stays NaN and does not count.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


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
