"""Seeds in groups: beta-binomial mean and precision against a direct search, and the pooled interval's failure."""

from math import inf

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import betabinom

from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.grouped import grouped_bootstrap, grouped_success
from orchestrator.estimates.success import clopper_pearson, wilson

COHORT = Cohort("c", 50, 50, 0, 0)


def test_the_maximum_is_that_of_a_direct_search() -> None:
    k, n = np.array([1, 3, 5, 9, 8, 2]), np.array([10, 10, 8, 10, 12, 10])
    found = grouped_success(k, n, COHORT)

    def loss(parameters: np.ndarray) -> float:
        a, b = np.exp(parameters)
        return -float(betabinom.logpmf(k, n, a, b).sum())

    a, b = np.exp(minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-9}).x)
    assert found.mean.value == pytest.approx(a / (a + b), abs=0.01), "the grid's step"
    assert np.log(found.precision.value) == pytest.approx(np.log(a + b), abs=0.11)
    assert found.precision.low < found.precision.value < found.precision.high
    assert (found.groups, found.mean.unit) == (6, "group of runs")


def test_groups_that_differ_widen_the_interval_and_alike_ones_hardly() -> None:
    apart = grouped_success(np.array([0, 10, 0, 10, 5]), np.full(5, 10), COHORT)
    alike = grouped_success(np.array([5, 5, 5, 5, 5]), np.full(5, 10), COHORT)
    low, high = wilson(25, 50)
    assert apart.mean.high - apart.mean.low > 2 * (high - low)
    assert high - low < alike.mean.high - alike.mean.low < 1.5 * (high - low)
    assert alike.precision.high == inf, "nothing says that they differ at all"
    assert apart.precision.high < inf


def test_no_success_anywhere_begins_at_zero_and_order_changes_nothing() -> None:
    none = grouped_success(np.zeros(4, int), np.full(4, 5), COHORT)
    assert none.mean.low == 0.0
    assert 0 < none.mean.high < 0.5
    k, n = np.array([1, 4, 2, 5]), np.array([5, 6, 7, 8])
    assert grouped_success(k, n, COHORT) == grouped_success(k[::-1], n[::-1], COHORT)


@pytest.mark.parametrize(
    ("k", "n", "fault"), [([1], [2], "one group"), ([3, 1], [2, 2], "more successes"), ([1, 1], [2], "alike")]
)
def test_what_is_no_groups_is_refused(k: list[int], n: list[int], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        grouped_success(np.array(k), np.array(n), COHORT)


def test_groups_drawn_again_are_as_wide_as_one_trial_a_group_where_nothing_succeeded() -> None:
    def drawn(k: list[int], n: list[int]) -> Estimate:
        return grouped_bootstrap(np.array(k), np.array(n), COHORT, np.random.default_rng(0))

    none, all_of_them = drawn([0] * 10, [5] * 10), drawn([5] * 10, [5] * 10)
    assert (none.low, none.high) == clopper_pearson(0, 10)
    assert (all_of_them.low, all_of_them.high) == clopper_pearson(10, 10)
    alike = drawn([2] * 10, [4] * 10)
    assert (alike.low, alike.high) == wilson(20, 40), "never narrower than independent runs"
    apart = drawn([0, 5] * 5, [5] * 10)
    assert apart.low < wilson(25, 50)[0] < wilson(25, 50)[1] < apart.high
    assert (apart.note, apart.unit) == ("", "group of runs")
    assert "few" in drawn([1, 4, 2], [5, 5, 5]).note
    assert drawn([1, 4, 2], [5, 6, 7]) == drawn([2, 1, 4], [7, 5, 6]), "order changes nothing"
    with pytest.raises(ValueError, match="one group"):
        drawn([3], [5])
