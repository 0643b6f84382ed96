"""Heights on lines: the three quantities on curves made by hand, and what the mean over pairs rests on."""

import numpy as np
import pytest

from orchestrator.estimates.barriers import heights, matrix_of, mean_over_pairs
from tests.calibration.cells import COHORT

EVEN = {5: np.linspace(0, 1, 5), 6: np.linspace(0, 1, 6)}


@pytest.mark.parametrize(
    ("losses", "barrier", "gap", "instability"),
    [
        ([0.4, 0.5, 0.9, 0.5, 0.6], 0.4, 0.433333, 0.4),
        ([0.4, 0.3, 0.2, 0.3, 0.5], 0.0, 0.0, 0.05),
        ([0.1, 0.5, 0.2, 0.6, 0.1, 0.3], 0.38, 0.5, 0.4),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 0.0, 0.0, 2.0),
        ([0.3, 0.3, 0.3, 0.3, 0.3], 0.0, 0.0, 0.0),
    ],
)
def test_three_quantities_that_are_not_the_same(
    losses: list[float], barrier: float, gap: float, instability: float
) -> None:
    found = heights(np.array([losses]), EVEN[len(losses)])
    assert found.barriers[0] == pytest.approx(barrier, abs=1e-6)
    assert found.gaps[0] == pytest.approx(gap, abs=1e-6)
    assert found.instabilities[0] == pytest.approx(instability, abs=1e-6)


def test_points_need_not_be_even_and_directions_do_not_matter() -> None:
    at = np.array([0.0, 0.1, 0.5, 1.0])
    losses = np.array([[0.0, 0.2, 0.4, 1.0]])
    assert heights(losses, at).barriers[0] == pytest.approx(0.1)
    back = heights(losses[:, ::-1], 1 - at[::-1])
    assert back.gaps[0] == pytest.approx(heights(losses, at).gaps[0])
    for wrong in ([0.0, 0.5], [0.1, 0.5, 0.9], [0.0, 0.6, 0.5, 1.0]):
        with pytest.raises(ValueError, match="line"):
            heights(np.zeros((1, len(wrong))), np.array(wrong))


def test_one_unit_bounds_nothing() -> None:
    siblings = mean_over_pairs(np.array([0.1, 0.2]), np.zeros((2, 2), np.int64), COHORT, "parent run")
    assert siblings.value == pytest.approx(0.15)
    assert not siblings.bounded
    assert "1 parent run" in siblings.note


def test_pairs_that_are_all_alike_give_no_interval() -> None:
    units = np.array([[0, 1], [0, 2], [1, 2]])
    found = mean_over_pairs(np.zeros(3), units, COHORT, "run", within=(0.0, np.inf))
    assert (found.value, found.low, found.high) == (0, 0, np.inf)
    assert "alike" in found.note


def test_pairs_within_units_are_students_interval_over_units() -> None:
    values, units = np.array([0.1, 0.3, 0.2, 0.4, 0.3, 0.5]), np.repeat([0, 1, 2], 2)[:, None].repeat(2, axis=1)
    found = mean_over_pairs(values, units, COHORT, "parent run")
    # Means .2, .3, .4: standard error .1/√3, t(2) = 4.302653.
    assert (found.low, found.high) == pytest.approx((0.3 - 4.302653 * 0.057735, 0.3 + 4.302653 * 0.057735), abs=1e-5)


def test_a_matrix_of_pairs() -> None:
    found = matrix_of(np.array([1.0, 2.0]), np.array([[0, 1], [2, 1]]), 3)
    assert found[1, 0] == 1
    assert found[1, 2] == 2
    assert np.isnan(found[0, 2])
    assert not found.diagonal().any()
