"""A power law of one scale: y = A x^-α + E, or y = A x^-α without the offset E.

Fitted to one statistic per scale (the mean, a quantile, …) by least squares on logs: log y = LSE(a - α log x, e).
With three parameters and five to eight scales a Huber loss of δ = 1e-3 is an L1 fit, which runs through three of
the points and ignores the others; L(N, D), which has hundreds of points, is in `loss_law.py` and uses it.

Intervals come from whole runs. For the mean it is Student's over fits to groups of runs, each group with every scale:
a fit per seed, up to 20 groups. It covered .93 to .98 at 3 to 60 runs. `resampled` draws runs again within
their scale and takes percentiles: too narrow for a law with an offset (.86 to .90 at 30 runs, .88 at 3), but the way
for a statistic that a single run has not, such as a quantile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.outcomes import Outcomes, percentile_ends

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]  # [..., run] → [...]
MOST_GROUPS = 20
_MANY_RUNS = 50  # from here on percentiles are not noted as too narrow
_NO_OFFSET = -1e300  # log E where there is none
_STEPS = 200
_LOWEST = 14.0  # E below e^-14 of the smallest y is no offset that data could tell from none


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """A fitted law; `at` evaluates it.

    exponent, prefactor, offset  α, A, E; the offset is 0 where none was fitted
    value                        [scale], the statistic that was fitted
    """

    exponent: Estimate
    prefactor: Estimate
    offset: Estimate
    scale: Floats
    value: Floats
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    def at(self, scale: Floats) -> Floats:
        """Return the law at these scales."""
        return np.asarray(self.prefactor.value * scale**-self.exponent.value + self.offset.value, np.float64)


def mean(scores: Floats) -> Floats:
    """Return the mean over the last axis, that of runs."""
    return np.asarray(scores.mean(axis=-1), np.float64)


def power_law(
    outcomes: Outcomes,
    rng: np.random.Generator,
    statistic: Statistic = mean,
    offset: bool = True,
    resampled: bool = False,
    level: float = 0.95,
    resamples: int = 1_000,
) -> PowerLaw:
    """Return the law of a statistic over scale; raises ValueError for fewer scales than parameters."""
    needed = 3 if offset else 2
    if len(outcomes.scale) < needed:
        raise ValueError(f"a power law with {needed} parameters needs {needed} scales, not {len(outcomes.scale)}")
    value = np.array([float(statistic(scores)) for scores in outcomes.scores])
    log_x, weight = np.log(outcomes.scale), outcomes.runs.astype(np.float64)
    point = fit(log_x, _logs(value), weight, offset)
    if statistic is mean and not resampled:
        method = "log least squares, t over fits to groups of runs"
        y = np.stack(outcomes.groups(rng, MOST_GROUPS), axis=-1)
        bounds = _student(point, fit(log_x, _logs(y), weight, offset, point), level)
        note = ""
    else:
        method = "log least squares, runs resampled"
        y = np.stack([statistic(scores) for scores in outcomes.drawn(rng, resamples)], axis=-1)
        drawn = _natural(fit(log_x, _logs(y), weight, offset, point))
        bounds = np.quantile(drawn, percentile_ends(int(outcomes.runs.min()), level), axis=0)
        note = "" if outcomes.runs.min() >= _MANY_RUNS else "percentiles of so few runs are too narrow"
    parts = [
        Estimate(float(v), float(low), float(high), method, level, outcomes.cohort, note=note)
        for v, low, high in zip(_natural(point), *bounds, strict=True)
    ]
    return PowerLaw(parts[1], parts[0], parts[2], outcomes.scale, value, method, level, outcomes.cohort)


def fit(log_x: Floats, log_y: Floats, weight: Floats, offset: bool, start: Floats | None = None) -> Floats:
    """Return [..., 3]: log A, α and log E of log_y [..., scale], least squares with weights [scale].

    Many laws at once. `start`: one point estimate from which all are fitted; else several starts for each.
    """
    straight = _straight(log_x, log_y, weight)
    if not offset:
        return np.concatenate([straight, np.full((*log_y.shape[:-1], 1), _NO_OFFSET)], axis=-1)
    if start is not None:
        return _levenberg(log_x, log_y, weight, np.broadcast_to(start, (*log_y.shape[:-1], 3)).copy())[0]
    best, least = np.empty((*log_y.shape[:-1], 3)), np.full(log_y.shape[:-1], inf)
    for share in (0.98, 0.9, 0.7, 0.4, 0.05):
        # Given E, the rest is a straight line.
        log_e = log_y.min(axis=-1, keepdims=True) + np.log(share)
        line = _straight(log_x, log_y + np.log(-np.expm1(log_e - log_y)), weight)
        found, loss = _levenberg(log_x, log_y, weight, np.concatenate([line, log_e], axis=-1))
        best = np.where((loss < least)[..., None], found, best)
        least = np.minimum(least, loss)
    return best


def _straight(log_x: Floats, log_y: Floats, weight: Floats) -> Floats:
    """Return [..., 2]: log A and α of a straight line through the logs."""
    share = weight / weight.sum()
    centred = log_x - share @ log_x
    slope = (log_y * centred) @ share / (share @ centred**2)
    return np.stack([log_y @ share - slope * (share @ log_x), -slope], axis=-1)


def _levenberg(log_x: Floats, log_y: Floats, weight: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return the parameters [..., 3] at which the squares are least, and the squares [...] (Marquardt 1963)."""
    at, damping = start, np.full(log_y.shape[:-1], 1e-3)
    floor = log_y.min(axis=-1) - _LOWEST
    residual, slopes = _residual(at, log_x, log_y)
    loss = residual**2 @ weight
    settled = np.zeros(loss.shape, bool)
    for _ in range(_STEPS):
        weighted = slopes * weight[:, None]
        gram = np.einsum("...si,...sj->...ij", weighted, slopes)
        gram[..., range(3), range(3)] *= 1 + damping[..., None]
        gram[..., range(3), range(3)] += 1e-12
        step = np.linalg.solve(gram, -np.einsum("...si,...s->...i", weighted, residual)[..., None])[..., 0]
        tried = at + step
        tried[..., 2] = np.maximum(tried[..., 2], floor)
        new, new_slopes = _residual(tried, log_x, log_y)
        new_loss = new**2 @ weight
        better = new_loss < loss
        # A small gain after a full step, or none after ever smaller ones.
        settled |= (better & (loss - new_loss <= 1e-13 * loss + 1e-28) & (damping < 1)) | (~better & (damping > 1e6))
        at = np.where(better[..., None], tried, at)
        residual = np.where(better[..., None], new, residual)
        slopes = np.where(better[..., None, None], new_slopes, slopes)
        loss = np.where(better, new_loss, loss)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-12, 1e8)
        if settled.all():
            break
    return at, loss


