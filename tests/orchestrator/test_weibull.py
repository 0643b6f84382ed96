"""The Weibull and its mixture: reference values, exact derivatives, invariances, and what cannot be fitted."""

import json
from math import exp, inf, log
from pathlib import Path

import numpy as np
import pytest

from orchestrator.estimates.cure import cure_weibull
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.weibull import weibull_aft, weibull_median
from orchestrator.estimates.weibull_likelihood import BracketLikelihood

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def ten() -> tuple[np.ndarray, np.ndarray]:
    case = GOLDEN["interval_censored_weibull"]
    return np.array(case["lo"], float), np.array([float(h) for h in case["hi"]])


def aml() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    entries = [(e, arm) for arm in ("maintained", "nonmaintained") for e in GOLDEN["km_aml"]["data"][arm].split()]
    low = np.array([float(e.rstrip("+")) for e, _ in entries])
    high = np.where([e.endswith("+") for e, _ in entries], inf, low)
    return low, high, np.array([float(arm == "nonmaintained") for _, arm in entries])


def test_the_reference_of_interval_censored_runs() -> None:
    case = GOLDEN["interval_censored_weibull"]
    found = weibull_aft(*ten(), cohort(10))
    assert found.shape == pytest.approx(case["shape"], abs=2e-6)
    assert found.scale == pytest.approx(case["scale"], abs=1e-3)
    assert found.log_likelihood == pytest.approx(case["loglik"], abs=1e-7)


def test_the_reference_of_right_censored_runs_with_a_covariate() -> None:
    case = GOLDEN["km_aml"]["weibull_aft"]
    low, high, arm = aml()
    found = weibull_aft(low, high, cohort(23), arm)
    assert found.slope is not None
    # At the reference the gradient is 3e-5, at ours 1e-12: the reference stopped 2e-6 before the top.
    assert found.intercept.value == pytest.approx(case["intercept"], abs=3e-6)
    assert found.slope.value == pytest.approx(case["beta_nonmaintained"], abs=3e-6)
    assert found.sigma.value == pytest.approx(case["scale"], abs=1e-6)
    assert found.log_likelihood == pytest.approx(case["loglik"], abs=1e-6)


def test_an_end_of_the_interval_is_where_the_profile_is_at_its_level() -> None:
    low, high = ten()
    found = weibull_median(low, high, cohort(10))
    top = weibull_aft(low, high, cohort(10)).log_likelihood
    for end in (found.low, found.high):
        # Without the package's own search: the best log-likelihood with this median, over a fine grid of shapes.
        shapes = np.linspace(0.3, 6, 60001)[:, None]
        scale = end / log(2) ** (1 / shapes)
        later_than_low, later_than_high = np.exp(-((low / scale) ** shapes)), np.exp(-((high / scale) ** shapes))
        best = np.log(np.maximum(later_than_low - later_than_high, 1e-300)).sum(axis=1).max()
        # 2.306004² of Student's t with 10 runs less 2 parameters.
        assert 2 * (top - best) == pytest.approx(2.306004135204166**2, abs=1e-4)


def test_the_median_is_that_of_the_fit_in_any_unit_and_order() -> None:
    low, high, arm = aml()
    fit = weibull_aft(low, high, cohort(23), arm)
    found = weibull_median(low, high, cohort(23), arm, at=1.0)
    assert fit.slope is not None
    expected = exp(fit.intercept.value + fit.slope.value) * log(2) ** fit.sigma.value
    assert found.value == pytest.approx(expected, rel=1e-6)
    order = np.random.default_rng(0).permutation(23)
    again = weibull_median(low[order] * 1000, high[order] * 1000, cohort(23), arm[order], at=1.0)
    assert (again.low, again.high) == pytest.approx((found.low * 1000, found.high * 1000), rel=1e-5)


