"""Laws of a distribution: quantiles that do not cross, mixtures of laws, and what a jump of the mean is made of."""

import numpy as np
import pytest
from scipy.special import expit, ndtri
from scipy.stats import norm

from orchestrator.estimates.distribution_law import distribution_law, sums_of
from orchestrator.estimates.emergence import change_of_mean, crps, rivals
from orchestrator.estimates.estimate import Cohort, plain
from orchestrator.estimates.log_link import fit_means, means_at
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.estimates.quantile_law import lognormal_logs, quantile_laws

SCALES = np.array([4.0, 8, 16, 32, 64, 128])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def outcomes(scores: list[np.ndarray], scales: np.ndarray = SCALES) -> Outcomes:
    runs = sum(len(values) for values in scores)
    return Outcomes.of(scales, scores, Cohort.of([f"r{i}" for i in range(runs)], finished=runs, diverged=0))


def two_kinds(runs: int, seed: int = 0, floor: float = 0.5) -> Outcomes:
    """Return runs of which more and more succeed, and which get no better at anything else."""
    random, scores = rng(seed), []
    for p in expit(5 * (np.log10(SCALES) - 1.4)):
        good = random.random(runs) < p
        scores.append(np.where(good, 1 - 0.05 * random.random(runs), floor * (1 + 0.06 * random.random(runs))))
    return outcomes(scores)


def smooth(runs: int, seed: int = 0) -> Outcomes:
    """Return runs that all get better at the same rate."""
    return outcomes([0.3 * x**0.2 * np.exp(0.02 * rng(seed).normal(size=runs)) for x in SCALES])


def test_lognormal_noise_gives_every_quantile_the_same_exponent() -> None:
    """Scores at the exact quantiles of the noise: the slope of each quantile is the law's, its log is shifted."""
    noise = np.exp(0.1 * ndtri((np.arange(199) + 0.5) / 199))
    found = quantile_laws(outcomes([3 * x**-0.1 * noise for x in SCALES]), rng(), resamples=2)
    assert [part.value for part in found.exponents] == pytest.approx([0.1] * 3, abs=1e-4)
    expected = lognormal_logs(np.log(3), 0.1, np.array(found.q))
    assert [part.value for part in found.logs] == pytest.approx(expected, abs=2e-3)
    assert found.spread.value == pytest.approx(0, abs=1e-4)


def test_quantiles_never_cross_where_they_would() -> None:
    """Noise that shrinks with scale makes free lines cross at ×16; these do not."""
    random = rng(2)
    data = outcomes([np.exp(0.5 * (4 / x) * random.normal(size=40)) for x in SCALES])
    bound = quantile_laws(data, rng(), up_to=SCALES[-1] * 256, resamples=2)
    places = np.geomspace(SCALES[0], SCALES[-1] * 256, 50)
    assert np.all(np.diff(bound.at(places), axis=0) >= -1e-9)
    free = [quantile_laws(data, rng(), q=(q,), resamples=2).at(places)[0] for q in bound.q]
    assert np.any(np.diff(np.stack(free), axis=0) < -1e-3), "without the constraint they do"
    assert bound.spread.value > 0
    assert quantile_laws(data, rng(), resamples=30).spread.low > 0, "chance itself changes with scale"


def test_one_quantile_alone_is_the_sample_quantile_of_one_scale_repeated() -> None:
    scores = np.sort(rng(3).lognormal(size=11))
    found = quantile_laws(outcomes([scores, scores], np.array([1.0, 10.0])), rng(), q=(0.5,), resamples=2)
    assert found.at(np.array([1.0, 10.0]))[0] == pytest.approx([scores[5]] * 2, rel=1e-9)


def test_means_are_fitted_where_logs_do_not_exist() -> None:
    log_x, runs = np.log(SCALES), np.full((3, 6), 10.0)
    law = 2 * SCALES**0.3
    total = np.stack([10 * law, np.zeros(6), np.where(np.arange(6) == 2, 7.0, 0.0)])
    runs[2] = np.where(np.arange(6) == 2, 10.0, 0.0)
    found = means_at(fit_means(log_x, total, runs), log_x)
    assert found[0] == pytest.approx(law, rel=1e-10)
    assert found[1] == pytest.approx(np.zeros(6), abs=1e-290), "a floor of zero"
    assert found[2] == pytest.approx(np.full(6, 0.7)), "one scale alone says a constant"
    assert np.isnan(fit_means(log_x, np.zeros((1, 6)), np.zeros((1, 6)))).all()


def test_resamples_with_runs_at_one_scale_alone_are_constants_without_a_warning() -> None:
    at, random = np.arange(200) % 6, rng(6)
    runs = np.zeros((200, 6))
    runs[np.arange(200), at] = random.integers(1, 60, size=200)
    scores = random.random(200)
    found = means_at(fit_means(np.log(SCALES), runs * scores[:, None], runs), np.log(SCALES))
    assert found == pytest.approx(np.broadcast_to(scores[:, None], (200, 6)))


def test_the_means_of_a_fit_balance_those_of_the_data() -> None:
    total, runs = rng(4).random((5, 6)) * 20, rng(5).integers(1, 30, size=(5, 6)).astype(float)
    log_x = np.log(SCALES)
    missing = total - runs * means_at(fit_means(log_x, total, runs), log_x)
    assert missing.sum(axis=1) == pytest.approx(np.zeros(5), abs=1e-8)
    assert missing @ log_x == pytest.approx(np.zeros(5), abs=1e-7)


