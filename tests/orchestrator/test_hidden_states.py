"""The hidden Markov chain against reference values and brute force; fits that find what was put in."""

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.hidden_states import Padded, fit, standardise
from orchestrator.estimates.latent_chain import backward, forward, smoothed, viterbi
from orchestrator.estimates.state_choice import adjusted_rand, choose_states, one_standard_error

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())["hmm_umbrella"]
COHORT = Cohort.of(["a"], finished=1, diverged=0)


def test_the_umbrella_world() -> None:
    """Russell & Norvig 15.2: rain or not, an umbrella or not; seen: umbrella, umbrella, none, umbrella, umbrella."""
    moves = np.log([[0.7, 0.3], [0.3, 0.7]])
    umbrella = np.log([[0.9, 0.1], [0.2, 0.8]])
    emission = umbrella[:, [0, 0, 1, 0, 0]].T[:, None]
    start = np.log([0.5, 0.5])
    _, total = forward(start, moves, emission, np.array([5]))
    assert np.exp(total[0]) == pytest.approx(GOLDEN["P(obs)"], abs=1e-10)
    rain = smoothed(start, moves, emission, np.array([5]))[:, 0, 0]
    assert rain == pytest.approx(GOLDEN["smoothed"], abs=5e-5)
    assert viterbi(start, moves, emission, np.array([5]))[0].tolist() == [0, 0, 1, 0, 0]


def test_against_the_sum_over_all_paths() -> None:
    draw = np.random.default_rng(0)
    lengths = np.array([4, 2, 3])
    start, moves = np.log(draw.dirichlet(np.ones(3))), np.log(draw.dirichlet(np.ones(3), 3))
    emission = draw.normal(size=(4, 3, 3))
    alpha, total = forward(start, moves, emission, lengths)
    occupied, moved = backward(moves, emission, lengths, alpha, total)
    paths = viterbi(start, moves, emission, lengths)
    expected_moves = np.zeros((3, 3))
    for run, length in enumerate(lengths):
        weights = {}
        for path in product(range(3), repeat=int(length)):
            terms = [start[path[0]], *(moves[a, b] for a, b in pairwise(path))]
            weights[path] = sum(terms) + sum(emission[step, run, state] for step, state in enumerate(path))
        whole = np.logaddexp.reduce(list(weights.values()))
        assert total[run] == pytest.approx(whole, abs=1e-12)
        assert tuple(paths[run].tolist()) == max(weights, key=lambda path: weights[path])
        for step in range(4):
            for state in range(3):
                share = sum(np.exp(w - whole) for p, w in weights.items() if step < length and p[step] == state)
                assert occupied[step, run, state] == pytest.approx(share, abs=1e-12)
        for path, weight in weights.items():
            for a, b in pairwise(path):
                expected_moves[a, b] += np.exp(weight - whole)
    assert moved == pytest.approx(expected_moves, abs=1e-12)


def test_long_runs_do_not_underflow() -> None:
    emission = np.full((5000, 1, 2), -50.0)
    _, total = forward(np.log([0.5, 0.5]), np.log([[0.5, 0.5], [0.5, 0.5]]), emission, np.array([5000]))
    assert total[0] == pytest.approx(-250_000)


LEVELS = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])


