"""P(success): reference values, and exact coverage by enumeration."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.success import (
    agresti_coull,
    clopper_pearson,
    jeffreys,
    manski,
    manski_interval,
    success_probability,
    upper_bound_of_none,
    wilson,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())


@pytest.mark.parametrize("case", ["0/10", "7/10", "10/10"])
def test_reference_values(case: str) -> None:
    k, n = map(int, case.split("/"))
    values = GOLDEN["binomial"][case]
    assert wilson(k, n) == pytest.approx(values["wilson"], abs=1e-12)
    assert clopper_pearson(k, n) == pytest.approx(values["beta"], abs=1e-12)
    assert agresti_coull(k, n) == pytest.approx(values["agresti_coull"], abs=1e-12)
    expected = list(values["jeffreys"])
    # The reference does not apply the rule for the ends (STATISTICS: lower = 0 at k = 0, upper = 1 at k = n).
    expected = [0.0 if k == 0 else expected[0], 1.0 if k == n else expected[1]]
    assert jeffreys(k, n) == pytest.approx(expected, abs=1e-12)


def coverage(interval: object, n: int) -> np.ndarray:
    """Return the exact coverage of a 95 % interval at P = .005 to .995, by enumerating k."""
    p = np.arange(5, 996) / 1000
    bounds = np.array([interval(k, n) for k in range(n + 1)])  # type: ignore[operator]
    inside = (bounds[:, :1] <= p) & (p <= bounds[:, 1:])
    return (binom.pmf(np.arange(n + 1)[:, None], n, p) * inside).sum(axis=0)


@pytest.mark.parametrize(
    ("interval", "n", "mean", "least"),
    [
        (wilson, 5, 0.955, 0.833),
        (wilson, 10, 0.954, 0.842),
        (wilson, 20, 0.953, 0.852),
        (wilson, 50, 0.952, 0.895),
        (jeffreys, 5, 0.957, 0.895),
        (jeffreys, 10, 0.953, 0.868),
        (jeffreys, 20, 0.951, 0.894),
        (jeffreys, 50, 0.950, 0.884),
        (agresti_coull, 5, 0.966, 0.896),
        (agresti_coull, 10, 0.964, 0.925),
        (agresti_coull, 20, 0.962, 0.929),
        (agresti_coull, 50, 0.958, 0.935),
        (clopper_pearson, 5, 0.990, 0.975),
        (clopper_pearson, 10, 0.984, 0.961),
        (clopper_pearson, 20, 0.977, 0.958),
        (clopper_pearson, 50, 0.969, 0.953),
    ],
)
def test_exact_coverage_is_what_the_documents_say(interval: object, n: int, mean: float, least: float) -> None:
    found = coverage(interval, n)
    assert found.mean() == pytest.approx(mean, abs=1e-3)
    assert found.min() == pytest.approx(least, abs=1e-3)


def test_the_naive_interval_fails_the_same_check() -> None:
    def wald(k: int, n: int) -> tuple[float, float]:
        half = 1.959963984540054 * np.sqrt(k * (n - k) / n**3)
        return k / n - half, k / n + half

    assert coverage(wald, 20).mean() < 0.87, "the check has teeth"


def test_intervals_hold_the_share_and_are_mirror_images() -> None:
    for n in (1, 2, 7, 40):
        for k in range(n + 1):
            for interval in (wilson, jeffreys, clopper_pearson, agresti_coull):
                low, high = interval(k, n)
                assert 0 <= low <= k / n <= high <= 1
                mirrored = interval(n - k, n)
                assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]), abs=1e-12)


def test_censored_runs_are_bounded_and_diverged_ones_are_no_successes() -> None:
    cohort = Cohort.of([f"r{i}" for i in range(12)], finished=9, diverged=1)
    found = success_probability(6, cohort)
    assert found.value == 0.6, "six of nine finished and one diverged"
    assert (found.low, found.high) == wilson(6, 10)
    assert (cohort.launched, cohort.censored) == (12, 2)
    assert manski(6, 8, 2) == (0.6, 0.8)
    assert manski_interval(6, 8, 2) == (clopper_pearson(6, 10)[0], clopper_pearson(8, 10)[1])
    assert found.as_dict()["cohort"]["digest"] == cohort.digest


def test_of_no_success_in_n_runs_the_bound_is_exact() -> None:
    assert upper_bound_of_none(10) == pytest.approx(1 - 0.05 ** (1 / 10))
    assert upper_bound_of_none(59) < 0.05 < upper_bound_of_none(58), "59 seeds exclude P of 5 %"
    for n in (1, 7, 59):
        assert (1 - upper_bound_of_none(n)) ** n == pytest.approx(0.05), "P at the bound gives no success 1 time in 20"
    assert upper_bound_of_none(0) == 1.0


def test_without_runs_nothing_is_known() -> None:
    found = success_probability(0, Cohort.of(["r"], finished=0, diverged=0))
    assert np.isnan(found.value)
    assert (found.low, found.high) == (0.0, 1.0)


@pytest.mark.parametrize(("k", "n"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(k: int, n: int) -> None:
    with pytest.raises(ValueError, match="successes of"):
        wilson(k, n)
