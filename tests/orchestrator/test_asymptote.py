"""The curve with floor and ceiling: it finds what made the data; its interval ends at the likelihood's edge."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, xlogy

from orchestrator.estimates.asymptote import fit_plateau, plateau_at
from orchestrator.estimates.firth import Counts

X = np.arange(7) * np.log10(2)


def counts(p: np.ndarray, n: int) -> Counts:
    return Counts(X, np.round(n * p)[None], np.full((1, len(X)), float(n)))


def test_plenty_of_runs_give_back_floor_ceiling_midpoint_and_slope() -> None:
    truth = 0.1 + 0.7 * expit(9 * (X - 0.8))
    found = fit_plateau(counts(truth, 100_000))
    assert (found.floor, found.ceiling) == pytest.approx((0.1, 0.8), abs=5e-3)
    assert (found.midpoint, found.slope) == pytest.approx((0.8, 9.0), rel=0.02)
    assert found.at(X) == pytest.approx(truth, abs=2e-3)
    falling = fit_plateau(counts(truth[::-1], 100_000))
    assert falling.slope < 0
    assert falling.at(X) == pytest.approx(truth[::-1], abs=2e-3)


def test_the_ends_are_those_of_a_penalised_search() -> None:
    """The largest P at x that the data do not reject, by another method: weight on the likelihood's deficit."""
    data, x = counts(0.8 * expit(9 * (X - 0.8)), 20), float(X[-1] + np.log10(2))
    value, low, high = plateau_at(data, x)
    k, n = data.k[0], data.n[0]

    def curve(q: np.ndarray, at: np.ndarray) -> np.ndarray:
        floor, lapse = 0.5 * expit(q[2]), 0.9 * expit(q[3])
        return floor + (1 - floor - lapse) * expit(q[1] * (at - q[0]))

    def likelihood(q: np.ndarray) -> float:
        p = np.clip(curve(q, data.x), 1e-9, 1 - 1e-9)
        return float((xlogy(k, p) + xlogy(n - k, 1 - p)).sum())

    start = np.array([0.8, 9.0, -5.0, -1.2])
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 6000}
    top = -minimize(lambda q: -likelihood(q), start, method="Nelder-Mead", options=options).fun
    for sign, end in ((1, low), (-1, high)):
        reached = minimize(
            lambda q, sign=sign: sign * curve(q, np.array([x]))[0] + 1e3 * max(0.0, top - 1.920729 - likelihood(q)),
            start, method="Nelder-Mead", options=options,
        )  # fmt: skip
        assert end == pytest.approx(sign * reached.fun, abs=5e-3)
    assert low < value < high


def test_without_scales_on_the_plateau_the_ceiling_is_open() -> None:
    rising = Counts(X[:4], np.array([[0.0, 1, 4, 9]]), np.full((1, 4), 20.0))
    _, low, high = plateau_at(rising, float(X[6]))
    assert high > 0.97
    assert low < 0.5