def _residual(at: Floats, log_x: Floats, log_y: Floats) -> tuple[Floats, Floats]:
    """Return log of the law - log_y [..., scale] and its derivatives [..., scale, 3]."""
    power = at[..., :1] - at[..., 1:2] * log_x
    total = np.logaddexp(power, at[..., 2:])
    share = np.exp(power - total)
    return total - log_y, np.stack([share, -share * log_x, 1 - share], axis=-1)


def _natural(fitted: Floats) -> Floats:
    """Return [..., 3]: A, α, E."""
    with np.errstate(over="ignore"):  # scores without a trend fit any prefactor
        return np.stack([np.exp(fitted[..., 0]), fitted[..., 1], np.exp(fitted[..., 2])], axis=-1)


def _student(point: Floats, per_seed: Floats, level: float) -> Floats:
    """Return [2, 3] bounds: Student's interval over the fits per seed, about the fit to all.

    A is bounded on the scale of logs, where its fits are symmetric.
    """
    count = len(per_seed)
    if count < 2:
        return np.array([[-inf] * 3, [inf] * 3])
    natural, each = _natural(point), _natural(per_seed)
    factor = float(stdtrit(count - 1, (1 + level) / 2)) / sqrt(count)
    exponent, offset = (factor * each[:, column].std(ddof=1) for column in (1, 2))
    with np.errstate(over="ignore"):
        prefactor = np.exp(point[0] + np.array([-1, 1]) * factor * per_seed[:, 0].std(ddof=1))
    ends = natural[1:] + np.array([[-1], [1]]) * np.array([exponent, offset])
    return np.column_stack([prefactor, ends[:, 0], np.maximum(ends[:, 1], 0.0)])


def _logs(y: Floats) -> Floats:
    if not (y > 0).all():
        raise ValueError("a power law is fitted to positive numbers; the statistic is zero or negative at some scale")
    return np.asarray(np.log(y), np.float64)
