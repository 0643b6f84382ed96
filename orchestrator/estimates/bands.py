"""Bands that hold everywhere at once: for all tasks, steps or scales, with one error rate.

A band of pointwise 95 % intervals over 20 probes misses somewhere far more often than 5 % of the time. The sup-t
band takes one critical value for all cells, the quantile of the largest |t| over them (Montiel Olea & Plagborg-Møller
2019). Runs are drawn whole, the same draw for all cells, so that the correlation within a run is kept.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Band:
    """Means of cells, each with an interval; with probability `level` all of them cover together.

    value, low, high  [cell]; where fewer than two runs were measured the bounds are infinite
    runs              [cell], how many were measured there
    critical          the one factor on every standard error
    """

    value: Floats
    low: Floats
    high: Floats
    runs: NDArray[np.int64]
    critical: float
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED


def mean_band(
    values: Floats, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, resamples: int = 2_000
) -> Band:
    """Return the sup-t band of the means over runs of [run, cell]; NaN where a run was not measured.

    The critical value is a quantile of the largest studentised deviation over resampled runs (each resample with its
    own standard errors), and never below Student's for a single cell.
    """
    seen = ~np.isnan(values)
    runs = seen.sum(axis=0)
    wide = runs >= 2
    value = np.full(values.shape[1], np.nan)
    error = np.full(values.shape[1], np.inf)
    filled = np.where(seen, values, 0.0)
    some = runs > 0
    value[some] = filled[:, some].sum(axis=0) / runs[some]
    # Deviations, not raw sums: Σx² - n·mean² loses all digits where the mean is large against the spread.
    deviation = np.where(seen & wide, values - value, 0.0)
    error[wide] = np.sqrt((deviation**2).sum(axis=0)[wide] / (runs[wide] - 1) / runs[wide])
    critical = _critical(deviation, seen & wide, level, rng, resamples) if wide.any() else np.inf
    with np.errstate(invalid="ignore"):
        half = np.where(wide, critical * error, np.inf)
    return Band(value, value - half, value + half, runs, float(critical), "sup-t over runs", level, cohort)


def _critical(
    deviation: Floats, seen: NDArray[np.bool_], level: float, rng: np.random.Generator, resamples: int
) -> float:
    """Return the level-quantile of max |t*| over the cells, t* studentised by the resample's own spread."""
    n = len(deviation)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    count = weights @ seen
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = weights @ deviation / count
        spread = np.maximum(weights @ deviation**2 / count - mean**2, 0.0) * count / (count - 1)
        t = np.abs(mean) / np.sqrt(spread / count)
    # A resample without spread in a cell says nothing of it.
    t[~np.isfinite(t)] = 0.0
    floor = float(stdtrit(max(int(seen.sum(axis=0).max()) - 1, 1), (1 + level) / 2))
    return max(float(np.quantile(t.max(axis=1), level)), floor)
