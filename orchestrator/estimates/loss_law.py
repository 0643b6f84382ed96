"""L(N, D) = E + A N^-α + B D^-β, fitted so that it converges, with intervals from whole runs.

The form is Hoffmann et al. 2022's: log L = LSE(e, a - α log N, b - β log D), Huber loss (δ = 1e-3) of the residuals of
log L. That sum is about 1e-3, and optimisers with their default tolerance stop on it after a dozen steps, wherever
they began (Besiroglu et al. 2024). So: the objective × 1e3, ftol 1e-14, an analytic gradient, and every descent is
started again from its own end until that gains nothing.

Starts: for each (α, β) of a grid the other three are a non-negative linear least squares problem; the best
eight of the 64 are descended from. `grid_starts` is the full 4 × 4 × 3 × 3 × 3 grid: it ends in the same optimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, nnls
from scipy.special import stdtrit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.outcomes import percentile_ends
from orchestrator.estimates.power_law import MOST_GROUPS

Floats = NDArray[np.float64]
DELTA = 1e-3
_SCALING = 1e3
_EXPONENTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.2)
_DESCENTS = 8
_TOLERANCES = {"ftol": 1e-14, "gtol": 1e-12, "maxiter": 5_000, "maxcor": 20}
_AGAIN = 30
_TINY = 1e-12  # A coefficient that is 0 in the linear problem starts here, not at log 0


@dataclass(frozen=True, slots=True)
class LossLaw:
    """A fitted L(N, D).

    irreducible, alpha, beta  E and the two exponents; a, b: log A and log B
    optimal_exponent          β / (α + β): the compute-optimal N grows as C to this power
    objective                 the sum of Huber losses at the optimum (not × 1e3)
    agreeing, descents        how many descents ended within 1e-6 of the best, of how many
    """

    irreducible: Estimate
    alpha: Estimate
    beta: Estimate
    a: Estimate
    b: Estimate
    optimal_exponent: Estimate
    objective: float
    agreeing: int
    descents: int
    points: int
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    def at(self, n: Floats, d: Floats) -> Floats:
        """Return the law at these parameters and tokens."""
        of_n, of_d = np.exp(self.a.value) * n**-self.alpha.value, np.exp(self.b.value) * d**-self.beta.value
        return np.asarray(self.irreducible.value + of_n + of_d, np.float64)


@dataclass(frozen=True, slots=True)
class LossPoints:
    """Losses and where they were measured; a run may have several (its checkpoints).

    n, d, loss  [point]: parameters, training tokens, loss
    run         [point]: which run, from 0
    scale       [point]: which condition, from 0; runs are drawn again within it
    """

    n: Floats
    d: Floats
    loss: Floats
    run: NDArray[np.int64]
    scale: NDArray[np.int64]

    def check(self) -> None:
        """Raise ValueError for points to which no law can be fitted."""
        for name in ("n", "d", "loss"):
            values = getattr(self, name)
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"{name} is not positive and finite everywhere: leave such points out")
        if len(self.loss) < 6 or len(np.unique(self.n)) < 2 or len(np.unique(self.d)) < 2:
            raise ValueError("five parameters need six points, two numbers of parameters and two of tokens")
        if len(np.unique(np.stack([self.run, self.scale]), axis=1).T) != len(np.unique(self.run)):
            raise ValueError("a run lies in one condition alone")


def loss_law(
    points: LossPoints,
    cohort: Cohort,
    rng: np.random.Generator,
    resampled: bool = False,
    level: float = 0.95,
    resamples: int = 200,
) -> LossLaw:
    """Return the fitted law; its intervals are Student's over fits to groups of runs, or from resampled runs.

    With one run per condition there are no groups to tell apart: ask for `resampled` with `scale` all 0, so that the
    conditions themselves are what is drawn again.
    """
    points.check()
    weight = np.ones(len(points.loss))
    ends = [descend(points, weight, start) for start in linear_starts(points)]
    best, least = min(ends, key=lambda end: end[1])
    if resampled:
        method = "LSE, Huber 1e-3, runs resampled"
        drawn = np.array([descend(points, w, best)[0] for w in _resampled(points, rng, resamples)])
        fewest = min(len(np.unique(points.run[points.scale == scale])) for scale in np.unique(points.scale))
        low, high = np.quantile(_with_optimum(drawn), percentile_ends(fewest, level), axis=0)
    else:
        method = "LSE, Huber 1e-3, t over fits to groups of runs"
        fits = np.array([descend(points, w, best)[0] for w in _dealt(points, rng)])
        low, high = _student(best, fits, level)
    parts = [
        Estimate(float(v), float(lo), float(hi), method, level, cohort)
        for v, lo, hi in zip(_with_optimum(best[None])[0], low, high, strict=True)
    ]
    agreeing = sum(end[1] <= least * (1 + 1e-6) for end in ends)
    e, a, alpha, b, beta, optimum = parts
    descents, count = len(ends), len(weight)
    return LossLaw(e, alpha, beta, a, b, optimum, least, agreeing, descents, count, method, level, cohort)


def objective(theta: Floats, points: LossPoints, weight: Floats) -> tuple[float, Floats]:
    """Return the weighted sum of Huber losses and its gradient at theta = (e, a, α, b, β)."""
    return _huber(theta, -np.log(points.n), -np.log(points.d), np.log(points.loss), weight)


def _huber(theta: Floats, n: Floats, d: Floats, log_loss: Floats, weight: Floats) -> tuple[float, Floats]:
    e, a, alpha, b, beta = theta
    of_n, of_d = a + alpha * n, b + beta * d
    top = np.maximum(np.maximum(of_n, of_d), e)
    parts = np.exp(e - top), np.exp(of_n - top), np.exp(of_d - top)
    total = parts[0] + parts[1] + parts[2]
    residual = top + np.log(total) - log_loss
    size = np.abs(residual)
    loss = np.where(size <= DELTA, residual**2 / 2, DELTA * (size - DELTA / 2))
    pull = weight * np.clip(residual, -DELTA, DELTA) / total
    of_e, by_n, by_d = pull * parts[0], pull * parts[1], pull * parts[2]
    slope = np.array([of_e.sum(), by_n.sum(), by_n @ n, by_d.sum(), by_d @ d])
    return float(weight @ loss), slope


def descend(points: LossPoints, weight: Floats, start: Floats) -> tuple[Floats, float]:
    """Return the optimum that is downhill from `start`, and the objective there (not × 1e3)."""
    kept = weight > 0
    given = (-np.log(points.n[kept]), -np.log(points.d[kept]), np.log(points.loss[kept]), weight[kept])

    def scaled(theta: Floats) -> tuple[float, Floats]:
        value, slope = _huber(theta, *given)
        return _SCALING * value, _SCALING * slope

    at, least = start, inf
    for _ in range(_AGAIN):
        found = minimize(scaled, at, jac=True, method="L-BFGS-B", options=_TOLERANCES)
        gained = least - found.fun
        at, least = found.x, min(least, float(found.fun))
        if gained <= 1e-10 * least:
            break
    return at, least / _SCALING


def linear_starts(points: LossPoints) -> list[Floats]:
    """Return the best starts of a grid over the exponents, everything else solved for (relative least squares)."""
    tried = []
    for alpha, beta in product(_EXPONENTS, _EXPONENTS):
        # Centred columns keep the problem well conditioned at N, D of 1e10.
        centre_n, centre_d = np.exp(np.log(points.n).mean()), np.exp(np.log(points.d).mean())
        columns = np.stack(
            [np.ones_like(points.n), (points.n / centre_n) ** -alpha, (points.d / centre_d) ** -beta], axis=1
        )
        found, _ = nnls(columns / points.loss[:, None], np.ones(len(points.loss)))
        e, a, b = np.log(np.maximum(found, _TINY))
        start = np.array([e, a + alpha * np.log(centre_n), alpha, b + beta * np.log(centre_d), beta])
        tried.append((objective(start, points, np.ones(len(points.loss)))[0], start))
    tried.sort(key=lambda pair: pair[0])
    return [start for _, start in tried[:_DESCENTS]]


def grid_starts() -> list[Floats]:
    """Return the 4 × 4 × 3 × 3 × 3 starts: α, β ∈ {0, .5, 1, 2}, a, b ∈ {0, 10, 20}, e ∈ {-1, 0, 1}."""
    exponents, logs = (0.0, 0.5, 1.0, 2.0), (0.0, 10.0, 20.0)
    return [
        np.array([e, a, alpha, b, beta])
        for alpha, beta, a, b, e in product(exponents, exponents, logs, logs, (-1.0, 0.0, 1.0))
    ]


def _resampled(points: LossPoints, rng: np.random.Generator, resamples: int) -> Sequence[Floats]:
    """Return weights [point] for each resample: how often the point's run was drawn within its condition."""
    _, run = np.unique(points.run, return_inverse=True)
    times = np.zeros((resamples, int(run.max()) + 1))
    for scale in np.unique(points.scale):
        mine = np.unique(run[points.scale == scale])
        times[:, mine] = rng.multinomial(len(mine), np.full(len(mine), 1 / len(mine)), size=resamples)
    return [row[run] for row in times]


