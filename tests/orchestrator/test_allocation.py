"""Seeds over scales: the posterior by another way, batches that spread, and what adapting saves."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from orchestrator.estimates.allocation import (
    d_optimal,
    d_optimal_scales,
    gains,
    next_seeds,
    posterior,
    seeds_for_midpoint,
)

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())
SCALES = 2.0 ** np.arange(7)


def test_reference_values_of_the_best_two_points() -> None:
    eta, p = d_optimal()
    assert eta == pytest.approx(GOLDEN["dopt_logistic"]["abs_eta"], abs=5e-5)
    assert p == pytest.approx(GOLDEN["dopt_logistic"]["P"], abs=5e-4)
    small, large = d_optimal_scales(1.0, 5.0)
    assert expit(5.0 * (np.log10([small, large]) - 1.0)) == pytest.approx([p, 1 - p])
    with pytest.raises(ValueError, match="without slope"):
        d_optimal_scales(1.0, 0.0)


def test_ten_percent_on_the_midpoint_is_no_claim_of_twenty_seeds() -> None:
    assert seeds_for_midpoint(np.log10(1.1), 10.0) == pytest.approx(90, abs=0.5)
    assert seeds_for_midpoint(np.log10(1.1), 5.0) == pytest.approx(360, abs=2)


def test_the_posterior_is_bayes_rule_point_by_point() -> None:
    k, n = np.array([0, 0, 1, 3, 4, 5, 5]), np.full(7, 5)
    state = posterior(SCALES, k, n)
    assert state.weights.sum() == pytest.approx(1)
    rows = np.random.default_rng(0).integers(len(state.weights), size=30)
    p = expit(state.slopes[rows, None] * (np.log10(SCALES) - state.midpoints[rows, None]))
    likelihood = np.prod(p**k * (1 - p) ** (n - k), axis=1)
    assert state.weights[rows] / state.weights[rows].sum() == pytest.approx(likelihood / likelihood.sum())
    mean, variance = state.midpoint
    assert np.log10(4) < mean < np.log10(16)
    assert variance < posterior(SCALES, 0 * k, 0 * n).midpoint[1] / 4


def test_the_gain_is_what_one_more_seed_brings_on_average() -> None:
    k, n = np.array([0, 0, 1, 3, 4, 5, 5]), np.full(7, 5)
    state = posterior(SCALES, k, n)
    place = 3
    p = float(state.weights @ expit(state.slopes * (state.x[place] - state.midpoints)))
    one = np.eye(7, dtype=int)[place]
    after = p * posterior(SCALES, k + one, n + one).midpoint[1] + (1 - p) * posterior(SCALES, k, n + one).midpoint[1]
    assert gains(state)[place] == pytest.approx(state.midpoint[1] - after, rel=1e-9)


def test_a_batch_goes_to_several_scales_and_is_the_same_for_the_same_generator() -> None:
    state = posterior(SCALES, np.array([0, 0, 1, 4, 8, 8, 8]), np.full(7, 8))
    batch = next_seeds(state, 24, np.random.default_rng(3))
    assert batch.sum() == 24
    assert (batch > 0).sum() >= 2, "never all seeds to the best scale"
    assert batch[2:5].sum() > batch[[0, 1, 5, 6]].sum(), "most where the curve turns"
    assert (batch == next_seeds(state, 24, np.random.default_rng(3))).all()


def test_falling_curves_are_mirror_images() -> None:
    k, n = np.array([0, 0, 1, 3, 4, 5, 5]), np.full(7, 5)
    rising, falling = posterior(SCALES, k, n), posterior(SCALES, n - k, n, falling=True)
    assert rising.midpoint == pytest.approx(falling.midpoint)


def test_adapting_needs_fewer_seeds_than_an_even_design() -> None:
    truth, slope, rng = np.log10(9.0), 10.0, np.random.default_rng(8)
    p = expit(slope * (np.log10(SCALES) - truth))

    def seeds_until(width: float, adaptive: bool) -> int:
        n = np.full(7, 2)
        k = rng.binomial(n, p)
        while (state := posterior(SCALES, k, n)).midpoint[1] ** 0.5 * 1.96 > width and n.sum() < 600:
            more = next_seeds(state, 14, rng) if adaptive else np.full(7, 2)
            k, n = k + rng.binomial(more, p), n + more
        return int(n.sum())

    adaptive = [seeds_until(np.log10(1.2), True) for _ in range(12)]
    even = [seeds_until(np.log10(1.2), False) for _ in range(12)]
    assert np.mean(adaptive) < 0.75 * np.mean(even)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="two scales"):
        posterior(np.array([4.0]), np.array([1]), np.array([2]))
    with pytest.raises(ValueError, match="more successes"):
        posterior(np.array([4.0, 8.0]), np.array([3, 1]), np.array([2, 2]))
