"""Do intervals of means, bands and laws over scale cover, and do checkpoints and cells as units of resampling fail?"""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import trim_mean

from orchestrator.estimates.bands import mean_band
from orchestrator.estimates.distribution_law import distribution_law
from orchestrator.estimates.emergence import change_of_mean
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.loss_law import LossPoints, loss_law
from orchestrator.estimates.means import interquartile_mean, mean_bca, mean_t, probability_of_improvement
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.estimates.power_law import power_law
from orchestrator.estimates.quantile_law import quantile_laws
from tests.calibration.cells import COHORT, Draw, Judge, Record

SCALES = 2.0 ** np.arange(3, 9)


def record(draw: Draw, truth: float, repetitions: int) -> Record:
    return Record.drawn(draw, truth, repetitions, seed=1)


def correlated(rng: np.random.Generator, seeds: int, tasks: int, correlation: float) -> np.ndarray:
    """Return [seed, task] of mean 0 and variance 1, a seed's tasks correlated."""
    shared = rng.normal(size=(seeds, 1))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(size=(seeds, tasks))


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_students_interval_of_the_mean(n: int, judge: Judge) -> None:
    found = record(lambda rng: mean_t(rng.normal(size=n), COHORT), 0.0, judge.repetitions)
    judge.passes("mean, Student's t", "normal", n, found)


@pytest.mark.parametrize("correlation", [0.3, 0.8])
def test_the_mean_over_tasks_of_a_seed(correlation: float, judge: Judge) -> None:
    found = record(lambda rng: mean_t(correlated(rng, 10, 10, correlation), COHORT), 0.0, judge.repetitions)
    judge.passes("mean, Student's t", f"10 tasks a seed, correlation {correlation:g}", 10, found, most_width=2.2)


@pytest.mark.parametrize(("correlation", "most"), [(0.3, 0.75), (0.8, 0.55)])
def test_a_bootstrap_over_cells(correlation: float, most: float, judge: Judge) -> None:
    """Every (seed, task) cell drawn by itself, as for tasks that are trained one by one."""

    def draw(rng: np.random.Generator) -> Estimate:
        scores = correlated(rng, 10, 10, correlation)
        rows = rng.integers(10, size=(500, 10, 10))
        cells = scores[rows, np.arange(10)]
        low, high = np.quantile(trim_mean(cells.reshape(500, -1), 0.25, axis=1), [0.025, 0.975])
        return Estimate(0.0, float(low), float(high), "cells", 0.95, COHORT)

    found = record(draw, 0.0, judge.repetitions)
    judge.fails("interquartile mean, cells drawn again", f"10 tasks a seed, correlation {correlation:g}", 10, found)
    assert found.coverage < most


