"""Scaling laws: fits converge to the truth and to one optimum, where a default fit stops; whole runs are drawn."""

from math import inf

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.loss_law import LossPoints, descend, grid_starts, linear_starts, loss_law, objective
from orchestrator.estimates.outcomes import Outcomes, percentile_ends
from orchestrator.estimates.power_law import fit, power_law

TRUTH = (1.8172, 482.01, 0.3478, 2085.43, 0.3658)  # E, A, α, B, β of Besiroglu et al. 2024
HOFFMANN = np.array([np.log(1.69), np.log(406.4), 0.34, np.log(410.7), 0.28])


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def points(noise: float, count: int = 240, per_condition: int = 24) -> LossPoints:
    random = rng(7)
    n, d = 10 ** random.uniform(7.5, 10.2, count), 10 ** random.uniform(9, 11.5, count)
    e, a, alpha, b, beta = TRUTH
    loss = (e + a * n**-alpha + b * d**-beta) * np.exp(noise * random.standard_t(3, size=count))
    return LossPoints(n, d, loss, np.arange(count), np.arange(count) // per_condition)


def test_without_noise_the_truth_is_found() -> None:
    found = loss_law(points(0.0), cohort(240), rng())
    e, a, alpha, b, beta = TRUTH
    values = [found.irreducible.value, found.a.value, found.alpha.value, found.b.value, found.beta.value]
    assert values == pytest.approx([e, np.log(a), alpha, np.log(b), beta], rel=1e-5)
    assert found.optimal_exponent.value == pytest.approx(beta / (alpha + beta), rel=1e-5)
    assert found.at(np.array([1e9]), np.array([2e10])) == pytest.approx(e + a * 1e9**-alpha + b * 2e10**-beta, rel=1e-7)


def test_the_gradient_is_that_of_the_objective() -> None:
    data, theta = points(0.01), np.array([0.6, 6.0, 0.34, 7.0, 0.36])
    weight = rng().integers(0, 3, size=240).astype(float)
    numeric = approx_fprime(theta, lambda t: objective(t, data, weight)[0], 1e-7)
    assert objective(theta, data, weight)[1] == pytest.approx(numeric, rel=1e-4, abs=1e-6)


def test_a_default_fit_stops_early_and_ours_does_not() -> None:
    data, weight = points(0.01), np.ones(240)
    stopped = minimize(lambda t: objective(t, data, weight), HOFFMANN, jac=True, method="L-BFGS-B")
    assert stopped.success, "it says that it converged"
    assert stopped.nit < 30
    theta, least = descend(data, weight, HOFFMANN)
    assert stopped.fun > 1.02 * least
    assert abs(stopped.x[4] - HOFFMANN[4]) < 0.01, "it reproduces what it was started from"
    assert abs(theta[4] - TRUTH[4]) < 0.03


def test_the_cheap_starts_end_where_the_full_grid_ends() -> None:
    data, weight = points(0.01, count=60, per_condition=6), np.ones(60)
    cheap = [descend(data, weight, start)[1] for start in linear_starts(data)]
    full = [descend(data, weight, start)[1] for start in grid_starts()[::7]]
    assert len(grid_starts()) == 432
    assert min(cheap) <= min(full) * (1 + 1e-9)
    assert sum(end <= min(cheap) * (1 + 1e-6) for end in cheap) == 8
    assert any(end > 1.01 * min(full) for end in full), "one start is not enough"


def test_a_run_and_all_its_checkpoints_are_drawn_together() -> None:
    """Ten copies of every point are the same runs: no interval may become narrower."""
    one = points(0.01)
    many = LossPoints(*(np.repeat(getattr(one, name), 10) for name in ("n", "d", "loss", "run", "scale")))
    first, second = (loss_law(p, cohort(240), rng(1), resampled=True, resamples=20) for p in (one, many))
    width = [law.beta.high - law.beta.low for law in (first, second)]
    assert width[1] == pytest.approx(width[0], rel=1e-3)


def test_few_runs_give_students_interval_and_one_run_none() -> None:
    few = loss_law(points(0.01, count=120, per_condition=20), cohort(120), rng())
    assert few.method.endswith("groups of runs")
    assert few.alpha.low < TRUTH[2] < few.alpha.high
    alone = points(0.01, count=20, per_condition=1)
    one = loss_law(alone, cohort(20), rng())
    assert (one.alpha.low, one.alpha.high) == (-inf, inf)
    conditions = LossPoints(alone.n, alone.d, alone.loss, alone.run, np.zeros(20, np.int64))
    drawn = loss_law(conditions, cohort(20), rng(), resampled=True, resamples=10).alpha
    assert drawn.bounded


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"loss": np.full(240, np.nan)}, "loss is not positive and finite"),
        ({"n": np.full(240, 1e9)}, "two numbers of parameters"),
        ({"run": np.zeros(240, np.int64)}, "one condition alone"),
    ],
)
def test_what_no_law_can_be_fitted_to_is_refused(change: dict[str, np.ndarray], told: str) -> None:
    given = points(0.01)
    fields = {name: change.get(name, getattr(given, name)) for name in ("n", "d", "loss", "run", "scale")}
    with pytest.raises(ValueError, match=told):
        loss_law(LossPoints(**fields), cohort(240), rng())


