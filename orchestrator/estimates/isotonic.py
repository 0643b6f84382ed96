"""P over scale with no shape but order: never falling, or never rising; and a check of the logistic curve.

Pools adjacent violators for many data sets at once. Three checks by likelihood ratio, each with a parametric bootstrap
from the fit that is checked (chi-squared does not hold: the alternatives are orders): does P really never fall? never
rise? does the two-parameter curve do as well as the better order? Small p says that the shape is wrong; with few seeds
a large p says nothing.
Sources: Ayer et al. 1955; Barlow et al. 1972; Robertson, Wright & Dykstra 1988, Order Restricted Statistical Inference.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.firth import Counts, fit

Floats = NDArray[np.float64]
Statistic = Callable[[Counts], Floats]
METHOD = "likelihood ratio, parametric bootstrap"


@dataclass(frozen=True, slots=True)
class ShapeCheck:
    """Shapes of P over scale, and how well the data go with each.

    increasing, decreasing  [scale], the isotonic fits
    p_increasing            p of "P never falls" against "P does anything"; p_decreasing: of "P never rises"
    p_logistic              p of the two-parameter curve against the better of the two orders
    draws                   data sets that were simulated for each p; no p is below 1 / (draws + 1)
    """

    increasing: Floats
    decreasing: Floats
    p_increasing: float
    p_decreasing: float
    p_logistic: float
    draws: int
    cohort: Cohort
    method: str = METHOD
    unit: str = "run"
    stopping_rule: str = FIXED


def pool(shares: Floats, weights: Floats, increasing: bool = True) -> Floats:
    """Return [data set, scale]: the weighted least squares fit in order, by the max-min formula of blocks' means.

    shares, weights  [data set, scale]; weights are positive
    """
    if not increasing:
        return pool(shares[:, ::-1], weights[:, ::-1])[:, ::-1]
    scales = shares.shape[1]
    sums = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(shares * weights, axis=1)], axis=1)
    sizes = np.concatenate([np.zeros((len(shares), 1)), np.cumsum(weights, axis=1)], axis=1)
    block = (sums[:, None, 1:] - sums[:, :-1, None]) / np.where(
        np.tri(scales, k=-1, dtype=bool), 1, sizes[:, None, 1:] - sizes[:, :-1, None]
    )
    means = np.where(np.tri(scales, k=-1, dtype=bool), np.inf, block)  # [data set, first, last]
    lowest = np.minimum.accumulate(means[:, :, ::-1], axis=2)[:, :, ::-1]
    return np.stack([lowest[:, : i + 1, i].max(axis=1) for i in range(scales)], axis=1)


def shape_check(counts: Counts, cohort: Cohort, rng: np.random.Generator, draws: int = 999) -> ShapeCheck:
    """Return the isotonic fits of one data set and the three checks; the same generator gives the same p."""
    rising, falling = _ordered(counts, True), _ordered(counts, False)
    intercept, slope, _ = fit(counts)
    curve = expit(intercept[:, None] + slope[:, None] * counts.x)
    return ShapeCheck(
        increasing=rising[0],
        decreasing=falling[0],
        p_increasing=_p(counts, rising, lambda c: _free(c) - _best(c, True), rng, draws),
        p_decreasing=_p(counts, falling, lambda c: _free(c) - _best(c, False), rng, draws),
        p_logistic=_p(counts, curve, _over_logistic, rng, draws),
        draws=draws,
        cohort=cohort,
    )


def _p(counts: Counts, null: Floats, statistic: Statistic, rng: np.random.Generator, draws: int) -> float:
    runs = np.broadcast_to(counts.n, (draws, len(counts.x)))
    simulated = Counts(counts.x, rng.binomial(runs.astype(np.int64), null).astype(float), runs)
    seen = statistic(counts)[0]
    # Ties are equal values that rounding parted.
    return float((1 + (statistic(simulated) >= seen - 1e-9).sum()) / (draws + 1))


def _over_logistic(counts: Counts) -> Floats:
    intercept, slope, _ = fit(counts)
    curve = _likelihood(counts, expit(intercept[:, None] + slope[:, None] * counts.x))
    return np.maximum(_best(counts, True), _best(counts, False)) - curve


def _ordered(counts: Counts, increasing: bool) -> Floats:
    return pool(counts.k / counts.n, counts.n, increasing)


def _best(counts: Counts, increasing: bool) -> Floats:
    return _likelihood(counts, _ordered(counts, increasing))


def _free(counts: Counts) -> Floats:
    return _likelihood(counts, counts.k / counts.n)


def _likelihood(counts: Counts, p: Floats) -> Floats:
    p = np.clip(p, 0, 1)  # means of blocks miss the ends by rounding
    return np.asarray((xlogy(counts.k, p) + xlogy(counts.n - counts.k, 1 - p)).sum(axis=1))
