"""Intraclass correlations: how alike are runs that share a seed, or scores of one run by several measures.

ICC(1), ICC(2,1) and ICC(3,1) of Shrout & Fleiss (1979) with their intervals: exact F for (1) and (3,1), Satterthwaite
for (2,1). Twins are pairs of runs that share their initialisation (or their data) and nothing else. None is
truncated: a negative one says that partners are less alike than strangers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class IntraclassCorrelations:
    """The three single-measure correlations of a full table [target, rater]."""

    icc1: Estimate
    icc2: Estimate
    icc3: Estimate


def twins(values: Floats, cohort: Cohort, level: float = 0.95) -> Estimate:
    """Return ICC(1) of scores [pair, member]: the share of variance that partners have in common.

    Groups of more than two are allowed, all of one size. Raises ValueError for missing scores and fewer than 2 pairs.
    """
    table = _full(values)
    n, k = table.shape
    means = table.mean(axis=1)
    between = k * float(((means - table.mean()) ** 2).sum()) / (n - 1)
    within = float(((table - means[:, None]) ** 2).sum()) / (n * (k - 1))
    return _from_ratio(between, within, (n - 1, n * (k - 1)), k, "ICC(1), exact F", cohort, level)


def shrout_fleiss(values: Floats, cohort: Cohort, level: float = 0.95) -> IntraclassCorrelations:
    """Return ICC(1), ICC(2,1) and ICC(3,1) of scores [target, rater]; raises ValueError where one is missing."""
    table = _full(values)
    n, k = table.shape
    grand, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    ms_rows = k * float(((rows - grand) ** 2).sum()) / (n - 1)
    ms_columns = n * float(((columns - grand) ** 2).sum()) / (k - 1)
    residual = table - rows[:, None] - columns + grand
    ms_rest = float((residual**2).sum()) / ((n - 1) * (k - 1))
    icc3 = _from_ratio(ms_rows, ms_rest, (n - 1, (n - 1) * (k - 1)), k, "ICC(3,1), exact F", cohort, level)
    icc2 = _absolute(ms_rows, ms_columns, ms_rest, (n, k), cohort, level)
    return IntraclassCorrelations(twins(table, cohort, level), icc2, icc3)


def _from_ratio(
    top: float, bottom: float, df: tuple[int, int], k: int, method: str, cohort: Cohort, level: float
) -> Estimate:
    if top <= 0 and bottom <= 0:
        raise ValueError("all scores are equal: there is no variance to share")
    tail = (1 - level) / 2
    # In mean squares and not in their ratio: partners that are equal have no variance within.
    low, high = ((top - q * bottom) / (top + (k - 1) * q * bottom) for q in (fdtri(*df, 1 - tail), fdtri(*df, tail)))
    return Estimate((top - bottom) / (top + (k - 1) * bottom), float(low), float(high), method, level, cohort)


def _absolute(
    ms_rows: float, ms_columns: float, ms_rest: float, shape: tuple[int, int], cohort: Cohort, level: float
) -> Estimate:
    """Return ICC(2,1), raters drawn at random too, with the interval of McGraw & Wong (1996, table 7)."""
    n, k = shape
    value = (ms_rows - ms_rest) / (ms_rows + (k - 1) * ms_rest + k * (ms_columns - ms_rest) / n)
    if value >= 1:
        return Estimate(1.0, 1.0, 1.0, "ICC(2,1), Satterthwaite", level, cohort)
    a = k * value / (n * (1 - value))
    b = 1 + k * value * (n - 1) / (n * (1 - value))
    part, rest = a * ms_columns, b * ms_rest
    df = (part + rest) ** 2 / (part**2 / (k - 1) + rest**2 / ((n - 1) * (k - 1)))
    upper = 1 - (1 - level) / 2
    other = k * ms_columns + (k * n - k - n) * ms_rest
    f_low, f_high = float(fdtri(n - 1, df, upper)), float(fdtri(df, n - 1, upper))
    low = n * (ms_rows - f_low * ms_rest) / (f_low * other + n * ms_rows)
    high = n * (f_high * ms_rows - ms_rest) / (other + n * f_high * ms_rows)
    return Estimate(value, low, high, "ICC(2,1), Satterthwaite", level, cohort)


def _full(values: Floats) -> Floats:
    table = np.asarray(values, float)
    if table.ndim != 2 or table.shape[0] < 2 or table.shape[1] < 2:
        raise ValueError(f"scores are [target, measure] with at least two of each, not {list(table.shape)}")
    if np.isnan(table).any():
        raise ValueError("a score is missing: leave out the whole target, or use variance.one_way")
    return table
