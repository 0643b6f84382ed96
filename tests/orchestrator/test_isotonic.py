"""Order alone: pooling against scipy's, and the three checks of shape."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import isotonic_regression
from scipy.special import expit

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.firth import Counts
from orchestrator.estimates.isotonic import pool, shape_check

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())
COHORT = Cohort("c", 120, 120, 0, 0)
X = np.arange(6) * np.log10(2)


def counts(*k: float, n: float = 20) -> Counts:
    return Counts(X[: len(k)], np.array([k], float), np.full((1, len(k)), n))


def test_reference_values() -> None:
    golden = GOLDEN["pava"]
    assert pool(np.array([golden["in"]]), np.ones((1, 4)))[0] == pytest.approx(golden["out"])


def test_pooling_is_that_of_another_implementation_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    shares, weights = rng.random((50, 7)), rng.integers(1, 30, (50, 7)).astype(float)
    for increasing in (True, False):
        found = pool(shares, weights, increasing)
        for row in range(50):
            other = isotonic_regression(shares[row], weights=weights[row], increasing=increasing).x
            assert found[row] == pytest.approx(other, abs=1e-12)


def test_shapes_that_are_wrong_have_small_p_and_right_ones_do_not() -> None:
    plateau = shape_check(counts(0, 2, 12, 16, 15, 16), COHORT, np.random.default_rng(1))
    assert plateau.p_increasing > 0.2
    assert plateau.p_decreasing == pytest.approx(1 / 1000)
    assert plateau.p_logistic < 0.05, "two parameters do not level off at .8"
    hump = shape_check(counts(0, 9, 18, 14, 6, 2), COHORT, np.random.default_rng(1))
    assert max(hump.p_increasing, hump.p_decreasing, hump.p_logistic) < 0.01
    steep = shape_check(counts(0, 1, 6, 15, 19, 20), COHORT, np.random.default_rng(1))
    assert min(steep.p_increasing, steep.p_logistic) > 0.2
    assert (np.diff(plateau.increasing) >= 0).all()
    assert (np.diff(plateau.decreasing) <= 0).all()


def test_the_check_of_the_logistic_errs_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    p = expit(8 * (X - 0.7))
    runs = np.full((1, 6), 20.0)
    data = [Counts(X, rng.binomial(20, p)[None].astype(float), runs) for _ in range(200)]
    small = [shape_check(one, COHORT, rng, 99).p_logistic for one in data]
    assert np.mean(np.array(small) <= 0.05) < 0.1


def test_the_same_generator_gives_the_same_p() -> None:
    first, second = (shape_check(counts(0, 2, 9, 15, 16, 15), COHORT, np.random.default_rng(4), 99) for _ in range(2))
    assert (first.p_increasing, first.p_decreasing, first.p_logistic) == (
        second.p_increasing, second.p_decreasing, second.p_logistic,
    )  # fmt: skip
