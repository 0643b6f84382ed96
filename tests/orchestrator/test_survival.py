"""Kaplan-Meier, log-rank and Turnbull against published values, by hand, and against each other."""

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import CensoredData, ecdf, logrank

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.onset import Bracket
from orchestrator.estimates.survival import kaplan_meier, log_rank
from orchestrator.estimates.turnbull import turnbull

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())["km_aml"]


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def aml(arm: str) -> tuple[np.ndarray, np.ndarray]:
    entries = GOLDEN["data"][arm].split()
    return np.array([float(e.rstrip("+")) for e in entries]), np.array([not e.endswith("+") for e in entries])


def test_the_reference_curve_and_medians() -> None:
    found = kaplan_meier(*aml("maintained"), cohort(11))
    at = [9.0, 13.0, 18.0, 23.0, 28.0, 31.0]
    assert [found.at(time) for time in at] == pytest.approx(GOLDEN["S_maintained"], abs=5e-5)
    assert found.at(8.9) == 1.0
    assert found.median.value == GOLDEN["maintained_median"]
    assert (found.median.low, found.median.high) == (13, inf), "an interval that the data do not close stays open"
    assert kaplan_meier(*aml("nonmaintained"), cohort(12)).median.value == GOLDEN["nonmaintained_median"]


def test_the_band_is_that_of_scipy_where_scipy_has_one() -> None:
    times, seen = aml("maintained")
    found = kaplan_meier(times, seen, cohort(11))
    theirs = ecdf(CensoredData.right_censored(times, ~seen)).sf
    band = theirs.confidence_interval(method="log-log")
    low = [float(band.low.evaluate(t)) for t in found.times]
    high = [float(band.high.evaluate(t)) for t in found.times]
    assert found.low == pytest.approx(low, abs=1e-12)
    assert found.high == pytest.approx(high, abs=1e-12)


def test_log_rank_is_the_reference_and_that_of_scipy() -> None:
    (t_a, s_a), (t_b, s_b) = aml("maintained"), aml("nonmaintained")
    times, seen, arm = np.append(t_a, t_b), np.append(s_a, s_b), np.repeat([0, 1], [11, 12])
    found = log_rank(times, seen, arm, cohort(23))
    assert found.chi_squared == pytest.approx(GOLDEN["logrank_chi2"], abs=1e-6)
    assert found.p == pytest.approx(GOLDEN["logrank_p"], abs=1e-6)
    theirs = logrank(CensoredData.right_censored(t_a, ~s_a), CensoredData.right_censored(t_b, ~s_b))
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-9)
    assert found.observed.sum() == pytest.approx(found.expected.sum()), "onsets are only shared out differently"
    third = log_rank(np.append(times, t_a), np.append(seen, s_a), np.append(arm, [2] * 11), cohort(34))
    assert third.degrees_of_freedom == 2
    shuffled = np.random.default_rng(0).permutation(23)
    assert log_rank(times[shuffled], seen[shuffled], arm[shuffled], cohort(23)).p == pytest.approx(found.p, abs=1e-12)


def test_all_seen_none_seen_and_bad_input() -> None:
    all_seen = kaplan_meier(np.array([3.0, 1.0, 2.0, 4.0]), np.ones(4, bool), cohort(4))
    assert all_seen.survival == pytest.approx([0.75, 0.5, 0.25, 0])
    assert all_seen.median.value == 2
    assert all_seen.low[-1] == 0
    assert all_seen.high[-1] == all_seen.high[-2], "at 0 the formula has no value, and the end before it stays"
    none_seen = kaplan_meier(np.array([3.0, 1.0]), np.zeros(2, bool), cohort(2))
    assert (none_seen.median.value, none_seen.at(99)) == (inf, 1)
    with pytest.raises(ValueError, match="shapes"):
        kaplan_meier(np.zeros(2), np.ones(3, bool), cohort(2))
    with pytest.raises(ValueError, match="last probe"):
        kaplan_meier(np.array([1.0, inf]), np.array([True, False]), cohort(2))
    with pytest.raises(ValueError, match="two groups"):
        log_rank(np.array([1.0, 2.0]), np.ones(2, bool), np.zeros(2, np.int64), cohort(2))


def test_turnbull_by_hand() -> None:
    # Peto 1973's kind of case: (0, 2], (1, 3], (2, 4] leave (1, 2] and (2, 3]; by symmetry ½ each.
    low, high = np.array([0.0, 1.0, 2.0]), np.array([2.0, 3.0, 4.0])
    found = turnbull(low, high, cohort(3), np.random.default_rng(0), resamples=0)
    assert list(zip(found.left, found.right, strict=True)) == [(1, 2), (2, 3)]
    assert found.mass == pytest.approx([0.5, 0.5], abs=1e-5)
    assert found.median == Bracket(2, 1)


def test_turnbull_of_right_censored_times_is_kaplan_meier() -> None:
    times, seen = aml("maintained")
    low, high = np.where(seen, times - 1e-3, times), np.where(seen, times, inf)
    found = turnbull(low, high, cohort(11), np.random.default_rng(0), resamples=0)
    plain = kaplan_meier(times, seen, cohort(11))
    last = np.isfinite(found.right)
    assert found.right[last] == pytest.approx(plain.times)
    assert found.survival[last] == pytest.approx(plain.survival, abs=1e-4)
    assert found.median.high == plain.median.value


def test_turnbull_on_a_shared_grid_counts() -> None:
    edges = np.array([0.0, 1, 2, 4, 8, inf])
    cell = np.repeat([0, 1, 2, 3, 4], [1, 4, 6, 4, 5])
    order = np.random.default_rng(1).permutation(20)
    low, high = edges[cell], edges[cell + 1]
    found = turnbull(low, high, cohort(20), np.random.default_rng(2))
    assert found.mass == pytest.approx(np.array([1, 4, 6, 4, 5]) / 20, abs=1e-9)
    assert found.median == Bracket(4, 2)
    assert found.interval[0] <= 2
    assert found.interval[1] >= 4
    again = turnbull(low[order], high[order], cohort(20), np.random.default_rng(2))
    assert np.array_equal(again.low, found.low), "the order of rows changes nothing"
    with pytest.raises(ValueError, match="low < high"):
        turnbull(np.array([2.0]), np.array([2.0]), cohort(1), np.random.default_rng(0))


def test_turnbull_without_onsets_has_an_infinite_median() -> None:
    found = turnbull(np.array([8.0] * 5), np.array([inf] * 5), cohort(5), np.random.default_rng(0), resamples=50)
    assert found.median == Bracket(inf, 8)
    assert found.interval == (8, inf)
