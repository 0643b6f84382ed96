"""How many latent states, and how stable they are.

The number is chosen by what runs that were left out have to say: every run is predicted by a model that was fitted to
the others, and the smallest number of states is taken whose prediction is within one standard error of the best (of
the differences between the two, run by run: the same runs are behind both). BIC is not asked: on real metrics it
falls and falls with every state that is added. Stability is the adjusted Rand index of paths: between the restarts,
and between the model of all runs and those that did not see the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.hidden_states import RESTARTS, HiddenStates, Padded, fit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StateChoice:
    """The number of states that predicts left-out runs, and the model of all runs with it.

    tried       numbers of states, ascending
    predicted   [number, run]: log-likelihood of each run under the model of the others
    mean        [number], of `predicted` over runs
    behind      [number]: standard error of the difference to the best number
    best        the number that predicts best; `states` is the smallest within one standard error of it
    ari_left_out  [run]: of its path by the model of all and by the model of the others
    ari_restarts  of the paths of all runs by a second, independent search; 1: the states are no accident of the start
    """

    states: int
    best: int
    tried: tuple[int, ...]
    predicted: Floats
    mean: Floats
    behind: Floats
    model: HiddenStates
    ari_left_out: Floats
    ari_restarts: float
    cohort: Cohort
    method: str = "leave one run out, one standard error"
    unit: str = "run"
    stopping_rule: str = FIXED


def choose_states(
    sequences: Padded,
    cohort: Cohort,
    rng: np.random.Generator,
    tried: Sequence[int] = (1, 2, 3, 4, 5, 6),
    restarts: int = RESTARTS,
    *,
    left_to_right: bool = False,
) -> StateChoice:
    """Return how many states predict a run that was left out; raises ValueError below 3 runs.

    Costs runs × numbers fits; every fit has a generator of its own, so a number that is added changes no other.
    """
    runs = len(sequences.lengths)
    if runs < 3:
        raise ValueError(f"{runs} runs: leaving one out needs at least 3")
    numbers = tuple(sorted(set(tried)))
    seed = int(rng.integers(2**63))
    fits = [
        [_fit(sequences.runs(_others(runs, out)), k, seed, out, restarts, left_to_right) for out in range(runs)]
        for k in numbers
    ]
    predicted = np.array(
        [[model.score(sequences.runs(np.array([out])))[0] for out, model in enumerate(row)] for row in fits]
    )
    chosen, best, behind = one_standard_error(predicted)
    k = numbers[chosen]
    model, again = (_fit(sequences, k, seed, runs + extra, restarts, left_to_right) for extra in (0, 1))
    paths = model.paths(sequences)
    left_out = [
        adjusted_rand(paths[out], other.paths(sequences.runs(np.array([out])))[0])
        for out, other in enumerate(fits[chosen])
    ]
    return StateChoice(
        states=k,
        best=numbers[best],
        tried=numbers,
        predicted=predicted,
        mean=predicted.mean(axis=1),
        behind=behind,
        model=model,
        ari_left_out=np.array(left_out),
        ari_restarts=adjusted_rand(np.concatenate(paths), np.concatenate(again.paths(sequences))),
        cohort=cohort,
    )


def one_standard_error(predicted: Floats) -> tuple[int, int, Floats]:
    """Return the first row within one standard error of the best, the best, and [row] standard errors to it.

    predicted  [model, run], models from simple to complex
    """
    best = int(predicted.mean(axis=1).argmax())
    lost = predicted[best] - predicted
    error = lost.std(axis=1, ddof=1) / sqrt(predicted.shape[1])
    return int(np.argmax(lost.mean(axis=1) <= error)), best, np.asarray(error, float)


def adjusted_rand(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the adjusted Rand index of two labellings: 1 equal up to names, 0 as by chance (Hubert & Arabie 1985)."""
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} labels")
    _, rows = np.unique(one, return_inverse=True)
    _, columns = np.unique(other, return_inverse=True)
    table = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1))
    np.add.at(table, (rows, columns), 1)
    both, of_rows, of_columns = (_pairs(part) for part in (table, table.sum(axis=1), table.sum(axis=0)))
    expected = of_rows * of_columns / max(_pairs(np.array([float(len(one))])), 1)
    largest = (of_rows + of_columns) / 2
    return 1.0 if largest == expected else (both - expected) / (largest - expected)


def _pairs(counts: Floats) -> float:
    return float((counts * (counts - 1) / 2).sum())


def _others(runs: int, out: int) -> NDArray[np.int64]:
    return np.delete(np.arange(runs), out)


def _fit(sequences: Padded, states: int, seed: int, part: int, restarts: int, left_to_right: bool) -> HiddenStates:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(states, part)))
    return fit(sequences, states, rng, restarts, left_to_right=left_to_right)