def made(runs: int, seed: int, noise: float = 0.3) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return runs of 24 to 35 steps that go through three levels, and which level each step had."""
    draw = np.random.default_rng(seed)
    states, found = [], []
    for _ in range(runs):
        first, second = 8 + int(draw.integers(5)), 8 + int(draw.integers(5))
        path = np.repeat([0, 1, 2], [first, second, 8 + int(draw.integers(4))])
        states.append(path)
        found.append(LEVELS[path] + draw.normal(0, noise, (len(path), 2)))
    return found, states


def test_a_fit_finds_levels_paths_and_the_order() -> None:
    sequences, truth = made(8, seed=0)
    model = fit(Padded.of(sequences), 3, np.random.default_rng(0))
    assert model.is_converged
    assert model.means == pytest.approx(LEVELS, abs=0.15)
    assert np.sqrt(model.variances) == pytest.approx(0.3, abs=0.06)
    for found, expected in zip(model.paths(Padded.of(sequences)), truth, strict=True):
        assert found.tolist() == expected.tolist()
    assert model.restarts.max() == model.log_likelihood
    assert len(model.restarts) == 20
    assert model.score(Padded.of(sequences)).sum() == pytest.approx(model.log_likelihood, abs=1e-6)


def test_em_never_loses_likelihood_and_more_rounds_gain() -> None:
    sequences = Padded.of(made(5, seed=1, noise=1.5)[0])
    reached = [
        fit(sequences, 3, np.random.default_rng(0), 4, most_rounds=rounds, tolerance=0.0).restarts
        for rounds in (1, 2, 5, 20)
    ]
    for before, after in pairwise(reached):
        assert (after >= before - 1e-9).all()


def test_the_same_generator_gives_the_same_model_and_the_order_of_runs_the_same_likelihood() -> None:
    sequences, _ = made(5, seed=2)
    one = fit(Padded.of(sequences), 2, np.random.default_rng(7))
    again = fit(Padded.of(sequences), 2, np.random.default_rng(7))
    assert one.restarts.tolist() == again.restarts.tolist()
    turned = fit(Padded.of(sequences[::-1]), 2, np.random.default_rng(7))
    assert turned.log_likelihood == pytest.approx(one.log_likelihood, abs=0.05)


def test_left_to_right_never_goes_back() -> None:
    sequences, truth = made(6, seed=3)
    model = fit(Padded.of(sequences), 3, np.random.default_rng(0), left_to_right=True)
    assert np.tril(np.exp(model.log_transition), -1).max() == 0
    assert np.exp(model.log_start).tolist() == [1, 0, 0]
    assert model.parameters == 3 + 12
    assert [path.tolist() for path in model.paths(Padded.of(sequences))] == [path.tolist() for path in truth]


def test_missing_metrics_say_nothing() -> None:
    sequences, truth = made(8, seed=4)
    draw = np.random.default_rng(0)
    for run in sequences:
        run[draw.random(run.shape) < 0.2] = np.nan
    model = fit(Padded.of(sequences), 3, np.random.default_rng(0))
    assert model.means == pytest.approx(LEVELS, abs=0.2)
    right = np.concatenate(model.paths(Padded.of(sequences))) == np.concatenate(truth)
    assert right.mean() > 0.93


def test_z_scores_within_runs_and_over_the_cohort() -> None:
    one, other = np.array([[0.0, 5], [2, 5]]), np.array([[10.0, 7], [14, 7]])
    within = standardise([one, other])
    assert within[1].tolist() == [[-1, 0], [1, 0]]
    whole = np.concatenate(standardise([one, other], over="cohort"))
    assert whole.mean(axis=0) == pytest.approx([0, 0])
    assert whole.std(axis=0) == pytest.approx([1, 1])
    with pytest.raises(ValueError, match="over each run or over the cohort"):
        standardise([one], over="steps")


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([np.zeros((3, 2)), np.zeros((3, 1))], "same metrics"),
        ([np.zeros((0, 2))], "no step"),
        ([np.full((3, 2), np.inf)], "infinite"),
    ],
)
def test_what_is_no_sequence_is_refused(sequences: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Padded.of(sequences)


def test_left_out_runs_choose_the_number_of_states() -> None:
    sequences, _ = made(6, seed=5)
    found = choose_states(Padded.of(sequences), COHORT, np.random.default_rng(0), (1, 2, 3, 4))
    assert found.states == 3
    assert found.predicted.shape == (4, 6)
    assert (found.predicted[2] > found.predicted[1]).all()
    assert found.ari_left_out.min() == 1
    assert found.ari_restarts == 1
    without = choose_states(Padded.of(sequences), COHORT, np.random.default_rng(0), (2, 3))
    assert without.predicted.tolist() == found.predicted[1:3].tolist()


def test_one_standard_error_takes_the_simplest_that_is_not_clearly_worse() -> None:
    predicted = np.array([[0.0, 0, 0, 0], [9, 11, 10, 10], [10, 10.5, 10.4, 9.5]])
    assert one_standard_error(predicted)[:2] == (1, 2)
    assert one_standard_error(predicted[:1])[:2] == (0, 0)


def test_adjusted_rand() -> None:
    one = np.array([0, 0, 1, 1, 2, 2])
    assert adjusted_rand(one, np.array([5, 5, 3, 3, 9, 9])) == 1
    # scikit-learn's example: [0, 0, 1, 2] and [0, 0, 1, 1].
    assert adjusted_rand(np.array([0, 0, 1, 2]), np.array([0, 0, 1, 1])) == pytest.approx(0.571428571)
    draw = np.random.default_rng(0)
    assert abs(adjusted_rand(draw.integers(0, 3, 3000), draw.integers(0, 3, 3000))) < 0.01
