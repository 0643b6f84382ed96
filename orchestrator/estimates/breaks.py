"""Where a curve breaks, and whether there is a break at all.

`break_of` is the break statistic of the literature: the step with the largest acceleration,
argmax_t [f(t+D) - f(t)] - [f(t) - f(t-D)]. It always finds one, also in noise; it depends on D, on smoothing, and on
the grid, and for a logistic it lies about 1.3 widths before the midpoint. So these are part of the result, the
half-rise stands beside it, and "there was a breakthrough" is for `breakthrough` to say: a sigmoid must beat a flat line
and a line in log step by 10 units of BIC. For a falling loss the direction is "down": the printed formula, applied to
a loss, finds the end of the drop.
Sources: arXiv 2506.15872 (POLCA), eq. 9; Chen et al. 2023 (arXiv 2309.07311); Schwarz 1978.
"""

from dataclasses import dataclass
from math import inf, isnan, log, nan

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import expit

from orchestrator.estimates.onset import Bracket, Direction

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
MARGIN = 10.0
_WIDTHS, _MIDDLES = 12, 40


@dataclass(frozen=True, slots=True)
class Break:
    """The step of the largest acceleration, and everything that it depends on.

    half_rise   first probe at or beyond the middle between the first value and the extreme one
    window      D, in steps
    smoothing   probes in the moving average; 1: none
    grid        [step], the probes at which the statistic could be computed
    """

    step: int
    acceleration: float
    half_rise: int
    window: int
    smoothing: int
    direction: Direction
    grid: Steps


@dataclass(frozen=True, slots=True)
class Breakthrough:
    """Whether a sigmoid explains a curve better than no change, or steady change in log step, could.

    declared      BIC of the sigmoid < the other two - `MARGIN`
    bic_*         n·log(RSS/n) + k·log n, with k = 2, 3, 5 parameters; lower is better
    midpoint      of the sigmoid, in steps; NaN where none is declared
    width         scale of the sigmoid, in steps
    floor, rise   its value before, and the change (negative for a fall)
    """

    declared: bool
    bic_sigmoid: float
    bic_flat: float
    bic_log_linear: float
    midpoint: float
    width: float
    floor: float
    rise: float


@dataclass(frozen=True, slots=True)
class Refined:
    """A time inside an onset's bracket; for display: the bracket is the datum.

    interpolated  where the straight line between the bracket's ends crosses the threshold
    sigmoid       where the fitted sigmoid does; NaN if outside the bracket or no breakthrough was declared
    """

    bracket: Bracket
    interpolated: float
    sigmoid: float


def break_of(steps: Steps, values: Floats, window: int, smoothing: int, direction: Direction) -> Break:
    """Return the break of one curve; values: [step], all measured.

    Only steps with a probe exactly `window` before and after can be returned; raises ValueError if there is none
    (`resampled` makes an even grid). Of equal accelerations the first counts.
    """
    _check(steps, values)
    if window < 1 or smoothing < 1 or smoothing % 2 == 0 or smoothing > len(values):
        raise ValueError("the window is at least 1 step; smoothing is an odd number of probes, at most all of them")
    rising = values if direction == "up" else -values
    smooth = _moving_average(rising, smoothing)
    before, here, after = _triples(steps, window)
    if not len(here):
        raise ValueError(f"no probe has another {window} steps before and after it: resample to an even grid first")
    acceleration = smooth[after] - 2 * smooth[here] + smooth[before]
    # Accelerations that are equal but for rounding are equal: the first counts.
    top = int((acceleration >= acceleration.max() - 1e-12 * np.abs(smooth).max()).argmax())
    middle = (rising[0] + rising.max()) / 2
    half = int(steps[int((rising >= middle).argmax())])
    return Break(int(steps[here[top]]), float(acceleration[top]), half, window, smoothing, direction, steps[here])


def resampled(steps: Steps, values: Floats, every: int) -> tuple[Steps, Floats]:
    """Return the curve on an even grid, by straight lines between the probes."""
    _check(steps, values)
    grid = np.arange(steps[0], steps[-1] + 1, every)
    return grid, np.interp(grid, steps, values)


def breakthrough(steps: Steps, values: Floats) -> Breakthrough:
    """Return whether one curve has a breakthrough, and where; values: [step], NaN where not measured.

    Raises ValueError for fewer than 8 probes: five parameters cannot be judged on less.
    """
    seen = ~np.isnan(values)
    steps, values = steps[seen], values[seen]
    _check(steps, values)
    if len(values) < 8:
        raise ValueError(f"a breakthrough is judged on 8 probes or more, not on {len(values)}")
    time = steps.astype(np.float64)
    log_time = np.log1p(time - time[0])
    flat = float(((values - values.mean()) ** 2).sum())
    line = np.stack([np.ones(len(time)), log_time], axis=1)
    steady = float(((values - line @ np.linalg.lstsq(line, values, rcond=None)[0]) ** 2).sum())
    parameters, sigmoid = _sigmoid(time, values)
    # Without noise the residual is rounding alone, whose logarithm says nothing.
    least = len(values) * (1e-7 * max(float(np.abs(values).max()), 1e-300)) ** 2
    bic_flat, bic_line, bic_sigmoid = (
        _bic(max(rss, least), len(values), k) for rss, k in ((flat, 2), (steady, 3), (sigmoid, 5))
    )
    declared = bic_sigmoid < min(bic_flat, bic_line) - MARGIN
    found = parameters if declared else np.full(4, nan)
    return Breakthrough(declared, bic_sigmoid, bic_flat, bic_line, *(float(found[i]) for i in (2, 3, 0, 1)))


