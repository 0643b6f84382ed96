"""Cohen's kappa between runs and over steps."""

import numpy as np
import pytest

from orchestrator.estimates.agreement import (
    agreement_over_steps,
    consistency_over_steps,
    kappa,
    kappa_matrix,
    self_consistency,
)
from orchestrator.estimates.estimate import Cohort

COHORT = Cohort.of(["a"], finished=1, diverged=0)


def test_a_worked_example() -> None:
    """Fleiss, Levin & Paik 2003, in the usual teaching table: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no."""
    one = np.repeat([1, 1, 0, 0], [20, 5, 10, 15])
    other = np.repeat([1, 0, 1, 0], [20, 5, 10, 15])
    assert kappa(one, other) == pytest.approx(0.4, abs=1e-12)


def test_three_categories_by_hand() -> None:
    one, other = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 1, 2, 0])
    # Observed 4/6; by chance (2·2 + 2·3 + 2·1)/36 = 1/3.
    assert kappa(one, other) == pytest.approx(0.5, abs=1e-12)


def test_matrix_is_symmetric_and_every_entry_is_the_pair() -> None:
    answers = np.random.default_rng(0).integers(-1, 4, (6, 50))
    matrix = kappa_matrix(answers)
    assert matrix == pytest.approx(matrix.T)
    assert np.diagonal(matrix) == pytest.approx(1)
    both = (answers[1] >= 0) & (answers[4] >= 0)
    one, other = answers[1][both], answers[4][both]
    chance = sum((one == c).mean() * (other == c).mean() for c in range(4))
    assert matrix[1, 4] == pytest.approx(((one == other).mean() - chance) / (1 - chance))


def test_independent_runs_agree_by_chance_alone() -> None:
    answers = np.random.default_rng(1).choice(3, (4, 40_000), p=[0.7, 0.2, 0.1])
    off = kappa_matrix(answers)[~np.eye(4, dtype=bool)]
    assert np.abs(off).max() < 0.02


def test_one_answer_to_everything_has_no_kappa() -> None:
    assert np.isnan(kappa(np.zeros(9, int), np.zeros(9, int)))
    assert kappa(np.zeros(9, int), np.arange(9) % 2) == pytest.approx(0)


def test_a_run_agrees_with_its_own_last_step_at_the_end() -> None:
    answers = np.stack([np.arange(12) % 3, np.arange(12) % 4 % 3, np.arange(12) % 2])
    found = self_consistency(answers)
    assert found[-1] == 1
    assert found[0] == pytest.approx(kappa(answers[0], answers[2]))


def made(runs: int, seed: int = 0) -> np.ndarray:
    """Return answers [run, step, item] that grow together: guesses, half of them right, all but a few right."""
    draw = np.random.default_rng(seed)
    truth = draw.integers(0, 4, 200)
    right = draw.random((runs, 3, 200)) < np.array([0.0, 0.5, 0.95])[:, None]
    return np.where(right, truth, draw.integers(0, 4, (runs, 3, 200)))


def test_agreement_rises_and_intervals_are_over_runs() -> None:
    found = agreement_over_steps(made(10), COHORT, np.random.default_rng(0))
    values = [estimate.value for estimate in found.median]
    assert values[0] == pytest.approx(0, abs=0.05)
    assert values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(0.93, abs=0.03)
    for estimate, (low, high) in zip(found.median, found.band, strict=True):
        assert estimate.low <= estimate.value <= estimate.high
        assert low <= estimate.value <= high
        assert estimate.unit == "run"
    again = agreement_over_steps(made(10), COHORT, np.random.default_rng(0))
    assert again.median == found.median


def test_more_items_do_not_narrow_what_few_runs_leave_open() -> None:
    """Each answered four times: the same runs, four times the items, the same interval."""
    answers = made(6)
    once = agreement_over_steps(answers, COHORT, np.random.default_rng(0))
    often = agreement_over_steps(np.tile(answers, 4), COHORT, np.random.default_rng(0))
    assert often.median[1].low == pytest.approx(once.median[1].low)
    assert often.median[1].high == pytest.approx(once.median[1].high)


def test_consistency_over_steps_ends_at_one() -> None:
    found = consistency_over_steps(made(7), COHORT, np.random.default_rng(0))
    assert found.runs.shape == (7, 3)
    assert (found.median[-1].value, found.median[-1].low, found.median[-1].high) == (1, 1, 1)
    assert found.median[0].value == pytest.approx(np.median(found.runs[:, 0]))


def test_a_step_that_nobody_answered_is_not_a_number() -> None:
    answers = made(4)
    answers[:, 0] = -1
    found = agreement_over_steps(answers, COHORT, np.random.default_rng(0))
    assert np.isnan(found.median[0].value)
    assert not np.isnan(found.median[1].value)
