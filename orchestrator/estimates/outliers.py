"""Which runs are unlike the others: robust z over metrics, and over paths through latent states.

z = .6745 (x - median) / MAD; |z| > 3.5 is an outlier (Iglewicz & Hoaglin 1993). The median and the MAD do not move
with the outliers that they are to find. An outlier is a run to look at, never one to leave out of an estimate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]
LIMIT = 3.5
_NORMAL_MAD, _NORMAL_MEAN_AD = 0.6744897501960817, 0.7978845608028654  # of a standard normal


@dataclass(frozen=True, slots=True)
class Outliers:
    """Robust z of every run and column, and which are beyond the limit.

    z         [run, column]; NaN where the run was not measured
    is_found  [run, column]
    runs      indices of runs with any, those with the largest |z| first
    """

    z: Floats
    is_found: NDArray[np.bool_]
    runs: tuple[int, ...]
    limit: float
    cohort: Cohort
    method: str
    unit: str = "run"
    stopping_rule: str = FIXED


def outliers(values: Floats, cohort: Cohort, limit: float = LIMIT) -> Outliers:
    """Return the outliers of values [run, metric]; NaN is a value that is not there."""
    z = np.stack([robust_z(column) for column in np.asarray(values, float).T], axis=1)
    return _found(z, limit, cohort, "robust z over metrics")


def path_outliers(distances: Floats, cohort: Cohort, limit: float = LIMIT) -> Outliers:
    """Return the runs whose median distance to the others is large, from distances [run, run] such as of paths.

    Only far is unusual: a run that is nearer to all others than they are to each other is typical.
    """
    off = np.where(np.eye(len(distances), dtype=bool), np.nan, distances)
    return _found(np.maximum(robust_z(np.nanmedian(off, axis=1)), 0)[:, None], limit, cohort, "robust z over paths")


def path_distances(paths: list[NDArray[np.int64]]) -> Floats:
    """Return [run, run]: the share of steps at which two runs are in different states, up to where both were seen.

    Raises ValueError for a path without steps.
    """
    if any(len(path) == 0 for path in paths):
        raise ValueError("a path without a step has no distance to others")
    found = np.zeros((len(paths), len(paths)))
    for i, one in enumerate(paths):
        for j, other in enumerate(paths[:i]):
            shared = min(len(one), len(other))
            found[i, j] = found[j, i] = float(np.mean(one[:shared] != other[:shared]))
    return found


def robust_z(values: Floats) -> Floats:
    """Return the robust z of values [run]; where over half of the runs are equal, the mean deviation stands in.

    All equal: 0 for each.
    """
    there = ~np.isnan(values)
    if not there.any():
        return np.full(len(values), np.nan)
    off = values - np.median(values[there])
    spread = float(np.median(np.abs(off[there]))) / _NORMAL_MAD
    if spread == 0:
        spread = float(np.mean(np.abs(off[there]))) / _NORMAL_MEAN_AD
    return off / spread if spread > 0 else np.where(there, 0.0, np.nan)


def _found(z: Floats, limit: float, cohort: Cohort, method: str) -> Outliers:
    is_found = np.nan_to_num(np.abs(z)) > limit
    largest = np.nan_to_num(np.abs(z)).max(axis=1, initial=0)
    runs = [int(run) for run in np.lexsort((np.arange(len(z)), -largest)) if is_found[run].any()]
    return Outliers(z, is_found, tuple(runs), limit, cohort, method)
