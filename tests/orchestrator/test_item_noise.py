"""P(success) from k of m items: with many items it is the binomial likelihood, with few it is wider."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.item_noise import success_from_items


def cohort(finished: int, diverged: int = 0) -> Cohort:
    return Cohort("c", finished + diverged, finished, diverged, 0)


def likelihood_interval(k: int, n: int) -> tuple[float, float]:
    """Return the interval of the binomial likelihood ratio."""
    cut, p = chi2.ppf(0.95, 1) / 2, k / n

    def over(q: float) -> float:
        return k * np.log(q / p) + (n - k) * np.log((1 - q) / (1 - p)) + cut

    return brentq(over, 1e-9, p), brentq(over, p, 1 - 1e-9)


def test_runs_far_from_the_threshold_are_plain_successes_and_failures() -> None:
    found = success_from_items(np.array([480] * 7 + [10] * 3), np.full(10, 500), 0.5, cohort(10))
    assert found.value == pytest.approx(0.7, abs=1e-6)
    assert (found.low, found.high) == pytest.approx(likelihood_interval(7, 10), abs=1e-4)
    none = success_from_items(np.zeros(10, int), np.full(10, 500), 0.5, cohort(10))
    assert (none.value, none.low) == (pytest.approx(0, abs=1e-9), 0.0)
    assert none.high == pytest.approx(1 - np.exp(-chi2.ppf(0.95, 1) / 20), abs=1e-4)


def test_a_run_just_above_the_threshold_is_no_sure_success() -> None:
    close = success_from_items(np.array([252, 10, 20, 490, 480]), np.full(5, 500), 0.5, cohort(5))
    low, high = likelihood_interval(3, 5)
    assert close.low < low - 0.04, "it may be a failure: the interval reaches lower"
    assert close.high <= high + 0.02
    few = success_from_items(np.array([6] * 5 + [4] * 5), np.full(10, 10), 0.5, cohort(10))
    many = success_from_items(np.array([600] * 5 + [400] * 5), np.full(10, 1000), 0.5, cohort(10))
    assert few.high - few.low > many.high - many.low + 0.2


def test_diverged_runs_are_sure_failures() -> None:
    found = success_from_items(np.array([480] * 7 + [10] * 2), np.full(9, 500), 0.5, cohort(9, diverged=1))
    assert found.value == pytest.approx(0.7, abs=1e-6)
    assert (found.low, found.high) == pytest.approx(likelihood_interval(7, 10), abs=1e-4)


def test_the_threshold_noise_biases_the_plain_share_and_not_the_likelihood() -> None:
    """All runs are at .40: with 10 items 37 % of them score a half or more, and P is 0."""
    rng = np.random.default_rng(1)
    naive, likely = [], []
    for _ in range(8):
        correct = rng.binomial(10, 0.4, 20)
        naive.append((correct >= 5).mean())
        likely.append(success_from_items(correct, np.full(20, 10), 0.5, cohort(20)).low)
    assert np.mean(naive) > 0.3
    assert (np.array(likely) == 0.0).sum() >= 7


@pytest.mark.parametrize(
    ("correct", "items", "threshold", "fault"),
    [
        ([3], [2], 0.5, "no more correct"),
        ([1], [0], 0.5, "one item"),
        ([1], [2], 1.5, "threshold"),
        ([1, 1], [2], 0.5, "alike"),
    ],
)
def test_impossible_counts_are_refused(correct: list[int], items: list[int], threshold: float, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        success_from_items(np.array(correct), np.array(items), threshold, cohort(1))
