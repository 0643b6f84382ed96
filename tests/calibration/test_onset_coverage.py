"""Do the intervals of onsets cover, and do the two usual short cuts fail?

500 repetitions in CI with the band [.92, .98], 2,000 with [.93, .97] as `slow`. In CI an interval from the profile
likelihood is asked whether it holds the truth (one constrained fit; `test_weibull.py` shows that its ends are where
this answer changes); the full form computes the ends.
"""

from collections.abc import Callable
from math import inf, log

import numpy as np
import pytest

from orchestrator.estimates.cure import cure_weibull
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.profile import critical, maximise
from orchestrator.estimates.survival import kaplan_meier
from orchestrator.estimates.turnbull import turnbull
from orchestrator.estimates.weibull import LOG_LOG_2, degrees, start_of, weibull_aft, weibull_median
from orchestrator.estimates.weibull_likelihood import BracketLikelihood

pytestmark = pytest.mark.timeout(1800)  # the full repetitions, on a busy machine
COHORT = Cohort.of(["a"], finished=1, diverged=0)
REPEATS = [
    pytest.param(500, (0.92, 0.98), id="reduced"),
    pytest.param(2000, (0.93, 0.97), id="full", marks=pytest.mark.slow),
]
GRID = np.arange(0.0, 1501, 100)
SHAPE = 2.0
MEDIAN = 1000 * log(2) ** (1 / SHAPE)
Draw = Callable[[np.random.Generator], Estimate]
Holds = Callable[[np.random.Generator], int]


def misses(draw: Draw, truth: float, repetitions: int) -> tuple[float, float]:
    """Return how often the interval lies above, and below, the truth."""
    generator = np.random.default_rng(0)
    found = [draw(generator) for _ in range(repetitions)]
    return sum(f.low > truth for f in found) / repetitions, sum(f.high < truth for f in found) / repetitions


def likelihood_misses(
    draw: Callable[[np.random.Generator], tuple[BracketLikelihood, np.ndarray]], which: int, truth: float, reps: int
) -> tuple[float, float]:
    """Return what `misses` does, by asking how much the truth costs in likelihood."""
    generator = np.random.default_rng(0)
    above = below = 0
    for _ in range(reps):
        likelihood, start = draw(generator)
        top = maximise(likelihood, start)
        at = top.parameters.copy()
        at[which] = truth
        left = inf if likelihood.z.shape[1] else degrees(likelihood)
        rejected = 2 * (top.value - maximise(likelihood, at, which).value) > critical(0.95, left) ** 2
        above += rejected and top.parameters[which] > truth
        below += rejected and top.parameters[which] < truth
    return above / reps, below / reps


def check(missed: tuple[float, float], band: tuple[float, float]) -> None:
    assert band[0] <= 1 - sum(missed) <= band[1], missed
    assert max(missed) < 0.055, missed


def brackets(times: np.ndarray, grid: np.ndarray = GRID) -> tuple[np.ndarray, np.ndarray]:
    place = np.searchsorted(grid, times, side="left")
    return grid[place - 1], np.append(grid, inf)[place]


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
@pytest.mark.parametrize("n", [20, 50])
def test_kaplan_meier_median(n: int, repetitions: int, band: tuple[float, float]) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        times, ends = 1000 * generator.weibull(SHAPE, n), generator.uniform(600, 2500, n)
        return kaplan_meier(np.minimum(times, ends), times <= ends, COHORT).median

    check(misses(draw, MEDIAN, repetitions), band)


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
@pytest.mark.parametrize("n", [20, 50])
def test_turnbull_median_covers_at_least_its_level(n: int, repetitions: int, band: tuple[float, float]) -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(repetitions):
        found = turnbull(*brackets(1000 * generator.weibull(SHAPE, n)), COHORT, generator, resamples=200)
        covered += found.interval[0] < MEDIAN <= found.interval[1]
    assert covered / repetitions >= band[0], "whole brackets: it may cover more, never less"


@pytest.mark.parametrize("n", [20, 50])
def test_weibull_median_from_brackets(n: int) -> None:
    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = brackets(1000 * generator.weibull(SHAPE, n))
        return BracketLikelihood(low, high, np.ones((n, 1)), np.zeros((n, 0)), LOG_LOG_2), start_of(low, high, 1)

    check(likelihood_misses(draw, 0, log(MEDIAN), 500), (0.92, 0.98))


def over_scale(generator: np.random.Generator, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.repeat([-0.6, 0.0, 0.6], each)
    return *brackets(np.exp(6.6 - 0.5 * x + 0.5 * np.log(generator.exponential(size=x.size)))), x


@pytest.mark.parametrize("each", [10, 20])
def test_weibull_coefficients_over_scale(each: int) -> None:
    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high, x = over_scale(generator, each)
        design = np.stack([np.ones(len(x)), x], axis=1)
        return BracketLikelihood(low, high, design, design[:, :0]), start_of(low, high, 2)

    check(likelihood_misses(draw, 0, 6.6, 500), (0.92, 0.98))
    check(likelihood_misses(draw, 1, -0.5, 500), (0.92, 0.98))


def cured(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    through = generator.uniform(size=n) < 0.6
    return brackets(np.where(through, 700 * generator.weibull(SHAPE, n), inf))


@pytest.mark.parametrize("n", [30, 50])
def test_share_that_breaks_through(n: int) -> None:
    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = cured(generator, n)
        ones = np.ones((n, 1))
        return BracketLikelihood(low, high, ones, ones, LOG_LOG_2), np.append(start_of(low, high, 1), 0.4)

    check(likelihood_misses(draw, 2, log(0.6 / 0.4), 500), (0.92, 0.98))


@pytest.mark.slow
@pytest.mark.parametrize("what", ["median", "slope", "share"])
def test_the_ends_that_are_published_cover_too(what: str) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        if what == "median":
            return weibull_median(*brackets(1000 * generator.weibull(SHAPE, 20)), COHORT)
        if what == "share":
            return cure_weibull(*cured(generator, 50), COHORT).breaks_through
        low, high, x = over_scale(generator, 20)
        slope = weibull_aft(low, high, COHORT, x).slope
        assert slope is not None
        return slope

    check(misses(draw, {"median": MEDIAN, "slope": -0.5, "share": 0.6}[what], 2000), (0.93, 0.97))


@pytest.mark.xfail(reason="the first probe after the onset is not its time", raises=AssertionError)
def test_the_first_probe_after_as_the_time() -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        _, high = brackets(1000 * generator.weibull(SHAPE, 50), np.append(0.0, 2.0 ** np.arange(12)))
        return kaplan_meier(np.minimum(high, 2048), np.isfinite(high), COHORT).median

    check(misses(draw, MEDIAN, 500), (0.92, 0.98))


@pytest.mark.xfail(reason="runs without onset are late, not absent", raises=AssertionError)
def test_runs_without_onset_left_out() -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        times = 1000 * generator.weibull(SHAPE, 50)
        return kaplan_meier(times[times <= 1000], np.ones(int((times <= 1000).sum()), bool), COHORT).median

    check(misses(draw, MEDIAN, 500), (0.92, 0.98))


@pytest.mark.xfail(reason="a plain Weibull takes runs that never would for late ones", raises=AssertionError)
def test_a_weibull_without_a_cured_share() -> None:
    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = cured(generator, 50)
        return BracketLikelihood(low, high, np.ones((50, 1)), np.zeros((50, 0)), LOG_LOG_2), start_of(low, high, 1)

    check(likelihood_misses(draw, 0, log(700) + 0.5 * log(log(2)), 300), (0.92, 0.98))