def refined(bracket: Bracket, steps: Steps, values: Floats, threshold: float) -> Refined:
    """Return a time inside the bracket of one run's onset; NaN where the bracket has an infinite end."""
    if bracket.low == -inf or bracket.high == inf:
        return Refined(bracket, nan, nan)
    ends = values[np.searchsorted(steps, [int(bracket.low), int(bracket.high)])]
    share = (threshold - ends[0]) / (ends[1] - ends[0])
    between = bracket.low + float(share) * (bracket.high - bracket.low)
    fit = breakthrough(steps, values)
    level = (threshold - fit.floor) / fit.rise if fit.declared else nan
    crossing = fit.midpoint + fit.width * log(level / (1 - level)) if 0 < level < 1 else nan
    inside = not isnan(crossing) and bracket.low < crossing <= bracket.high
    return Refined(bracket, between, crossing if inside else nan)


def _sigmoid(time: Floats, values: Floats) -> tuple[Floats, float]:
    """Return (floor, rise, midpoint, width) of the least-squares sigmoid, and its residual sum of squares."""
    span = time[-1] - time[0]
    gap = float(np.diff(time).min())
    # Starts at and between probes: the steps of a log grid are crowded at the beginning.
    middles = np.unique(np.quantile(np.append(time, (time[1:] + time[:-1]) / 2), np.linspace(0.01, 0.99, _MIDDLES)))
    widths = np.geomspace(max(gap / 4, span * 1e-4), span / 4, _WIDTHS)
    middle, width = (grid.ravel() for grid in np.meshgrid(middles, widths))
    shape = expit((time - middle[:, None]) / width[:, None])
    centred, moved = values - values.mean(), shape - shape.mean(axis=1, keepdims=True)
    spread = (moved**2).sum(axis=1)
    rise = (moved @ centred) / np.maximum(spread, 1e-12)
    rss = np.where(spread > 1e-9, (centred**2).sum() - rise**2 * spread, inf)
    best = int(rss.argmin())
    floor = float(values.mean() - rise[best] * shape[best].mean())

    def residuals(free: Floats) -> Floats:
        curve = free[0] + free[1] * expit((time - time[0] - span * free[2]) / (span * np.exp(free[3])))
        return np.asarray(curve - values, np.float64)

    start = np.array([floor, rise[best], (middle[best] - time[0]) / span, log(width[best] / span)])
    # A midpoint outside the probes, or a width beyond them, is a bend and no breakthrough.
    low, high = [-inf, -inf, 0.0, log(1e-6)], [inf, inf, 1.0, log(0.5)]
    found = least_squares(residuals, start, bounds=(low, high), method="trf", max_nfev=200)
    floor, rise_found, at, log_width = found.x
    return np.array([floor, rise_found, time[0] + span * at, span * np.exp(log_width)]), float(2 * found.cost)


def _bic(rss: float, n: int, parameters: int) -> float:
    return n * log(rss / n) + parameters * log(n)


def _moving_average(values: Floats, probes: int) -> Floats:
    """Return the centred average over `probes`; over as many as there are on both sides near the ends."""
    total = np.append(0.0, np.cumsum(values))
    place = np.arange(len(values))
    half = np.minimum(np.minimum(place, place[::-1]), probes // 2)
    return np.asarray((total[place + half + 1] - total[place - half]) / (2 * half + 1), np.float64)


def _triples(steps: Steps, window: int) -> tuple[Steps, Steps, Steps]:
    """Return the places [triple] of t - window, t, t + window, for every t of which all are probes."""
    here = np.flatnonzero(np.isin(steps - window, steps) & np.isin(steps + window, steps))
    before, after = (np.searchsorted(steps, steps[here] + shift) for shift in (-window, window))
    return before, here, after


def _check(steps: Steps, values: Floats) -> None:
    if values.ndim != 1 or values.shape != steps.shape or len(steps) < 3:
        raise ValueError(f"a curve is [step] with three probes or more, but has shape {values.shape}")
    if (np.diff(steps) <= 0).any():
        raise ValueError("steps must ascend")
    if not np.isfinite(values).all():
        raise ValueError("a break needs a finite value at every probe: leave out the others, or resample")
