"""P(success) over scale: reference values, midpoints without an end, and a second computation of every interval."""

import json
from math import inf
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import expit, log_expit

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.firth import Counts, fit, penalised, profile_at
from orchestrator.estimates.success_over_scale import (
    ScaleCurve,
    counts_of,
    eta_interval,
    midpoint_interval,
    success_over_scale,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())
SCALES = 2.0 ** np.arange(5)
COHORT = Cohort("c", 50, 50, 0, 0)


def curve(k: list[int], direction: str = "either", scales: object = SCALES) -> ScaleCurve:
    return success_over_scale(scales, k, [10] * len(k), COHORT, direction=direction)  # type: ignore[arg-type]


def test_reference_values() -> None:
    golden = GOLDEN["firth_grouped"]
    found = curve([0, 1, 4, 8, 10])
    assert [found.intercept.value, found.slope.value] == pytest.approx(golden["own"], abs=1e-7)
    # The two reference implementations of the profile agree to 2e-4.
    slope, intercept = golden["profile_ci_firthmodels_slope_then_intercept"]
    assert (found.slope.low, found.slope.high) == pytest.approx(slope, abs=2e-4)
    assert (found.intercept.low, found.intercept.high) == pytest.approx(intercept, abs=2e-4)
    assert (found.intercept.low, found.intercept.high) == pytest.approx(golden["own_profile_ci_intercept"], abs=2e-4)
    middle = GOLDEN["midpoint_LR_ci_firth"]
    assert [found.midpoint.value, found.midpoint.low, found.midpoint.high] == pytest.approx(middle, abs=1e-6)
    assert found.midpoint.bounded
    assert not found.separated


def test_separated_scales_have_a_finite_fit_and_saturated_ones_the_analytic() -> None:
    golden = GOLDEN["firth_separated"]
    found = curve(golden["k"])
    assert [found.intercept.value, found.slope.value] == pytest.approx(golden["own"], abs=1e-5)
    assert found.separated
    assert np.isfinite([found.slope.low, found.slope.high, found.midpoint.low, found.midpoint.high]).all()
    saturated = curve([0, 10], scales=[1.0, 10.0])
    analytic = GOLDEN["firth_saturated_analytic"]["0/10_vs_10/10"]
    assert [saturated.intercept.value, saturated.slope.value] == pytest.approx(analytic, abs=1e-8)
    assert analytic[1] == pytest.approx(2 * np.log(21)), "one half is added to each cell"


def test_grouped_counts_solve_the_score_equation_of_their_single_runs() -> None:
    """Firth's maximum is where the score, changed by the leverages of the full hat matrix, is zero."""
    rng = np.random.default_rng(2)
    x, n = np.linspace(-1, 2, 7), rng.integers(2, 9, 7)
    k = rng.binomial(n, expit(1.5 * x - 0.5))
    intercept, slope, _ = fit(Counts(x, k[None].astype(float), n[None].astype(float)))
    rows, outcomes = np.repeat(x, n), np.concatenate([np.repeat([1, 0], [a, b - a]) for a, b in zip(k, n, strict=True)])
    design = np.stack([np.ones_like(rows), rows], axis=1)
    p = expit(design @ [intercept[0], slope[0]])
    root = design * np.sqrt(p * (1 - p))[:, None]
    hat = np.diag(root @ np.linalg.solve(root.T @ root, root.T))
    assert design.T @ (outcomes - p + hat * (0.5 - p)) == pytest.approx([0, 0], abs=1e-8)


def test_intervals_are_those_of_a_scalar_search() -> None:
    counts = counts_of(SCALES, [0, 1, 4, 8, 10], [10] * 5)
    _, _, top = fit(counts)

    def deviance(at: float, eta: float) -> float:
        best = minimize_scalar(
            lambda b: -penalised(counts, (eta + b * (counts.x - at))[None])[0], bounds=(-40, 60), method="bounded",
            options={"xatol": 1e-10},
        )  # fmt: skip
        return 2 * (top[0] + best.fun) - 3.841458820694124

    at = 1.6
    value, low, high = (ends[0] for ends in eta_interval(counts, np.array([at])))
    assert low == pytest.approx(brentq(lambda eta: deviance(at, eta), value - 9, value), abs=1e-5)
    assert high == pytest.approx(brentq(lambda eta: deviance(at, eta), value, value + 30), abs=1e-5)
    _, left, right = (ends[0] for ends in midpoint_interval(counts))
    assert [deviance(left, 0.0), deviance(right, 0.0)] == pytest.approx([0, 0], abs=1e-5)


