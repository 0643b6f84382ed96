"""The order of two onsets: brackets by hand, the reference, and the bound on B without A."""

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.order import Brackets, kendall_tau, order_of, rate_without

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def brackets(*pairs: tuple[float, float]) -> Brackets:
    return Brackets(*np.array(pairs, float).reshape(-1, 2).T)


def test_only_disjoint_brackets_tell_an_order() -> None:
    a = brackets((0, 10), (0, 10), (0, 10), (20, 30), (50, inf), (10, 20), (50, inf))
    b = brackets((10, 20), (5, 20), (50, inf), (10, 20), (10, 20), (10, 20), (50, inf))
    found = order_of(a, b, cohort(7))
    # Adjacent, overlapping, B never, reversed, A never with B seen, the same bracket, neither.
    assert (found.first, found.last, found.tied) == (2, 2, 3)
    assert found.b_without_a == 1
    assert found.a_before_b.value == 0.5
    mirrored = order_of(b, a, cohort(7))
    assert (mirrored.first, mirrored.last, mirrored.tied) == (2, 2, 3)


def test_ten_of_ten_is_the_reference() -> None:
    found = order_of(brackets(*[(0, 10)] * 10), brackets(*[(20, 30)] * 10), cohort(10))
    assert found.p_two_sided == pytest.approx(GOLDEN["sign_test"]["10/10 two-sided"], abs=1e-15)
    assert found.a_before_b.low == pytest.approx(GOLDEN["binomial"]["10/10"]["wilson"][0], abs=1e-12)
    assert found.a_before_b.high == 1
    seven = order_of(brackets(*[(0, 10)] * 7), brackets(*[(20, 30)] * 7), cohort(7))
    assert seven.p_first == 1 / 128 < 0.01


def test_without_a_run_that_tells_there_is_no_evidence() -> None:
    found = order_of(brackets((0, 10)), brackets((0, 10)), cohort(1))
    assert (found.p_two_sided, found.p_first) == (1.0, 1.0)
    assert (found.a_before_b.low, found.a_before_b.high) == (0, 1)


def test_no_b_without_a_bounds_its_rate_by_three_over_exposure() -> None:
    a, b = brackets(*[(100, 110)] * 10), brackets(*[(200, 300)] * 10)
    found = rate_without(a, b, cohort(10))
    assert found.value == 0
    assert found.high == pytest.approx(-np.log(0.05) / 1000, rel=1e-12)
    # Two runs lose A-free time at B's earliest, and one of them counts: the other's brackets overlap.
    some = rate_without(brackets((100, 110), (100, 110)), brackets((40, 50), (60, 105)), cohort(2))
    assert some.value == pytest.approx(1 / 100)
    assert some.high == pytest.approx(4.743864518 / 100, rel=1e-8)
    never = rate_without(brackets((-inf, 0.0)), brackets((0, 10)), cohort(1))
    assert never.high == inf
    assert never.note


def test_the_poisson_bound_covers() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(400):
        times = generator.exponential(1000, size=30)
        seen = times < 200
        b = Brackets(np.where(seen, times - 1e-6, 200.0), np.where(seen, times, inf))
        covered += rate_without(brackets(*[(200, inf)] * 30), b, cohort(30)).high >= 1 / 1000
    assert covered / 400 >= 0.93


def test_kendall_is_that_of_scipy_with_ties_too() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 6, (2, 25)).astype(float)
    found = kendall_tau(Brackets(x - 0.5, x), Brackets(y - 0.5, y), cohort(25), np.random.default_rng(1))
    assert found.value == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)
    assert found.low < found.value < found.high
    again = kendall_tau(Brackets(x - 0.5, x), Brackets(y - 0.5, y), cohort(25), np.random.default_rng(1))
    assert found == again
    same = kendall_tau(Brackets(x - 0.5, x), Brackets(x - 0.5, x), cohort(25), np.random.default_rng(1))
    assert (same.value, same.low) == (1, 1)


def test_all_tied_has_no_tau() -> None:
    tied = brackets(*[(0, 10)] * 4)
    found = kendall_tau(tied, tied, cohort(4), np.random.default_rng(0), resamples=10)
    assert np.isnan(found.value)
    assert (found.low, found.high) == (-1, 1)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="same runs"):
        order_of(brackets((0, 1)), brackets((0, 1), (0, 1)), cohort(2))
    with pytest.raises(ValueError, match="those of B"):
        order_of(brackets((0, 1)), brackets((1, 1)), cohort(1))
