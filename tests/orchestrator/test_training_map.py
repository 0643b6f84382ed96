"""Training maps: moves, detours, drivers, and names that do not matter."""

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.hidden_states import Padded, fit
from orchestrator.estimates.training_map import correlation_p, drivers, training_map

COHORT = Cohort.of(["a"], finished=1, diverged=0)


@pytest.mark.parametrize(
    ("r", "n", "p", "tolerance"),
    [
        (0.4869906827595754, 40, 0.001438745731381, 1e-12),
        (-0.8203864115241618, 40, 9.238e-11, 1e-13),
        (0.37528728341108014, 40, 0.0170230755, 1e-9),
    ],
)
def test_p_of_a_correlation(r: float, n: int, p: float, tolerance: float) -> None:
    """The published maps print 1.9999 for the second: 2 (1 - cdf(t)) without |t|."""
    assert correlation_p(r, n) == pytest.approx(p, abs=tolerance)


def paths() -> tuple[list[np.ndarray], np.ndarray]:
    """Return 20 runs through 0 → 1 → 3; eight of them through 2 in between, which takes 10 steps more."""
    draw = np.random.default_rng(0)
    found, times = [], []
    for run in range(20):
        first, second = 5 + int(draw.integers(3)), 5 + int(draw.integers(3))
        lag = 10 if run < 8 else 0
        found.append(np.repeat([0, 1, 2, 3], [first, second, lag, 40 - first - second - lag]))
        times.append(first + second + lag)
    return found, np.array(times, float)


def test_the_detour_is_found_and_costs_what_it_costs() -> None:
    runs, times = paths()
    found = training_map(runs, 4, times, np.ones(20, bool), COHORT)
    assert found.detours == (2,)
    detour = found.states[2]
    assert (detour.visitors, detour.successful_visitors, detour.steps) == (8, 8, 10)
    assert detour.time_of_visitors - detour.time_of_others == pytest.approx(10, abs=1.5)
    assert np.isnan(found.states[0].correlation)
    assert found.explained > 0.9
    assert found.sequences_of_states == (((0, 1, 3), 12), ((0, 1, 2, 3), 8))
    assert [(m.source, m.target, m.runs) for m in found.moves] == [(0, 1, 20), (1, 2, 8), (1, 3, 12), (2, 3, 8)]


def test_a_side_road_that_costs_nothing_is_no_detour_and_neither_is_a_dead_end() -> None:
    runs, times = paths()
    shuffled = np.random.default_rng(1).permutation(times)
    assert training_map(runs, 4, shuffled, np.ones(20, bool), COHORT).detours == ()
    nobody_gets_through = np.arange(20) >= 8
    assert training_map(runs, 4, times, nobody_gets_through, COHORT).detours == ()


def test_names_of_states_do_not_matter() -> None:
    runs, times = paths()
    names = np.array([2, 0, 3, 1])
    one = training_map(runs, 4, times, np.ones(20, bool), COHORT)
    other = training_map([names[run] for run in runs], 4, times, np.ones(20, bool), COHORT)
    assert other.detours == (3,)
    assert other.explained == pytest.approx(one.explained)
    assert sorted((names[m.source], names[m.target], m.runs, m.step) for m in one.moves) == [
        (m.source, m.target, m.runs, m.step) for m in other.moves
    ]


def test_a_run_that_never_converged_is_the_latest() -> None:
    runs, times = paths()
    times[0] = np.nan
    found = training_map(runs, 4, times, np.arange(20) > 0, COHORT)
    assert found.states[2].time_of_visitors == pytest.approx(np.r_[np.nanmax(times), times[1:8]].mean())
    assert found.states[2].successful_visitors == 7


def test_the_metric_that_changes_drives_the_move() -> None:
    draw = np.random.default_rng(2)
    sequences = []
    for _ in range(6):
        path = np.repeat([0, 1], [10 + int(draw.integers(4)), 12])
        sequences.append(
            np.stack([draw.normal(size=len(path)), -4.0 * path], axis=1) + draw.normal(0, 0.3, (len(path), 2))
        )
    padded = Padded.of(sequences)
    model = fit(padded, 2, np.random.default_rng(0))
    found = drivers(model, padded, ["norm", "loss"], 0, 1)
    assert [driver.metric for driver in found] == ["loss", "norm"]
    assert found[0].weight < 0 > found[0].change
    assert drivers(model, padded, ["norm", "loss"], 1, 0) == ()


def test_cohorts_that_do_not_fit_are_refused() -> None:
    runs, times = paths()
    with pytest.raises(ValueError, match="not of one cohort"):
        training_map(runs, 4, times[:3], np.ones(20, bool), COHORT)
