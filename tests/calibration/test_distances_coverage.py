"""Is the permutation p of a distance right when nothing moved, and is its bootstrap interval no test?"""

import numpy as np
import pytest

from orchestrator.estimates.distances import Kind, bootstrap_interval, compare, distance, distances, fisher_p
from tests.calibration.cells import COHORT, Judge, Record


def bimodal(generator: np.random.Generator, share: float, runs: int) -> np.ndarray:
    success = generator.uniform(size=runs) < share
    return np.where(success, 0.9, 0.3) + generator.normal(0, 0.05, runs)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_false_positives(n: int, kind: Kind, judge: Judge) -> None:
    generator = np.random.default_rng(0)
    ps = [
        compare(bimodal(generator, 0.4, n), bimodal(generator, 0.4, n), COHORT, generator, kind, 199, 1).p
        for _ in range(judge.repetitions)
    ]
    # KS, and all of them at 5 runs, take few values: their p is then larger than needed.
    few_values = kind is Kind.KS or n == 5
    judge.passes(f"{kind.value}, permutation p", "bimodal, no change", n, Record.of_test(np.array(ps)), few_values)


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


@pytest.mark.parametrize("n", [10, 20, 50])
def test_the_size_of_a_real_difference_is_covered(n: int, judge: Judge) -> None:
    generator = np.random.default_rng(3)
    truth = 0.5 * 0.6
    large = distance(bimodal(generator, 0.2, 100000), bimodal(generator, 0.7, 100000), Kind.W1)
    assert large == pytest.approx(truth, abs=0.01)
    bounds = [
        bootstrap_interval(bimodal(generator, 0.2, n), bimodal(generator, 0.7, n), generator, Kind.W1, 400, 0.95)
        for _ in range(judge.repetitions)
    ]
    record = Record.of(*np.array(bounds).T, truth)
    judge.passes("w1, expanded percentiles", "bimodal, P .2 and .7", n, record, conservative=n == 50, lopsided=0.06)


def test_the_bootstrap_interval_as_a_test_of_no_change(judge: Judge) -> None:
    generator = np.random.default_rng(4)
    bounds = [
        bootstrap_interval(bimodal(generator, 0.4, 20), bimodal(generator, 0.4, 20), generator, Kind.W1, 200, 0.95)
        for _ in range(judge.repetitions)
    ]
    judge.fails("w1, interval as a test", "bimodal, no change", 20, Record.of(*np.array(bounds).T, 1e-9))


def test_the_bias_of_a_plain_distance_is_as_published() -> None:
    generator = np.random.default_rng(5)
    means = []
    for n in (10, 20, 50):
        a, b = (bimodal(generator, 0.4, 2000 * n).reshape(2000, n) for _ in range(2))
        means.append(float(distances(a, b, Kind.W1).mean()))
    assert means == pytest.approx([0.153, 0.106, 0.069], rel=0.25), "of another bimodal law: the order of size"
