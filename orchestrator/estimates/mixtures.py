"""One component or two, for many samples at once: beta-binomial for counts, normal for continuous values.

Both answer with ΔBIC = BIC(one) - BIC(two), and the two components found, by EM from eight splits of the sorted runs.
Components of counts lie on a grid of means and precisions, so that a step of EM is a product of matrices; precisions
are kept in [e⁻¹, e⁹]. Normal components are kept within a bounded ratio of standard deviations: without, one run alone
is a component of any likelihood (Hathaway 1985). Raw accuracies must not go through the normal mixture: on a skewed
floor it finds two modes in 20 to 67 % of unimodal samples.
Sources: McLachlan & Peel 2000, Finite Mixture Models; Hathaway 1985, Annals of Statistics 13.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, expit, gammaln

Floats = NDArray[np.float64]
LARGEST_RATIO = 4.0  # of the standard deviations of two normal components
_MEANS = expit(np.linspace(-8, 8, 65))
_PRECISIONS = np.exp(np.linspace(-1, 9, 11))
_SPLITS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)  # and the largest gap
_SHORT, _LONG = 5, 30  # sweeps
_SETTLED = 1e-3  # in log likelihood; the decision is at 3
Step = Callable[[Floats], tuple[Floats, Floats, Floats, NDArray[Any]]]  # upper → upper, likelihood, weight, components


@dataclass(frozen=True, slots=True)
class TwoComponents:
    """The best one and the best two components of each of many samples.

    delta_bic       [sample], above zero where two are better after paying for three more parameters
    low, high       [sample], the means of the two components, low <= high
    weight          [sample], of the upper component
    upper           [sample, run], the posterior probability of the upper component
    spread          [sample, 3], precision (counts) or standard deviation: of the lower, the upper, the only component
    mean            [sample], of the only component
    """

    delta_bic: Floats
    low: Floats
    high: Floats
    weight: Floats
    upper: Floats
    spread: Floats
    mean: Floats


def of_counts(correct: NDArray[np.int64], items: NDArray[np.int64]) -> TwoComponents:
    """Return the components of correct [sample, run] of items [run]."""
    samples, runs = correct.shape
    pairs = np.stack([correct.ravel(), np.broadcast_to(items, correct.shape).ravel()], axis=1)
    kinds, row = np.unique(pairs, axis=0, return_inverse=True)
    table = _log_beta_binomial(kinds[:, 0], kinds[:, 1])  # [kind, point]
    row = row.reshape(samples, runs)
    cell = (np.arange(samples)[:, None] * len(kinds) + row).ravel()

    def best(weights: Floats) -> NDArray[np.int64]:
        """Return [sample]: the point of largest weighted likelihood, weights [sample, run]."""
        shares = np.bincount(cell, weights.ravel(), samples * len(kinds)).reshape(samples, len(kinds))
        return np.asarray((shares @ table).argmax(axis=1))

    one = best(np.ones(correct.shape))
    single = table[row, one[:, None]].sum(axis=1)

    def step(upper: Floats) -> tuple[Floats, Floats, Floats, NDArray[Any]]:
        points = np.stack([best(1 - upper), best(upper)], axis=1)
        weight = np.clip(upper.mean(axis=1), 1e-6, 1 - 1e-6)
        logs = table[row[:, :, None], points[:, None, :]] + np.log(np.stack([1 - weight, weight], axis=1))[:, None, :]
        return *_divided(logs), weight, points

    double, upper, weight, points = _search(correct / items, step)
    mean, precision = np.repeat(_MEANS, len(_PRECISIONS)), np.tile(_PRECISIONS, len(_MEANS))
    all_points = np.column_stack([points, one])
    return _ordered(2 * (double - single) - 3 * np.log(runs), mean[all_points], precision[all_points], weight, upper)


def of_values(values: Floats) -> TwoComponents:
    """Return the components of values [sample, run]: normal ones, their standard deviations in a bounded ratio."""
    runs = values.shape[1]
    mean, deviation = values.mean(axis=1), values.std(axis=1)
    # Runs that are all alike have one value to the last digit; a component still needs a width.
    least = 1e-9 * np.maximum(np.abs(values).max(axis=1), 1e-300)
    deviation = np.maximum(deviation, least)
    single = _log_normal(values, mean, deviation).sum(axis=1)

    def step(upper: Floats) -> tuple[Floats, Floats, Floats, NDArray[Any]]:
        shares = np.stack([1 - upper, upper], axis=1)  # [sample, component, run]
        sizes = np.maximum(shares.sum(axis=2), 1e-9)
        means = (shares * values[:, None, :]).sum(axis=2) / sizes
        squares = (shares * (values[:, None, :] - means[:, :, None]) ** 2).sum(axis=2)
        deviations = np.maximum(_bounded(squares, sizes), least[:, None])
        weight = np.clip(upper.mean(axis=1), 1e-6, 1 - 1e-6)
        logs = np.stack([_log_normal(values, means[:, j], deviations[:, j]) for j in (0, 1)], axis=2)
        logs = logs + np.log(np.stack([1 - weight, weight], axis=1))[:, None, :]
        return *_divided(logs), weight, np.stack([means, deviations], axis=2)

    double, upper, weight, found = _search(values, step)
    means = np.column_stack([found[:, :, 0], mean])
    spreads = np.column_stack([found[:, :, 1], deviation])
    return _ordered(2 * (double - single) - 3 * np.log(runs), means, spreads, weight, upper)


def _search(order_by: Floats, step: Step) -> tuple[Floats, Floats, Floats, NDArray[Any]]:
    """Return (log likelihood, upper, weight, components) per sample: a few sweeps from every start, then the best on.

    Short runs and then a long one find the maximum as well as long ones (Biernacki, Celeux & Govaert 2003).
    """
    best, most = np.zeros_like(order_by), np.full(len(order_by), -np.inf)
    for start in _starts(order_by):
        upper = start
        for _ in range(_SHORT):
            upper, likelihood, weight, components = step(upper)
        better = likelihood > most
        best, most = np.where(better[:, None], upper, best), np.maximum(most, likelihood)
    upper = best
    for _ in range(_LONG):
        upper, likelihood, weight, components = step(upper)
        if np.abs(likelihood - most).max() < _SETTLED:
            break
        most = likelihood
    return likelihood, upper, weight, components


def _starts(values: Floats) -> list[Floats]:
    """Return [start] of [sample, run]: 1 for the runs above a split of the sorted values."""
    samples, runs = values.shape
    rank = values.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    cuts = [np.full(samples, min(max(round(share * runs), 1), runs - 1)) for share in _SPLITS]
    cuts.append(np.diff(np.sort(values, axis=1), axis=1).argmax(axis=1) + 1)
    return [(rank >= cut[:, None]).astype(float) for cut in cuts]


def _divided(logs: Floats) -> tuple[Floats, Floats]:
    """Return (posterior of the second component [sample, run], log likelihood [sample])."""
    total = np.logaddexp(logs[:, :, 0], logs[:, :, 1])
    return np.exp(logs[:, :, 1] - total), total.sum(axis=1)


def _bounded(squares: Floats, sizes: Floats) -> Floats:
    """Return [sample, component] standard deviations, at their best within `LARGEST_RATIO` of each other."""
    free = np.sqrt(squares / sizes)
    small = free.argmin(axis=1)[:, None]
    large = 1 - small
    pooled = LARGEST_RATIO**2 * np.take_along_axis(squares, small, 1) + np.take_along_axis(squares, large, 1)
    wide = np.sqrt(pooled / sizes.sum(axis=1, keepdims=True))
    bound = np.where(np.arange(2) == large, wide, wide / LARGEST_RATIO)
    kept = free.max(axis=1, keepdims=True) <= LARGEST_RATIO * free.min(axis=1, keepdims=True)
    return np.where(kept, free, bound)


def _ordered(delta_bic: Floats, means: Floats, spreads: Floats, weight: Floats, upper: Floats) -> TwoComponents:
    turned = means[:, 0] > means[:, 1]
    return TwoComponents(
        delta_bic=delta_bic,
        low=means[:, :2].min(axis=1),
        high=means[:, :2].max(axis=1),
        weight=np.where(turned, 1 - weight, weight),
        upper=np.where(turned[:, None], 1 - upper, upper),
        spread=np.column_stack([np.where(turned[:, None], spreads[:, 1::-1], spreads[:, :2]), spreads[:, 2]]),
        mean=means[:, 2],
    )


def _log_normal(values: Floats, mean: Floats, deviation: Floats) -> Floats:
    z = (values - mean[:, None]) / deviation[:, None]
    return np.asarray(-0.5 * z**2 - np.log(deviation)[:, None] - 0.5 * np.log(2 * np.pi))


def _log_beta_binomial(k: NDArray[np.int64], m: NDArray[np.int64]) -> Floats:
    """Return [kind, point] with the binomial coefficient, points by mean and then by precision."""
    a = (_MEANS[:, None] * _PRECISIONS).ravel()
    b = ((1 - _MEANS)[:, None] * _PRECISIONS).ravel()
    choose = gammaln(m + 1) - gammaln(k + 1) - gammaln(m - k + 1)
    return np.asarray(choose[:, None] + betaln(k[:, None] + a, (m - k)[:, None] + b) - betaln(a, b))