def test_without_penalty_the_same_data_have_the_reference_of_plain_likelihood() -> None:
    golden = GOLDEN["logit_grouped"]
    x, k = np.arange(5) * np.log10(2), np.array(golden["k"])
    eta = golden["mle"][0] + golden["mle"][1] * x
    assert k @ log_expit(eta) + (10 - k) @ log_expit(-eta) == pytest.approx(golden["loglik_kernel"], abs=1e-9)
    counts = Counts(x, k[None], np.full((1, 5), 10.0))
    assert fit(counts)[2][0] > penalised(counts, eta[None])[0], "the penalised maximum is elsewhere"


def test_many_data_sets_at_once_are_each_as_alone() -> None:
    rng = np.random.default_rng(4)
    x = np.log10(SCALES)
    k = rng.binomial(10, expit(6 * (x - 0.6)), (40, 5)).astype(float)
    together = midpoint_interval(Counts(x, k, np.full((40, 5), 10.0)))
    for row in range(0, 40, 7):
        alone = midpoint_interval(Counts(x, k[row : row + 1], np.full((1, 5), 10.0)))
        for one, all_ in zip(alone, together, strict=True):
            assert one[0] == pytest.approx(all_[row], rel=1e-6)


@pytest.mark.parametrize("k", [[0, 0, 0, 0, 0], [5, 5, 5, 5, 5], [0, 0, 1, 0, 1]])
def test_a_midpoint_that_the_data_do_not_bound_says_so(k: list[int]) -> None:
    found = curve(k).midpoint
    assert (found.low, found.high) == (-inf, inf)
    assert not found.bounded
    assert "do not bound" in found.note


def test_known_direction_bounds_a_midpoint_on_one_side() -> None:
    never = curve([0, 0, 0, 0, 0], "increasing").midpoint
    assert never.value == inf
    assert np.log10(16) < never.low < never.high == inf, "a P that rises is one half beyond the largest scale"
    always = curve([10, 10, 10, 10, 10], "increasing").midpoint
    assert -inf == always.low < always.high < 0
    assert always.high == pytest.approx(np.log10(16) - never.low, abs=1e-6), "mirror images"
    rarely = curve([0, 0, 1, 0, 1], "increasing").midpoint
    assert 1 < rarely.low < rarely.value < rarely.high == inf


def test_falling_curves_are_mirror_images() -> None:
    up, down = curve([0, 1, 4, 8, 10]), curve([10, 9, 6, 2, 0])
    assert down.slope.value == pytest.approx(-up.slope.value)
    assert (down.slope.low, down.slope.high) == pytest.approx((-up.slope.high, -up.slope.low))
    assert (down.midpoint.low, down.midpoint.high) == pytest.approx((up.midpoint.low, up.midpoint.high))
    assert curve([10, 9, 6, 2, 0], "increasing").midpoint.low == -inf, "the data go against the direction"


def test_the_curve_at_a_scale_holds_its_value_and_clears_impossible_ends() -> None:
    found = curve([0, 1, 4, 8, 10])
    at = found.at(4.0)
    assert 0 < at.low < at.value < at.high < 1
    assert at.value == pytest.approx(expit(found.intercept.value + found.slope.value * np.log10(4)))
    assert curve([0, 0, 0, 0, 0]).at(16.0).low == 0.0
    assert curve([10, 10, 10, 10, 10]).at(16.0).high == 1.0


def test_order_of_scales_and_scales_without_runs_change_nothing() -> None:
    straight = curve([0, 1, 4, 8, 10])
    order = [3, 0, 4, 2, 1]
    k, n = np.array([0, 1, 4, 8, 10, 0]), np.array([10, 10, 10, 10, 10, 0])
    shuffled = success_over_scale(np.append(SCALES, 99.0)[[5, *order]], k[[5, *order]], n[[5, *order]], COHORT)
    assert (shuffled.slope, shuffled.midpoint) == (straight.slope, straight.midpoint)


@pytest.mark.parametrize(
    ("scales", "k", "n", "fault"),
    [
        ([1, 2], [1, 2], [3, 1], "more successes than runs"),
        ([0, 2], [1, 1], [3, 3], "positive"),
        ([1, 2], [1, 0], [3, 0], "two scales"),
        ([1, 2, 4], [1, 1], [3, 3], "3 scales"),
    ],
)
def test_impossible_counts_are_refused(scales: list[float], k: list[int], n: list[int], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        success_over_scale(scales, k, n, COHORT)


def test_the_profile_is_never_above_the_maximum_and_touches_it() -> None:
    counts = counts_of(SCALES, [0, 1, 4, 8, 10], [10] * 5)
    intercept, slope, top = fit(counts)
    at = np.array([0.9])
    assert profile_at(counts, at, intercept + slope * at, slope)[0] == pytest.approx(top)
    assert profile_at(counts, at, intercept + slope * at + 1, slope)[0] < top
