"""Means, quantiles, profiles and bands over runs: reference values, exact coverage, symmetries, refusals."""

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from orchestrator.estimates.bands import mean_band
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.means import (
    difference_of_means,
    interquartile_mean,
    mean_bca,
    mean_t,
    optimality_gap,
    probability_of_improvement,
)
from orchestrator.estimates.order_statistics import exact_level, quantile_over_runs, ranks
from orchestrator.estimates.profiles import performance_profile

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())


def cohort(n: int, diverged: int = 0) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n - diverged, diverged=diverged)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_reference_values() -> None:
    twelve = np.arange(1.0, 13.0)
    assert interquartile_mean(twelve, cohort(12), rng()).value == GOLDEN["iqm"]["1..12"]
    assert optimality_gap(np.array([0.5, 1.5]), 1.0, cohort(2), rng()).value == 0.25
    better = probability_of_improvement(np.array([1.0, 2, 3]), np.array([2.0, 2, 0]), cohort(6), rng())
    assert better.value == pytest.approx(2 / 3, abs=1e-15)


def test_the_interval_of_t_is_that_of_scipy() -> None:
    scores = rng().normal(size=14)
    found = mean_t(scores, cohort(14))
    expected = stats.ttest_1samp(scores, 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)
    welch = difference_of_means(scores, scores[:6] + 1, cohort(20))
    expected = stats.ttest_ind(scores, scores[:6] + 1, equal_var=False).confidence_interval(0.95)
    assert (welch.low, welch.high) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.0])
def test_the_interquartile_mean_jumps_where_success_does_not(p: float) -> None:
    outcomes = (np.arange(400) < round(400 * p)).astype(float)
    found = interquartile_mean(outcomes, cohort(400), rng(), resamples=20)
    assert found.value == pytest.approx(np.clip(2 * p - 0.5, 0, 1), abs=1e-12)
    assert "jumps" in found.note


def test_equal_generators_give_equal_intervals_and_the_order_of_tasks_none() -> None:
    scores = rng(3).normal(size=(9, 4))
    for ask in (interquartile_mean, mean_bca):
        assert ask(scores, cohort(9), rng(1)) == ask(scores, cohort(9), rng(1))
        first, second = ask(scores, cohort(9), rng(1)), ask(scores[:, ::-1], cohort(9), rng(1))
        assert (first.low, first.high) == pytest.approx((second.low, second.high), abs=1e-12)


def test_a_row_is_what_is_drawn() -> None:
    """Tasks that repeat the same column add nothing: the interval stays as wide as for one task."""
    column = rng(4).normal(size=8)
    one = interquartile_mean(column, cohort(8), rng(1))
    many = interquartile_mean(np.repeat(column[:, None], 12, axis=1), cohort(8), rng(1))
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=1e-12)
    assert mean_t(np.repeat(column[:, None], 12, axis=1), cohort(8)).high == pytest.approx(
        mean_t(column, cohort(8)).high, abs=1e-12
    )


def test_what_cannot_be_bounded_is_not() -> None:
    one = cohort(1)
    for found in (mean_t(np.array([0.5]), one), mean_bca(np.array([0.5]), one, rng())):
        assert (found.value, found.low, found.high) == (0.5, -inf, inf)
        assert found.note
    same = mean_bca(np.full(5, 0.25), cohort(5), rng())
    assert (same.low, same.high, same.note) == (0.25, 0.25, "all runs have the same score")
    with pytest.raises(ValueError, match="not finite"):
        mean_t(np.array([1.0, np.nan]), cohort(2))
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement(np.ones((3, 2)), np.ones((3, 4)), cohort(6), rng())


def test_ranks_are_those_of_the_tables() -> None:
    assert [ranks(n, 0.5) for n in (10, 20, 50)] == [(2, 9), (6, 15), (18, 33)]
    assert (ranks(50, 0.1), ranks(50, 0.9)) == ((1, 10), (41, 50))
    for q in (0.1, 0.9):
        assert all(not (low > 0 and high <= n) for n in range(1, 36) for low, high in [ranks(n, q)])
        low, high = ranks(36, q)
        assert low > 0
        assert high <= 36


@pytest.mark.parametrize("q", [0.1, 0.25, 0.5, 0.9])
def test_order_statistics_cover_at_least_their_level(q: float) -> None:
    for n in range(1, 120):
        low, high = ranks(n, q)
        assert exact_level(n, q) >= 0.95
        assert stats.binom.cdf(low - 1, n, q) <= 0.025, "misses below"
        assert stats.binom.sf(high - 1, n, q) <= 0.025, "misses above"
        assert high > n or stats.binom.cdf(low, n, q) > 0.025, "no narrower one does"


def test_diverged_runs_are_the_worst_of_a_quantile() -> None:
    scores = np.arange(30.0)
    accuracy = quantile_over_runs(scores, 0.5, cohort(40, diverged=10))
    assert accuracy.value == 9.0, "the lower median of ten at -inf and thirty scores"
    loss = quantile_over_runs(scores, 0.9, cohort(40, diverged=10), worst=inf)
    assert loss.value == inf
    few = quantile_over_runs(scores[:20], 0.1, cohort(20))
    assert few.low == -inf
    assert "do not bound" in few.note
    assert np.isnan(quantile_over_runs(scores[:0], 0.5, cohort(0)).value)


def test_profiles_of_tasks_are_means_of_survivals() -> None:
    scores = rng(5).random((12, 3))
    found = performance_profile(scores, np.array([0.2, 0.5]), cohort(12), rng(1))
    assert found.value == pytest.approx([(scores > t).mean() for t in (0.2, 0.5)], abs=1e-15)
    assert found.method == "sup-t over runs"


def test_a_band_is_wider_than_pointwise_and_knows_unequal_lengths() -> None:
    values = rng(6).normal(size=(20, 30)) + np.linspace(0, 3, 30)
    values[15:, 20:] = np.nan
    values[1:, 29] = np.nan
    band = mean_band(values, cohort(20), rng(1))
    assert band.runs.tolist() == [20] * 20 + [15] * 9 + [1]
    assert band.critical > stats.t.ppf(0.975, 19) + 0.5, "thirty cells at once"
    assert band.value == pytest.approx(np.nanmean(values, axis=0))
    assert np.isinf(band.high[29])
    single = mean_band(values[:, :1], cohort(20), rng(1))
    pointwise: Estimate = mean_t(values[:, 0], cohort(20))
    assert single.high[0] >= pointwise.high - 1e-12


def test_a_band_does_not_lose_digits_far_from_zero() -> None:
    values = rng(7).normal(size=(10, 4))
    near, far = mean_band(values, cohort(10), rng(1)), mean_band(values + 1e9, cohort(10), rng(1))
    assert far.high - far.low == pytest.approx(near.high - near.low, rel=1e-5)
