"""Do the intervals of onsets cover, and do the usual short cuts fail?

In CI an interval from the profile likelihood is asked whether it holds the truth (one constrained fit;
`test_weibull.py` shows that its ends are where this answer changes); the full form computes the ends.
"""

from collections.abc import Callable
from math import asin, inf, log, pi

import numpy as np
import pytest

from orchestrator.estimates.cure import cure_weibull
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.onset import Bracket, median_onset
from orchestrator.estimates.order import Brackets, kendall_tau, order_of
from orchestrator.estimates.profile import critical, maximise
from orchestrator.estimates.survival import kaplan_meier
from orchestrator.estimates.turnbull import turnbull
from orchestrator.estimates.weibull import LOG_LOG_2, degrees, start_of, weibull_aft, weibull_median
from orchestrator.estimates.weibull_likelihood import BracketLikelihood
from tests.calibration.cells import COHORT, Judge, Record

GRID = np.arange(0.0, 1501, 100)
SHAPE = 2.0
MEDIAN = 1000 * log(2) ** (1 / SHAPE)
Likelihoods = Callable[[np.random.Generator], tuple[BracketLikelihood, np.ndarray]]


def likelihood_record(draw: Likelihoods, which: int, truth: float, repetitions: int) -> Record:
    """Return the record of profile intervals, by asking how much the truth costs in likelihood."""
    generator = np.random.default_rng(0)
    above = below = 0
    for _ in range(repetitions):
        likelihood, start = draw(generator)
        top = maximise(likelihood, start)
        at = top.parameters.copy()
        at[which] = truth
        left = inf if likelihood.z.shape[1] else degrees(likelihood)
        rejected = 2 * (top.value - maximise(likelihood, at, which).value) > critical(0.95, left) ** 2
        above += rejected and top.parameters[which] > truth
        below += rejected and top.parameters[which] < truth
    return Record(above / repetitions, below / repetitions)


def brackets(times: np.ndarray, grid: np.ndarray = GRID) -> tuple[np.ndarray, np.ndarray]:
    place = np.searchsorted(grid, times, side="left")
    return grid[place - 1], np.append(grid, inf)[place]


def survival_drawn(n: int) -> Callable[[np.random.Generator], Estimate]:
    def draw(generator: np.random.Generator) -> Estimate:
        times, ends = 1000 * generator.weibull(SHAPE, n), generator.uniform(600, 2500, n)
        return kaplan_meier(np.minimum(times, ends), times <= ends, COHORT).median

    return draw


@pytest.mark.parametrize("n", [10, 20, 50])
def test_kaplan_meier_median(n: int, judge: Judge) -> None:
    record = Record.drawn(survival_drawn(n), MEDIAN, judge.repetitions)
    judge.passes("Kaplan–Meier median", "Weibull, runs end at random", n, record, lopsided=0.05)


def test_the_median_of_five_runs_has_hardly_a_bound(judge: Judge) -> None:
    """Below 6 runs no order statistic bounds a median; the log-log band says so on one side only."""
    record = Record.drawn(survival_drawn(5), MEDIAN, judge.repetitions)
    judge.passes("Kaplan–Meier median", "Weibull, runs end at random", 5, record, True, lopsided=0.07)
    assert median_onset([Bracket(2.0, 1.0)] * 5, COHORT).interval == (-inf, inf)


def lost_early(generator: np.random.Generator, times: np.ndarray, how: str) -> tuple[np.ndarray, np.ndarray]:
    """Return brackets of runs of which some were lost: at random, or three in ten of those that are late."""
    low, high = brackets(times)
    goes = generator.random(len(times)) < (0.15 if how == "lost at random" else 0.3 * (times > MEDIAN))
    ends = GRID[generator.integers(0, 9, len(times))]
    unseen = goes & (high > ends)
    return np.where(unseen, np.minimum(low, ends), low), np.where(unseen, inf, high)


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("how", ["all watched", "lost at random", "late ones lost"])
def test_median_onset_is_never_wrong_whatever_was_lost(how: str, n: int, judge: Judge) -> None:
    generator = np.random.default_rng(2)
    found = []
    for _ in range(judge.repetitions):
        times = 1000 * generator.weibull(SHAPE, n)
        low, high = brackets(times) if how == "all watched" else lost_early(generator, times, how)
        found.append(median_onset([Bracket(b, a) for a, b in zip(low, high, strict=True)], COHORT).interval)
    low, high = np.array(found).T
    judge.passes("median onset", f"brackets of 100 steps, {how}", n, Record.of(low, high, MEDIAN), conservative=True)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_turnbull_median_covers_at_least_its_level(n: int, judge: Judge) -> None:
    generator = np.random.default_rng(1)
    found = []
    for _ in range(judge.few(300).repetitions):
        low, high = brackets(1000 * generator.weibull(SHAPE, n))
        found.append(turnbull(low, high, COHORT, generator, resamples=200).interval)
    low, high = np.array(found).T
    record = Record.of(low, high, MEDIAN)
    judge.few(300).passes("Turnbull median", "brackets of 100 steps", n, record, conservative=True)


def median_likelihood(n: int) -> Likelihoods:
    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = brackets(1000 * generator.weibull(SHAPE, n))
        return BracketLikelihood(low, high, np.ones((n, 1)), np.zeros((n, 0)), LOG_LOG_2), start_of(low, high, 1)

    return draw