def _dealt(points: LossPoints, rng: np.random.Generator) -> Sequence[Floats]:
    """Return weights [point] for each group: every condition's runs, shuffled, dealt out to at most 20 groups."""
    runs = [np.unique(points.run[points.scale == scale]) for scale in np.unique(points.scale)]
    count = min(MOST_GROUPS, *(len(mine) for mine in runs))
    group = {run: place % count for mine in runs for place, run in enumerate(rng.permutation(mine))}
    of_point = np.array([group[run] for run in points.run])
    return [(of_point == number).astype(np.float64) for number in range(count)]


def _with_optimum(theta: Floats) -> Floats:
    """Return [fit, 6]: E, a, α, b, β, β / (α + β)."""
    natural = np.concatenate([np.exp(theta[:, :1]), theta[:, 1:]], axis=1)
    return np.concatenate([natural, theta[:, 4:] / (theta[:, 2:3] + theta[:, 4:])], axis=1)


def _student(point: Floats, per_seed: Floats, level: float) -> tuple[Floats, Floats]:
    """Return bounds [6]: Student's interval over the fits per seed, about the fit to all."""
    count = len(per_seed)
    if count < 2:
        return np.full(6, -inf), np.full(6, inf)
    half = float(stdtrit(count - 1, (1 + level) / 2)) / sqrt(count) * _with_optimum(per_seed).std(axis=0, ddof=1)
    centre = _with_optimum(point[None])[0]
    return centre - half, centre + half
