"""The break statistic on curves with known answers, and the gate that says whether there was a breakthrough."""

from math import inf, isnan, log, sqrt

import numpy as np
import pytest

from orchestrator.estimates.breaks import break_of, breakthrough, refined, resampled
from orchestrator.estimates.onset import Bracket, onset

EVEN = np.arange(0, 1001, 10)
PYTHIA_LIKE = np.unique(np.concatenate([[0], 2 ** np.arange(10), np.arange(1000, 20001, 1000)]))


def logistic(steps: np.ndarray, middle: float, width: float) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-(steps - middle) / width)))


@pytest.mark.parametrize(("window", "step"), [(10, 450), (50, 440), (100, 430), (200, 380)])
def test_the_break_of_a_logistic_is_the_reference(window: int, step: int) -> None:
    found = break_of(EVEN, logistic(EVEN, 500, 40), window, 1, "up")
    assert found.step == step
    assert found.half_rise == 500
    assert (found.window, found.smoothing, found.direction) == (window, 1, "up")
    assert (found.grid[0], found.grid[-1]) == (window, 1000 - window), "no onset sooner than the window can be told"
    fall = break_of(EVEN, 3 - 2 * logistic(EVEN, 500, 40), window, 1, "down")
    assert (fall.step, fall.half_rise) == (step, 500), "a falling loss, in its own direction"
    wrong = break_of(EVEN, 3 - 2 * logistic(EVEN, 500, 40), window, 1, "up")
    assert wrong.step == 1000 - step, "in the printed direction it is the end of the drop"


def test_small_windows_approach_the_point_of_largest_acceleration() -> None:
    fine = np.arange(0, 1001)
    assert abs(break_of(fine, logistic(fine, 500, 40), 1, 1, "up").step - (500 - 40 * log(2 + sqrt(3)))) <= 1


def test_smoothing_by_hand() -> None:
    steps, values = np.arange(5), np.array([0.0, 0, 3, 0, 0])
    assert break_of(steps, values, 1, 1, "up").acceleration == 3
    # Averages of three inside, of one at the ends: 0, 1, 1, 1, 0.
    assert break_of(steps, values, 1, 3, "up").acceleration == 0


def test_uneven_grids_are_refused_and_can_be_resampled() -> None:
    curve = logistic(PYTHIA_LIKE, 8000, 700)
    with pytest.raises(ValueError, match="resample"):
        break_of(PYTHIA_LIKE, curve, 300, 1, "up")
    grid, even = resampled(PYTHIA_LIKE, curve, 500)
    assert even[grid == 8000] == pytest.approx(0.5)
    assert abs(break_of(grid, even, 1000, 1, "up").step - 7000) <= 500
    for window, smoothing in [(0, 1), (10, 2), (10, 999)]:
        with pytest.raises(ValueError, match="odd number"):
            break_of(EVEN, logistic(EVEN, 500, 40), window, smoothing, "up")
    with pytest.raises(ValueError, match="finite"):
        break_of(EVEN, np.where(EVEN == 50, inf, 0.0), 10, 1, "up")


def declared(kind: str, grid: np.ndarray, noise: float) -> int:
    """Return how often of 100 a breakthrough is declared."""
    generator = np.random.default_rng(11)
    count = 0
    for _ in range(100):
        if kind == "flat":
            curve = np.full(len(grid), 0.3)
        elif kind == "log-linear":
            curve = 0.1 + 0.08 * np.log1p(grid)
        else:
            curve = 0.1 + 0.8 * logistic(grid, generator.uniform(0.3, 0.7) * grid[-1], 300)
        count += breakthrough(grid, curve + generator.normal(0, noise, len(grid))).declared
    return count


@pytest.mark.parametrize("noise", [0.02, 0.08])
def test_the_gate_never_opens_for_flat_or_steady_curves_and_does_for_steps(noise: float) -> None:
    assert declared("flat", PYTHIA_LIKE, noise) == 0
    assert declared("log-linear", PYTHIA_LIKE, noise) == 0
    assert declared("step", PYTHIA_LIKE, noise) == 100


def test_curves_without_noise() -> None:
    step = breakthrough(EVEN, 0.2 + 0.7 * logistic(EVEN, 400, 30))
    assert step.declared
    assert (step.midpoint, step.width, step.floor, step.rise) == pytest.approx((400, 30, 0.2, 0.7), rel=1e-4)
    fall = breakthrough(EVEN, 4 - 3 * logistic(EVEN, 400, 30))
    assert fall.rise == pytest.approx(-3, rel=1e-4)
    jump = breakthrough(EVEN, (EVEN >= 400).astype(float))
    assert jump.declared
    assert 390 <= jump.midpoint <= 400
    assert not breakthrough(EVEN, np.full(len(EVEN), 0.5)).declared
    steady = breakthrough(EVEN, 0.1 * np.log1p(EVEN))
    assert not steady.declared
    assert isnan(steady.midpoint)
    with pytest.raises(ValueError, match="8 probes"):
        breakthrough(np.arange(5), np.arange(5.0))


def test_the_sigmoid_refines_the_bracket_and_never_leaves_it() -> None:
    generator = np.random.default_rng(2)
    errors = {"interpolated": [], "sigmoid": [], "first probe": []}  # type: dict[str, list[float]]
    for _ in range(60):
        middle = generator.uniform(5000, 15000)
        curve = logistic(PYTHIA_LIKE, middle, 300) + generator.normal(0, 0.02, len(PYTHIA_LIKE))
        bracket = onset(PYTHIA_LIKE, curve, 0.5, 3)
        found = refined(bracket, PYTHIA_LIKE, curve, 0.5)
        assert bracket.low <= found.interpolated <= bracket.high
        errors["interpolated"].append(found.interpolated - middle)
        errors["first probe"].append(bracket.high - middle)
        if not isnan(found.sigmoid):
            assert bracket.low < found.sigmoid <= bracket.high
            errors["sigmoid"].append(found.sigmoid - middle)
    rmse = {name: float(np.sqrt(np.mean(np.square(of)))) for name, of in errors.items()}
    assert len(errors["sigmoid"]) >= 55
    assert rmse["sigmoid"] < rmse["interpolated"] < rmse["first probe"] / 3
    assert isnan(refined(Bracket(inf, 100), PYTHIA_LIKE, curve, 0.5).interpolated)
