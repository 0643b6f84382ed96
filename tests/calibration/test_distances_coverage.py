"""Is the permutation p of a distance right when nothing moved, and is its bootstrap interval no test?"""

import numpy as np
import pytest

from orchestrator.estimates.distances import Kind, bootstrap_interval, compare, distance, distances, fisher_p
from orchestrator.estimates.estimate import Cohort

pytestmark = pytest.mark.timeout(1800)  # the full repetitions, on a busy machine
COHORT = Cohort.of(["a"], finished=1, diverged=0)
REPEATS = [
    pytest.param(500, (0.02, 0.08), id="reduced"),
    pytest.param(2000, (0.03, 0.07), id="full", marks=pytest.mark.slow),
]


def bimodal(generator: np.random.Generator, share: float, runs: int) -> np.ndarray:
    success = generator.uniform(size=runs) < share
    return np.where(success, 0.9, 0.3) + generator.normal(0, 0.05, runs)


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("n", [10, 20, 50])
def test_false_positives(n: int, kind: Kind, repetitions: int, band: tuple[float, float]) -> None:
    generator = np.random.default_rng(0)
    ps = np.array(
        [
            compare(bimodal(generator, 0.4, n), bimodal(generator, 0.4, n), COHORT, generator, kind, 199, 1).p
            for _ in range(repetitions)
        ]
    )
    rejected = float((ps <= 0.05).mean())
    # KS takes few values: its p is then larger than needed, and it errs less.
    assert (0.0 if kind is Kind.KS else band[0]) <= rejected <= band[1]


@pytest.mark.parametrize("n", [20, 50])
def test_it_sees_what_is_there(n: int) -> None:
    generator = np.random.default_rng(1)
    power = {20: 0.49, 50: 0.82}[n]
    found = [
        compare(bimodal(generator, 0.3, n), bimodal(generator, 0.6, n), COHORT, generator, Kind.W1, 199, 1).p <= 0.05
        for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(power, abs=0.1), "published from 200 repetitions of another bimodal law"


def test_fisher_errs_at_most_at_its_level() -> None:
    generator = np.random.default_rng(2)
    counts = generator.binomial(20, 0.4, (500, 2))
    assert np.mean([fisher_p(a, 20, b, 20) <= 0.05 for a, b in counts]) <= 0.05


def test_the_size_of_a_real_difference_is_covered() -> None:
    generator = np.random.default_rng(3)
    truth = 0.5 * 0.6
    large = distance(bimodal(generator, 0.2, 100000), bimodal(generator, 0.7, 100000), Kind.W1)
    assert large == pytest.approx(truth, abs=0.01)
    covered = 0
    for _ in range(500):
        a, b = bimodal(generator, 0.2, 50), bimodal(generator, 0.7, 50)
        low, high = bootstrap_interval(a, b, generator, Kind.W1, 400, 0.95)
        covered += low <= truth <= high
    assert 0.92 <= covered / 500 <= 0.98


@pytest.mark.xfail(reason="a distance of two samples is never 0, nor is that of resampled ones", raises=AssertionError)
def test_the_bootstrap_interval_as_a_test_of_no_change() -> None:
    generator = np.random.default_rng(4)
    holds = 0
    for _ in range(500):
        a, b = bimodal(generator, 0.4, 20), bimodal(generator, 0.4, 20)
        holds += bootstrap_interval(a, b, generator, Kind.W1, 200, 0.95)[0] <= 1e-9
    assert holds / 500 >= 0.92


def test_the_bias_of_a_plain_distance_is_as_published() -> None:
    generator = np.random.default_rng(5)
    means = []
    for n in (10, 20, 50):
        a, b = (bimodal(generator, 0.4, 2000 * n).reshape(2000, n) for _ in range(2))
        means.append(float(distances(a, b, Kind.W1).mean()))
    assert means == pytest.approx([0.153, 0.106, 0.069], rel=0.25), "of another bimodal law: the order of size"