def test_the_mixture_is_what_the_runs_were_made_from() -> None:
    at = np.array([4.0, 25.0, 512.0])
    found = distribution_law(two_kinds(2_000), 0.9, at, rng(), resamples=300)
    truth = expit(5 * (np.log10(at) - 1.4))
    composite = truth * 0.975 + (1 - truth) * 0.515
    for curve, expected in ((found.probability, truth), (found.mean, composite)):
        assert np.all((curve.low - 5e-3 < expected) & (expected < curve.high + 5e-3))
        assert np.all((curve.low <= curve.value) & (curve.value <= curve.high))
    assert abs(found.exponent_of_successes.value) < 5e-3
    assert found.mean.value[-1] < 1 < found.naive.value[-1], "the mean's law goes on rising where the mixture ends"
    assert plain(found)["cohort"]["finished"] == 12_000


def test_quantiles_of_the_mixture_jump_and_its_atoms_weigh_one() -> None:
    found = distribution_law(two_kinds(200), 0.9, SCALES, rng(), resamples=50)
    median = found.quantiles(np.array([0.5]))[:, 0]
    steps = np.diff(median)
    assert steps.max() > 0.4, "the median jumps outright"
    assert np.sort(steps)[-2] < 0.02
    for place in range(len(SCALES)):
        scores, weight = found.atoms(place)
        assert weight.sum() == pytest.approx(1)
        assert scores @ weight == pytest.approx(found.mean.value[place], abs=0.01)


def test_a_jump_of_the_mean_that_is_all_weight_is_told_and_one_that_is_none() -> None:
    jump = change_of_mean(two_kinds(200), 0.9, rng())
    assert jump.share.low < 1 < jump.share.high
    assert jump.share.low > 0.9
    assert jump.steps[:, 0].sum() == pytest.approx(jump.change.value, abs=1e-12)
    rise = change_of_mean(smooth(100), 0.55, rng())
    assert rise.share.high < 0.6
    still = change_of_mean(outcomes([rng(6).choice([0.2, 0.8], size=40) for _ in SCALES]), 0.5, rng())
    assert (still.share.low, still.share.high) == (-np.inf, np.inf)
    assert "no bound" in still.share.note


def test_kitagawas_parts_add_up() -> None:
    data = two_kinds(50)
    p = np.array([(scores >= 0.9).mean() for scores in data.scores])
    good = np.array([scores[scores >= 0.9].mean() for scores in data.scores])
    bad = np.array([scores[scores < 0.9].mean() for scores in data.scores])
    assert p.min() > 0
    assert p.max() < 1
    within = (p[1:] + p[:-1]) / 2 * np.diff(good) + (1 - (p[1:] + p[:-1]) / 2) * np.diff(bad)
    steps = change_of_mean(data, 0.9, rng(), resamples=2).steps
    assert steps[:, 1] + within == pytest.approx(steps[:, 0], abs=1e-12)


def test_the_naive_law_is_refuted_where_success_is_a_matter_of_chance_alone() -> None:
    found = rivals(two_kinds(80), 0.9, rng(), simulations=199)
    assert found.composite_p > 0.05
    assert found.naive_p < 0.02
    assert [held.scale for held in found.held_out] == [32.0, 64.0, 128.0]
    last = found.held_out[-1]
    assert last.composite_crps < last.naive_crps
    assert abs(last.composite_mean - last.mean) < abs(last.naive_mean - last.mean)


def test_the_naive_law_stands_where_all_runs_get_better() -> None:
    found = rivals(smooth(40), 0.6, rng(), simulations=199)
    assert found.naive_p > 0.05


def test_crps_is_that_of_the_normal_distribution() -> None:
    """CRPS of N(0, 1) at y: y (2Φ(y) - 1) + 2φ(y) - 1/√π (Gneiting & Raftery 2007)."""
    scores = ndtri((np.arange(4_000) + 0.5) / 4_000)
    for y in (-1.0, 0.0, 2.5):
        expected = y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)
        assert crps(scores, np.full(4_000, 1 / 4_000), np.array([y])) == pytest.approx(expected, abs=1e-4)


def test_equal_generators_give_equal_curves_and_the_order_of_runs_none() -> None:
    data = two_kinds(30)
    mixed = outcomes([scores[::-1] for scores in data.scores])
    first, second = (distribution_law(d, 0.9, SCALES, rng(1), resamples=50) for d in (data, mixed))
    assert np.array_equal(first.mean.low, second.mean.low)
    assert first.exponent_of_naive == second.exponent_of_naive


def test_a_floor_of_zero_and_resamples_without_a_kind_are_no_trouble() -> None:
    found = distribution_law(two_kinds(6, seed=3, floor=0.0), 0.9, SCALES, rng(), resamples=200)
    assert np.isfinite(found.mean.low).all()
    assert np.all(found.failures.value < 1e-9)
    assert sums_of([np.zeros((1, 4))], 0.5).successes.tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("scores", "told"),
    [
        ([np.array([-1.0, 1.0])] * 6, "negative"),
        ([np.zeros(3)] * 6, "no run reaches"),
        ([np.ones(3)] * 6, "every run reaches"),
    ],
)
def test_what_has_no_mixture_is_refused(scores: list[np.ndarray], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        distribution_law(outcomes(scores), 0.9, SCALES, rng())


def test_impossible_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="ascending"):
        quantile_laws(smooth(5), rng(), q=(0.5, 0.1))
    with pytest.raises(ValueError, match="not positive"):
        quantile_laws(outcomes([np.zeros(3)] * 6), rng())