SCALES = 2.0 ** np.arange(3, 10)


def outcomes(runs: int, noise: float = 0.02, offset: float = 1.5, seed: int = 0) -> Outcomes:
    random = rng(seed)
    scores = [(offset + 4 * x**-0.5) * np.exp(noise * random.normal(size=runs)) for x in SCALES]
    return Outcomes.of(SCALES, scores, cohort(runs * len(SCALES)))


@pytest.mark.parametrize("offset", [0.0, 1.5, 0.01])
def test_a_power_law_is_found_without_noise(offset: float) -> None:
    law = power_law(outcomes(3, noise=0.0, offset=offset), rng(), offset=offset > 0)
    assert (law.exponent.value, law.prefactor.value) == pytest.approx((0.5, 4.0), rel=1e-6)
    assert law.offset.value == pytest.approx(offset, rel=1e-5)
    assert law.at(SCALES) == pytest.approx(law.value, rel=1e-9)


def test_many_fits_at_once_are_the_fits_one_by_one() -> None:
    log_y = np.log(np.stack([outcomes(5, seed=s).means for s in range(6)]))
    weight, log_x = np.arange(1.0, 8.0), np.log(SCALES)
    together = fit(log_x, log_y, weight, offset=True)
    for row, found in zip(log_y, together, strict=True):
        alone = minimize(
            lambda t, row=row: weight @ (np.logaddexp(t[0] - t[1] * log_x, t[2]) - row) ** 2,
            found,
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 4000},
        )
        assert weight @ (np.logaddexp(found[0] - found[1] * log_x, found[2]) - row) ** 2 <= alone.fun * (1 + 1e-8)


def test_the_intervals_of_a_power_law_hold_its_truth_and_say_how_they_were_made() -> None:
    many, few = power_law(outcomes(60), rng(), resampled=True), power_law(outcomes(8, seed=1), rng())
    assert many.method.endswith("runs resampled")
    assert few.method.endswith("t over fits to groups of runs")
    for law in (many, few):
        for part, truth in ((law.exponent, 0.5), (law.offset, 1.5), (law.prefactor, 4.0)):
            assert part.low < truth < part.high
    assert few.exponent.high - few.exponent.low > many.exponent.high - many.exponent.low
    median = power_law(outcomes(8), rng(), statistic=lambda y: np.median(y, axis=-1))
    assert "too narrow" in median.exponent.note
    assert few.exponent.note == many.exponent.note == ""
    assert power_law(outcomes(30), rng(2)).exponent == power_law(outcomes(30), rng(2)).exponent


def test_groups_hold_every_run_once_and_are_not_alike_across_scales() -> None:
    found = np.stack(outcomes(16).groups(rng(1), 20))
    assert np.sort(found, axis=1) == pytest.approx(np.stack(outcomes(16).scores))
    correlation = np.corrcoef(found)[np.triu_indices(len(found), 1)]
    assert abs(correlation.mean()) < 0.2
    uneven = Outcomes.of([1.0, 2.0], [np.arange(1.0, 8.0), np.arange(1.0, 4.0)], cohort(10))
    assert [len(part) for part in uneven.groups(rng(), 20)] == [3, 3]
    assert [len(part) for part in uneven.groups(rng(), 2)] == [2, 2]


def test_percentiles_are_taken_further_out_where_runs_are_few() -> None:
    tails = [percentile_ends(runs, 0.95)[0] for runs in (2, 5, 20, 10_000)]
    assert tails == sorted(tails)
    assert tails[2] == pytest.approx(0.01587, abs=1e-4), "Φ(-√(20/19) t)"
    assert tails[3] == pytest.approx(0.025, abs=1e-4)
    assert percentile_ends(1, 0.95) == (0.0, 1.0)


def test_the_order_of_scales_and_runs_moves_nothing() -> None:
    random, scores = rng(3), [rng(s).normal(5, 0.1, size=9) for s in range(7)]
    mixed = random.permutation(7)
    first = power_law(Outcomes.of(SCALES, scores, cohort(63)), rng(1))
    second = power_law(Outcomes.of(SCALES[mixed], [scores[i][::-1] for i in mixed], cohort(63)), rng(1))
    assert first.exponent == second.exponent


def test_impossible_outcomes_are_refused() -> None:
    with pytest.raises(ValueError, match="positive, finite and distinct"):
        Outcomes.of([1.0, 1.0], [np.ones(2), np.ones(2)], cohort(4))
    with pytest.raises(ValueError, match="at scale 2 a score is missing"):
        Outcomes.of([1.0, 2.0], [np.ones(2), np.array([np.nan])], cohort(3))
    with pytest.raises(ValueError, match="needs 3 scales"):
        power_law(Outcomes.of([1.0, 2.0], [np.ones(2), np.ones(2)], cohort(4)), rng())
    with pytest.raises(ValueError, match="positive numbers"):
        power_law(Outcomes.of([1.0, 2.0, 3.0], [np.zeros(2)] * 3, cohort(6)), rng())