@pytest.mark.parametrize("n", [10, 20, 50])
def test_weibull_median_from_brackets(n: int, judge: Judge) -> None:
    record = likelihood_record(median_likelihood(n), 0, log(MEDIAN), judge.repetitions)
    judge.passes("Weibull median", "brackets of 100 steps", n, record)


def over_scale(generator: np.random.Generator, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = np.repeat([-0.6, 0.0, 0.6], each)
    return *brackets(np.exp(6.6 - 0.5 * x + 0.5 * np.log(generator.exponential(size=x.size)))), x


@pytest.mark.parametrize("each", [10, 20])
@pytest.mark.parametrize(("which", "truth", "name"), [(0, 6.6, "intercept"), (1, -0.5, "slope")])
def test_weibull_coefficients_over_scale(which: int, truth: float, name: str, each: int, judge: Judge) -> None:
    judge = judge.few(250)

    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high, x = over_scale(generator, each)
        design = np.stack([np.ones(len(x)), x], axis=1)
        return BracketLikelihood(low, high, design, design[:, :0]), start_of(low, high, 2)

    record = likelihood_record(draw, which, truth, judge.repetitions)
    judge.passes(f"Weibull {name} over scale", "3 scales, brackets of 100 steps", 3 * each, record)


def cured(generator: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    through = generator.uniform(size=n) < 0.6
    return brackets(np.where(through, 700 * generator.weibull(SHAPE, n), inf))


@pytest.mark.parametrize("n", [30, 50])
def test_share_that_breaks_through(n: int, judge: Judge) -> None:
    judge = judge.few(250)

    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = cured(generator, n)
        ones = np.ones((n, 1))
        return BracketLikelihood(low, high, ones, ones, LOG_LOG_2), np.append(start_of(low, high, 1), 0.4)

    record = likelihood_record(draw, 2, log(0.6 / 0.4), judge.repetitions)
    judge.passes("share that breaks through", "mixture with a cured part, P = 0.6", n, record, lopsided=0.05)


@pytest.mark.parametrize("what", ["median", "slope", "share"])
def test_the_ends_that_are_published_cover_too(what: str, judge: Judge) -> None:
    judge = judge.few(40)

    def draw(generator: np.random.Generator) -> Estimate:
        if what == "median":
            return weibull_median(*brackets(1000 * generator.weibull(SHAPE, 20)), COHORT)
        if what == "share":
            return cure_weibull(*cured(generator, 50), COHORT).breaks_through
        low, high, x = over_scale(generator, 20)
        slope = weibull_aft(low, high, COHORT, x).slope
        assert slope is not None
        return slope

    truth, n = {"median": (MEDIAN, 20), "slope": (-0.5, 60), "share": (0.6, 50)}[what]
    record = Record.drawn(draw, truth, judge.repetitions)
    judge.passes(f"Weibull {what}, published ends", "brackets of 100 steps", n, record, lopsided=0.05)


@pytest.mark.parametrize("n", [10, 20, 50])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_kendall_tau(correlation: float, n: int, judge: Judge) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        first, other = generator.normal(size=(2, n))
        other = correlation * first + (1 - correlation**2) ** 0.5 * other
        a, b = (Brackets(x, x + 1e-9) for x in (first, other))
        return kendall_tau(a, b, COHORT, generator, resamples=400)

    record = Record.drawn(draw, 2 / pi * asin(correlation), judge.repetitions)
    judge.passes("Kendall's tau", f"normal, correlation {correlation:g}", n, record, lopsided=0.05)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_the_sign_test_keeps_its_level(n: int, judge: Judge) -> None:
    generator = np.random.default_rng(4)
    p = []
    for _ in range(judge.repetitions):
        times = 1000 * generator.weibull(SHAPE, (2, n))
        p.append(order_of(*(Brackets(*brackets(one)) for one in times), COHORT).p_two_sided)
    judge.passes("sign test on disjoint brackets", "no order", n, Record.of_test(np.array(p)), conservative=True)


def test_the_first_probe_after_as_the_time(judge: Judge) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        _, high = brackets(1000 * generator.weibull(SHAPE, 50), np.append(0.0, 2.0 ** np.arange(12)))
        return kaplan_meier(np.minimum(high, 2048), np.isfinite(high), COHORT).median

    judge.fails("first probe as the time", "log grid", 50, Record.drawn(draw, MEDIAN, judge.repetitions))


def test_runs_without_onset_left_out(judge: Judge) -> None:
    def draw(generator: np.random.Generator) -> Estimate:
        times = 1000 * generator.weibull(SHAPE, 50)
        return kaplan_meier(times[times <= 1000], np.ones(int((times <= 1000).sum()), bool), COHORT).median

    judge.fails("runs without onset left out", "ended at 1000", 50, Record.drawn(draw, MEDIAN, judge.repetitions))


def test_a_weibull_without_a_cured_share(judge: Judge) -> None:
    judge = judge.few(100)

    def draw(generator: np.random.Generator) -> tuple[BracketLikelihood, np.ndarray]:
        low, high = cured(generator, 50)
        return BracketLikelihood(low, high, np.ones((50, 1)), np.zeros((50, 0)), LOG_LOG_2), start_of(low, high, 1)

    record = likelihood_record(draw, 0, log(700) + 0.5 * log(log(2)), judge.repetitions)
    judge.fails("Weibull without a cured part", "P = 0.6", 50, record)