@pytest.mark.parametrize("cured", [False, True])
def test_derivatives_are_those_of_finite_differences(cured: bool) -> None:
    low = np.array([0.0, 1, 3, 2, 5, 4, 7, 7])
    high = np.array([2.0, 2, 3, 6, inf, inf, 9, 7])
    x = np.stack([np.ones(8), np.linspace(-1, 1, 8)], axis=1)
    likelihood = BracketLikelihood(low, high, x, x if cured else x[:, :0], offset=-0.4)
    at = np.array([1.2, 0.3, -0.2, 0.7, -0.5])[: likelihood.size]
    _, gradient, hessian = likelihood(at)
    for i, step in enumerate(np.eye(len(at)) * 1e-5):
        up, down = likelihood(at + step), likelihood(at - step)
        assert gradient[i] == pytest.approx((up[0] - down[0]) / 2e-5, abs=1e-7)
        assert hessian[i] == pytest.approx((up[1] - down[1]) / 2e-5, abs=1e-6)


def brackets(times: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the brackets that probes at `grid` (from 0 on) give."""
    place = np.searchsorted(grid, times, side="left")
    return grid[place - 1], np.append(grid, inf)[place]


def mixture(n: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    times = 1000 * generator.weibull(2.0, n)
    return brackets(np.where(generator.uniform(size=n) < share, times, inf), np.arange(0.0, 4001, 100))


def test_runs_that_never_would_are_told_from_those_that_are_late() -> None:
    low, high = mixture(4000, 0.6, 1)
    found = cure_weibull(low, high, cohort(4000))
    assert found.breaks_through.value == pytest.approx(0.6, abs=0.02)
    assert found.median.value == pytest.approx(1000 * log(2) ** 0.5, rel=0.03)
    assert found.sigma.value == pytest.approx(0.5, abs=0.02)
    assert weibull_median(low, high, cohort(4000)).value > 2 * found.median.value, "a plain Weibull eats them"


def test_share_and_times_are_lines_over_scale() -> None:
    generator = np.random.default_rng(5)
    x = np.repeat([0.0, 0.5, 1.0, 1.5], 800)
    through = generator.uniform(size=x.size) < 1 / (1 + np.exp(1 - 2 * x))
    times = np.exp(7 - 0.8 * x + 0.5 * np.log(generator.exponential(size=x.size)))
    found = cure_weibull(*brackets(np.where(through, times, inf), np.arange(0.0, 5001, 100)), cohort(x.size), x, at=1.0)
    assert found.time_slope is not None
    assert found.chance_slope is not None
    assert found.time_slope.value == pytest.approx(-0.8, abs=0.06)
    assert found.chance_slope.value == pytest.approx(2, abs=0.2)
    assert found.breaks_through.value == pytest.approx(1 / (1 + exp(-1)), abs=0.03)
    assert found.median.value == pytest.approx(exp(6.2) * log(2) ** 0.5, rel=0.05)


def test_a_share_that_the_data_do_not_bound_reaches_to_one() -> None:
    short = mixture(40, 0.6, 2)
    low, high = np.minimum(short[0], 600), np.where(short[1] > 600, inf, short[1])
    assert cure_weibull(low, high, cohort(40)).breaks_through.high == 1.0
    everyone = mixture(40, 1.0, 3)
    found = cure_weibull(*everyone, cohort(40))
    assert found.breaks_through.value == pytest.approx(1, abs=1e-4)
    assert found.breaks_through.high == 1.0
    assert 0.8 < found.breaks_through.low < 1
    assert found.median.value == pytest.approx(weibull_median(*everyone, cohort(40)).value, rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        ([5.0, 6], [inf, inf], "no run has an onset"),
        ([-inf, 6], [0.0, 9], "step 0"),
        ([7.0, 6], [6.0, 9], "low ≤ high"),
        ([], [], "at least one run"),
        ([4.0] * 6, [5.0] * 6, "spread"),
    ],
)
def test_what_cannot_be_fitted_says_why(low: list[float], high: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        weibull_aft(np.array(low), np.array(high), cohort(len(low)))


def test_a_covariate_that_does_not_vary_is_refused() -> None:
    low, high = ten()
    with pytest.raises(ValueError, match="leave it out"):
        weibull_aft(low, high, cohort(10), np.ones(10))
