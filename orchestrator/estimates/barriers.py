"""Are two runs linearly connected: heights along the straight line between their weights.

Three quantities that are not the same, each by its name. The barrier is the largest excess over the straight
interpolation of both ends (Entezari et al. 2022); the convexity gap is the largest barrier of any contiguous part of
the line (Juneja et al. 2023); the instability is the largest height minus the mean of both ends (Frankle et al. 2020,
who call two runs stable below .02 of error).

Pairs are no replicates: all pairs of one run share it. Intervals leave out one unit with all its pairs at a time.
"""

from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heights:
    """What the lines between runs show, [pair] each."""

    barriers: Floats
    gaps: Floats
    instabilities: Floats


def heights(losses: Floats, fractions: Floats) -> Heights:
    """Return what the heights [pair, point] at `fractions` [point], ascending from 0 to 1, show of each pair.

    Raises ValueError where a line has fewer than three points or does not begin and end at its ends.
    """
    losses, fractions = np.atleast_2d(np.asarray(losses, float)), np.asarray(fractions, float)
    if losses.shape[1] != len(fractions) or len(fractions) < 3:
        raise ValueError(f"a line has a height at each of at least 3 points, not {list(losses.shape)}")
    if fractions[0] != 0 or fractions[-1] != 1 or not (np.diff(fractions) > 0).all():
        raise ValueError("the points of a line rise from 0 to 1")
    instabilities = losses.max(axis=1) - losses[:, [0, -1]].mean(axis=1)
    return Heights(_barrier(losses, fractions), _gap(losses, fractions), instabilities)


def _barrier(losses: Floats, at: Floats) -> Floats:
    along = (at - at[0]) / (at[-1] - at[0])
    straight = losses[:, :1] * (1 - along) + losses[:, -1:] * along
    return np.asarray(np.maximum(losses - straight, 0.0).max(axis=1), float)


def _gap(losses: Floats, at: Floats) -> Floats:
    points = len(at)
    parts = [_barrier(losses[:, a : b + 1], at[a : b + 1]) for a in range(points - 2) for b in range(a + 2, points)]
    return np.asarray(np.max(parts, axis=0), float)


def mean_over_pairs(
    values: Floats,
    units: Places,
    cohort: Cohort,
    unit: str,
    level: float = 0.95,
    within: tuple[float, float] = (-inf, inf),
) -> Estimate:
    """Return the mean of `values` [pair], whose ends lie in `units` [pair, 2], with a jackknife interval over units.

    within  what the mean can be: the interval ends there

    A unit is what was drawn independently: a run, or the parent that forked runs share. Student's t with one degree of
    freedom fewer than units; the jackknife of a mean over pairs errs to the wide side (Efron & Stein 1981). With fewer
    than two units, or where all pairs are alike, spread tells nothing, and the data do not bound the mean.
    """
    names = np.unique(units)
    value = float(values.mean()) if len(values) else nan
    left = [values[(units != name).all(axis=1)] for name in names]
    alike = len(values) > 0 and bool(values.min() == values.max())
    if len(names) < 2 or alike or any(not len(rest) for rest in left):
        why = "all pairs are alike" if alike else f"{len(names)} {unit}{'s' * (len(names) != 1)}"
        low, high = (nan, nan) if isnan(value) else within
        return Estimate(value, low, high, "mean over pairs", level, cohort, unit, note=f"no interval: {why}")
    without = np.array([rest.mean() for rest in left])
    count = len(names)
    error = float(np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum()))
    reach = float(student.ppf((1 + level) / 2, count - 1)) * error
    method = "mean over pairs, jackknife over units, Student's t"
    low, high = max(value - reach, within[0]), min(value + reach, within[1])
    return Estimate(value, low, high, method, level, cohort, unit)


def matrix_of(values: Floats, ends: Places, runs: int) -> Floats:
    """Return the symmetric [run, run] of `values` [pair] between `ends` [pair, 2]; NaN where there is no such pair."""
    found = np.full((runs, runs), nan)
    np.fill_diagonal(found, 0.0)
    found[ends[:, 0], ends[:, 1]] = found[ends[:, 1], ends[:, 0]] = values
    return found