def test_the_interquartile_mean_over_whole_rows_covers_where_cells_do_not(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return interquartile_mean(correlated(rng, 30, 5, 0.8), COHORT, rng, resamples=200)

    found = record(draw, 0.0, judge.repetitions)
    judge.passes("interquartile mean, rows drawn again", "5 tasks a seed, correlation 0.8", 30, found, lopsided=0.045)


def test_bca_of_a_skewed_mean(judge: Judge) -> None:
    judge = judge.few(150)
    found = record(lambda rng: mean_bca(rng.gamma(4.0, size=40), COHORT, rng), 4.0, judge.repetitions)
    # Skewed scores miss on one side at any n of this size.
    judge.passes("mean, BCa", "skewed (gamma of shape 4)", 40, found, lopsided=0.08)


def test_probability_of_improvement(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return probability_of_improvement(rng.normal(0.5, 1, 30), rng.normal(size=30), COHORT, rng, resamples=400)

    truth = 0.638163  # Φ(0.5 / √2)
    found = record(draw, truth, judge.repetitions)
    judge.passes("probability of improvement", "normal, half a deviation apart", 30, found, lopsided=0.045)


def test_a_band_covers_everywhere_at_once_and_pointwise_intervals_do_not(judge: Judge) -> None:
    rng, together, pointwise = np.random.default_rng(2), 0, 0
    for _ in range(judge.repetitions):
        values = np.cumsum(rng.normal(size=(20, 15)), axis=1)
        band = mean_band(values, COHORT, rng, resamples=500)
        together += bool(np.all((band.low <= 0) & (band.high >= 0)))
        each = [mean_t(column, COHORT) for column in values.T[::2]]
        pointwise += all(one.low <= 0 <= one.high for one in each)
    for name, inside in (("sup-t band", together), ("pointwise t intervals, read as a band", pointwise)):
        missed = (1 - inside / judge.repetitions) / 2
        if inside == together:
            judge.passes(name, "15 steps of a random walk", 20, Record(missed, missed), conservative=True)
        else:
            judge.fails(name, "8 steps of a random walk", 20, Record(missed, missed))


def falling(rng: np.random.Generator, runs: int, offset: float = 0.0, noise: float = 0.03) -> Outcomes:
    scores = [(offset + 4 * x**-0.5) * np.exp(noise * rng.normal(size=runs)) for x in SCALES]
    return Outcomes.of(SCALES, scores, COHORT)


@pytest.mark.parametrize("runs", [5, 10, 20, 50])
def test_the_exponent_of_a_power_law(runs: int, judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return power_law(falling(rng, runs), rng, offset=False).exponent

    judge.passes("exponent of a power law", "6 scales", runs, record(draw, 0.5, judge.repetitions))


@pytest.mark.parametrize("runs", [5, 20])
def test_the_exponent_of_a_power_law_with_an_offset(runs: int, judge: Judge) -> None:
    judge = judge.few(150)

    def draw(rng: np.random.Generator) -> Estimate:
        return power_law(falling(rng, runs, offset=1.5), rng).exponent

    found = record(draw, 0.5, judge.repetitions)
    judge.passes("exponent with an offset", "6 scales", runs, found, conservative=True, most_width=0.5)


def test_whole_runs_drawn_again_cover_where_runs_are_many(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return power_law(falling(rng, 50), rng, offset=False, resampled=True, resamples=400).exponent

    judge.passes("exponent, whole runs drawn again", "6 scales", 50, record(draw, 0.5, judge.repetitions))


@pytest.mark.parametrize(("correlation", "most"), [(0.8, 0.5), (0.2, 0.72)])
def test_checkpoints_as_points(correlation: float, most: float, judge: Judge) -> None:
    """Six scales, 10 runs each, 20 checkpoints per run; each checkpoint drawn as if it were a run."""
    judge = judge.few(200)
    log_x = np.log(SCALES) - np.log(SCALES).mean()

    def draw(rng: np.random.Generator) -> Estimate:
        logs = np.stack([correlated(rng, 10, 20, correlation).ravel() for _ in SCALES])
        drawn = np.take_along_axis(logs[None], rng.integers(200, size=(300, len(SCALES), 200)), axis=2).mean(axis=2)
        low, high = np.quantile(drawn @ log_x / (log_x @ log_x), [0.025, 0.975])
        return Estimate(0.0, float(low), float(high), "points", 0.95, COHORT)

    found = record(draw, 0.0, judge.repetitions)
    judge.fails("exponent, checkpoints as points", f"20 checkpoints, correlation {correlation:g}", 10, found)
    assert found.coverage < most


def test_the_exponents_of_a_loss_law(judge: Judge) -> None:
    judge = judge.few(40)
    n, d = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e10, 4), np.geomspace(1e9, 1e12, 4)))
    truth = 1.8 + 480 * n**-0.35 + 2000 * d**-0.36
    runs = 6
    place = np.repeat(np.arange(len(n)), runs)

    def draw(rng: np.random.Generator) -> Estimate:
        loss = truth[place] * np.exp(0.005 * rng.normal(size=len(place)))
        points = LossPoints(n[place], d[place], loss, np.arange(len(place)), place)
        return loss_law(points, COHORT, rng).optimal_exponent

    found = record(draw, 0.36 / 0.71, judge.repetitions)
    judge.passes("optimal exponent of L(N, D)", "16 conditions", runs, found, conservative=True, most_width=0.2)


def test_the_laws_of_quantiles(judge: Judge) -> None:
    judge = judge.few(25)

    def draw(rng: np.random.Generator) -> Estimate:
        return quantile_laws(falling(rng, 24, noise=0.2), rng, q=(0.5, 0.75), resamples=60).exponents[1]

    found = record(draw, 0.5, judge.repetitions)
    judge.passes("exponent of the 75 % quantile", "6 scales", 24, found, conservative=True, most_width=0.5)


def two_kinds(rng: np.random.Generator, runs: int) -> Outcomes:
    p = expit(4 * (np.log10(SCALES) - 1.5))
    scores = [
        np.where(rng.random(runs) < share, 1 - 0.1 * rng.random(runs), 0.5 + 0.1 * rng.random(runs)) for share in p
    ]
    return Outcomes.of(SCALES, scores, COHORT)


@pytest.mark.parametrize("runs", [20, 50])
@pytest.mark.parametrize("at", [16.0, 48.0])
def test_the_mean_of_the_mixture(runs: int, at: float, judge: Judge) -> None:
    judge = judge.few(250)
    p = float(expit(4 * (np.log10(at) - 1.5)))

    def draw(rng: np.random.Generator) -> Estimate:
        curve = distribution_law(two_kinds(rng, runs), 0.8, np.array([at]), rng, resamples=200).mean
        return Estimate(float(curve.value[0]), float(curve.low[0]), float(curve.high[0]), "", 0.95, COHORT)

    found = record(draw, p * 0.95 + (1 - p) * 0.55, judge.repetitions)
    judge.passes("mean of the mixture", f"at scale {at:g}", runs, found, conservative=True, most_width=0.15)


@pytest.mark.parametrize("runs", [20, 50])
def test_the_part_of_the_means_change_that_is_a_change_of_p(runs: int, judge: Judge) -> None:
    judge = judge.few(250)
    p = expit(4 * (np.log10(SCALES) - 1.5))

    def draw(rng: np.random.Generator) -> Estimate:
        return change_of_mean(two_kinds(rng, runs), 0.8, rng, resamples=400).by_weight

    found = record(draw, float((p[-1] - p[0]) * 0.4), judge.repetitions)
    name = "change of the mean by a change of P"
    if runs == 20:
        # P is .08 at one end and .97 at the other: of 20 runs often none fails, and draws of them all succeed, too.
        judge.fails(name, "6 scales", runs, found)
        return
    # What is left of that at 50 runs: .051 lies above at 2,000 repetitions.
    judge.passes(name, "6 scales", runs, found, conservative=True, lopsided=0.06, most_width=0.25)
