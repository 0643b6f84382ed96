"""The dip: reference values, and its definition solved as linear programmes."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog

from orchestrator.estimates.dip import dip, dip_null, dip_test
from orchestrator.estimates.estimate import Cohort

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())
COHORT = Cohort("c", 20, 20, 0, 0)


def test_reference_values() -> None:
    golden = GOLDEN["dip"]
    assert dip(np.repeat([0.0, 1.0], [16, 4])) == pytest.approx(golden["16/4"])
    assert dip(np.repeat([0.0, 1.0], [10, 10])) == pytest.approx(golden["10/10"])
    assert dip(np.arange(100.0)) == pytest.approx(golden["uniform_grid_n100"])
    assert dip(np.arange(4.0)) == 0.125, "the least, 1/(2n)"


def nearest_single_mode(values: np.ndarray) -> float:
    """Return the least sup |F - G| over distributions G with one mode: convex before a value, concave after."""
    places, sizes = np.unique(values, return_counts=True)
    after = np.cumsum(sizes) / len(values)
    before, best = after - sizes / len(values), 1.0
    for mode in range(len(places)):
        # Unknown: G at places[: mode + 1] before the mode's own jump, at places[mode:] after it, and the distance.
        at = np.concatenate([places[: mode + 1], places[mode:]])
        upper = np.concatenate([before[: mode + 1], after[mode : mode + 1], before[mode + 1 :]])
        lower = np.concatenate([after[:mode], before[mode : mode + 1], after[mode:]])
        size, rows, bounds = len(at), [], []
        eye = np.eye(size + 1)
        for i in range(size):
            rows += [eye[i] - eye[size], -eye[i] - eye[size]]
            bounds += [upper[i], -lower[i]]
        for i in range(size - 1):
            rows.append(eye[i] - eye[i + 1])
            bounds.append(0.0)
        for i in range(1, size - 1):
            if i in (mode, mode + 1):
                continue
            bend = (eye[i] - eye[i - 1]) / (at[i] - at[i - 1]) - (eye[i + 1] - eye[i]) / (at[i + 1] - at[i])
            rows.append(bend if i < mode else -bend)
            bounds.append(0.0)
        best = min(best, linprog(eye[size], A_ub=np.array(rows), b_ub=bounds, bounds=[(0, 1)] * (size + 1)).fun)
    return best


def test_it_is_the_distance_to_the_nearest_single_mode() -> None:
    rng = np.random.default_rng(0)
    samples = [rng.normal(size=n) for n in (3, 6, 9, 12)]
    samples += [rng.integers(0, 6, n).astype(float) for n in (5, 9, 14)]
    samples += [np.concatenate([rng.normal(size=n), rng.normal(4, 1, n)]) for n in (3, 5, 7)]
    for sample in samples:
        assert dip(sample) == pytest.approx(nearest_single_mode(sample), abs=1e-9)


def test_p_of_two_far_modes_is_small_of_one_is_not_and_of_uneven_modes_is_not_either() -> None:
    rng = np.random.default_rng(2)
    even = np.concatenate([rng.normal(0, 1, 10), rng.normal(9, 1, 10)])
    assert dip_test(even, COHORT, np.random.default_rng(1), 299).p < 0.02
    assert dip_test(rng.normal(size=20), COHORT, np.random.default_rng(1), 299).p > 0.1
    uneven = np.concatenate([rng.normal(0, 1, 18), rng.normal(9, 1, 2)])
    assert dip_test(uneven, COHORT, np.random.default_rng(1), 299).p > 0.1, "why it is a second opinion"


def test_order_scale_and_generator() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=15)
    assert dip(x) == pytest.approx(dip(rng.permutation(x)))
    assert dip(x) == pytest.approx(dip(-3 * x + 7), abs=1e-12)
    assert (dip_null(9, np.random.default_rng(1), 20) == dip_null(9, np.random.default_rng(1), 20)).all()
    with pytest.raises(ValueError, match="finite"):
        dip(np.array([1.0, np.nan]))
