"""Distances against references and scipy, their bias, and Fisher's test with its exact power."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erfinv
from scipy.stats import binom, energy_distance, fisher_exact, ks_2samp, wasserstein_distance

from orchestrator.estimates.distances import Kind, compare, distance, fisher_p, fisher_power, neighbours
from orchestrator.estimates.estimate import Cohort

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())["distances"]


def cohort(name: str, n: int) -> Cohort:
    return Cohort.of([f"{name}{i}" for i in range(n)], finished=n, diverged=0)


def test_the_references() -> None:
    a, b = np.array([0.0, 1, 3]), np.array([5.0, 6, 8])
    assert distance(a, b, Kind.W1) == pytest.approx(GOLDEN["W1([0,1,3],[5,6,8])"], abs=1e-12)
    assert distance(np.arange(4.0), np.arange(2.0, 6), Kind.KS) == GOLDEN["ks_exact([0..3],[2..5])"][0]
    low, high = np.repeat([0.0, 1.0], [7, 3]), np.repeat([0.0, 1.0], [4, 6])
    assert distance(low, high, Kind.W1) == pytest.approx(0.3, abs=1e-12)
    assert distance(low, high, Kind.ENERGY) == pytest.approx(0.42426407, abs=5e-9)
    # Quantiles of two normals, at the middles of 20,000 equal parts: W2² = Δμ² + Δσ².
    z = np.sqrt(2) * erfinv((np.arange(20000) + 0.5) / 10000 - 1)
    assert distance(z, 1.5 + 1.8 * z, Kind.W2) ** 2 == pytest.approx(1.5**2 + 0.8**2, abs=1e-3)


def test_they_are_scipys_for_any_two_samples() -> None:
    generator = np.random.default_rng(0)
    for n, m in [(1, 1), (3, 7), (12, 12), (20, 15)]:
        a, b = generator.integers(0, 9, n) / 4, generator.integers(2, 12, m) / 4
        assert distance(a, b, Kind.W1) == pytest.approx(wasserstein_distance(a, b), abs=1e-12)
        assert distance(a, b, Kind.ENERGY) == pytest.approx(energy_distance(a, b), abs=1e-12)
        assert distance(a, b, Kind.KS) == pytest.approx(ks_2samp(a, b).statistic, abs=1e-12)
        for kind in Kind:
            assert distance(a, b, kind) == pytest.approx(distance(b, a, kind), abs=1e-12)
            assert distance(a, a, kind) == 0


def test_w2_by_hand_for_unequal_sizes() -> None:
    # F⁻¹ is 0 up to ½ and 4 after; G⁻¹ is 1, 2, 3 by thirds.
    expected = np.sqrt(1 / 3 + 4 / 6 + 4 / 6 + 1 / 3)
    assert distance(np.array([0.0, 4]), np.array([1.0, 2, 3]), Kind.W2) == pytest.approx(expected, abs=1e-12)


def test_ks_permutation_p_is_the_exact_one() -> None:
    # The reference's p holds for samples without ties; these have the same distance, and none.
    a, b = np.arange(4.0), np.arange(1.5, 5)
    found = compare(a, b, cohort("a", 8), np.random.default_rng(0), Kind.KS, 40000, 10)
    assert found.value == GOLDEN["ks_exact([0..3],[2..5])"][0]
    assert found.p == pytest.approx(GOLDEN["ks_exact([0..3],[2..5])"][1], abs=0.008)


def bimodal(generator: np.random.Generator, share: float, runs: int) -> np.ndarray:
    success = generator.uniform(size=runs) < share
    return np.where(success, 0.95, 0.3) + generator.normal(0, 0.03, runs)


def test_a_plain_distance_is_biased_and_the_corrected_one_far_less() -> None:
    generator = np.random.default_rng(1)
    found = [
        compare(bimodal(generator, 0.4, 20), bimodal(generator, 0.4, 20), cohort("a", 40), generator, Kind.W1, 200, 10)
        for _ in range(150)
    ]
    plain = np.mean([one.value for one in found])
    corrected = np.mean([one.corrected for one in found])
    assert plain > 0.07
    assert corrected < plain / 2


def test_moved_is_found_and_its_size_told() -> None:
    generator = np.random.default_rng(2)
    scores = [bimodal(generator, share, 60) for share in (0.3, 0.3, 0.8)]
    first, second = neighbours(scores, [cohort(name, 60) for name in "abc"], np.random.default_rng(3))
    assert first.p > 0.05
    assert second.p == 1 / 10000, "the least that 9,999 permutations can say"
    assert second.low < 0.5 * 0.65 < second.high
    assert second.cohort == Cohort.pooled([cohort("b", 60), cohort("c", 60)])
    again = neighbours(scores, [cohort(name, 60) for name in "abc"], np.random.default_rng(3))
    assert again == (first, second)
    shuffled = [generator.permutation(s) for s in scores]
    assert neighbours(shuffled, [cohort(name, 60) for name in "abc"], np.random.default_rng(3)) == (first, second)


def test_fisher_and_its_power() -> None:
    assert fisher_p(3, 10, 8, 10) == pytest.approx(fisher_exact([[3, 7], [8, 2]]).pvalue, abs=1e-12)
    # Published from 200 repetitions each: ± 3.5 points.
    assert [fisher_power(0.3, 0.6, n) for n in (10, 20, 50)] == pytest.approx([0.15, 0.34, 0.81], abs=0.035)
    assert fisher_power(0.5, 0.5, 20) <= 0.05
    # By brute force, with scipy's test for every table.
    n, power = 6, 0.0
    for i in range(n + 1):
        for j in range(n + 1):
            if fisher_p(i, n, j, n) <= 0.05:
                power += binom.pmf(i, n, 0.2) * binom.pmf(j, n, 0.9)
    assert fisher_power(0.2, 0.9, n) == pytest.approx(power, abs=1e-12)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        distance(np.array([]), np.array([1.0]), Kind.W1)
    with pytest.raises(ValueError, match="diverged"):
        distance(np.array([np.nan]), np.array([1.0]), Kind.W1)
