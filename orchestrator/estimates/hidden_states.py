"""Latent states of training: a Gaussian hidden Markov model over sequences of metrics, one sequence per run.

Diagonal covariances; a state may be any of the phases that training passes through (Hu, Chen, Saphra & Cho 2023). All
restarts are fitted together, in log space, over padded sequences of unequal length; a metric that is missing at a step
says nothing there. The likelihood has many maxima (restarts differed by 230 to 2,300 log units on real runs), so there
are at least 20 restarts and each one's likelihood is kept. A chain knows no time between its steps: give it steps that
are evenly spaced, or evenly spaced in log.

Not here: how many states there are (`state_choice.py`), and what they say (`training_map.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.latent_chain import NEVER, Path, backward, forward, smoothed, viterbi

Floats = NDArray[np.float64]
RESTARTS = 20
# Variances in units of z-scores; without a floor one point becomes a state of infinite likelihood.
_LEAST_VARIANCE = 1e-3
_STICKY = 0.8  # chance of staying, at the start of a fit


@dataclass(frozen=True, slots=True)
class HiddenStates:
    """A fitted model; states are in the order in which runs enter them.

    log_start        [state]
    log_transition   [state, state], from row to column
    means, variances [state, metric], in the units of the sequences
    log_likelihood   of the sequences it was fitted to
    restarts         [restart]: the log-likelihood that each restart ended with, in the order of the restarts
    is_converged     the best restart gained less than the tolerance in its last round
    """

    log_start: Floats
    log_transition: Floats
    means: Floats
    variances: Floats
    log_likelihood: float
    restarts: Floats
    is_converged: bool
    is_left_to_right: bool

    @property
    def states(self) -> int:
        """Return the number of states."""
        return len(self.log_start)

    @property
    def parameters(self) -> int:
        """Return the number of free parameters: K² - 1 + 2 K d, fewer from left to right."""
        k = self.states
        moves = k * (k - 1) // 2 if self.is_left_to_right else k * k - 1
        return moves + 2 * self.means.size

    def log_emission(self, sequences: "Padded") -> Floats:
        """Return [step, run, state]."""
        return _log_emission(sequences, self.means[None], self.variances[None])[:, 0]

    def score(self, sequences: "Padded") -> Floats:
        """Return the log-likelihood of each run [run]."""
        emission = self.log_emission(sequences)
        return forward(self.log_start, self.log_transition, emission, sequences.lengths)[1]

    def posteriors(self, sequences: "Padded") -> Floats:
        """Return P(state | the whole run) as [step, run, state]; 0 after a run's end."""
        emission = self.log_emission(sequences)
        return smoothed(self.log_start, self.log_transition, emission, sequences.lengths)

    def paths(self, sequences: "Padded") -> list[Path]:
        """Return each run's most probable path of states (Viterbi)."""
        return viterbi(self.log_start, self.log_transition, self.log_emission(sequences), sequences.lengths)


@dataclass(frozen=True, slots=True)
class Padded:
    """Runs of unequal length, padded: values [step, run, metric], 0 where nothing was measured; there says where."""

    values: Floats
    there: Floats
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Sequence[Floats]) -> "Padded":
        """Return sequences [step, metric], one per run, NaN where a metric is missing; raises ValueError."""
        widths = {np.asarray(run).shape[1:] for run in sequences}
        if len(widths) != 1 or len(next(iter(widths))) != 1:
            raise ValueError("sequences are [step, metric], all with the same metrics")
        lengths = np.array([len(run) for run in sequences], np.int64)
        if lengths.min() < 1:
            raise ValueError("a run has no step: leave it out")
        values = np.full((int(lengths.max()), len(sequences), *next(iter(widths))), np.nan)
        for index, run in enumerate(sequences):
            values[: len(run), index] = run
        if np.isinf(values).any():
            raise ValueError("a metric is infinite: end a diverged run before that")
        return cls(np.nan_to_num(values), (~np.isnan(values)).astype(float), lengths)

    def runs(self, chosen: NDArray[np.int64]) -> "Padded":
        """Return some of the runs."""
        longest = int(self.lengths[chosen].max())
        return Padded(self.values[:longest, chosen], self.there[:longest, chosen], self.lengths[chosen])

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Return [step, run]: whether the run was still there."""
        return np.asarray(np.arange(len(self.values))[:, None] < self.lengths)


def standardise(sequences: Sequence[Floats], over: str = "run") -> list[Floats]:
    """Return the sequences as z-scores, by the mean and deviation of each `run` (Hu et al.) or of the whole `cohort`.

    Within runs, states are phases of a run's own course; over the cohort, runs at another level are in other states.
    A metric without spread becomes 0.
    """
    if over not in ("run", "cohort"):
        raise ValueError(f"z-scores are over each run or over the cohort, not {over!r}")
    groups = [np.concatenate(list(sequences))] * len(sequences) if over == "cohort" else sequences
    found = []
    for run, group in zip(sequences, groups, strict=True):
        there = ~np.isnan(group)
        count = np.maximum(there.sum(axis=0), 1)
        mean = np.where(there, group, 0).sum(axis=0) / count
        spread = np.sqrt(np.where(there, (group - mean) ** 2, 0).sum(axis=0) / count)
        # Rounding is no spread.
        found.append((run - mean) / np.where(spread > 1e-12 * np.maximum(np.abs(mean), 1e-300), spread, np.inf))
    return found


def fit(
    sequences: Padded,
    states: int,
    rng: np.random.Generator,
    restarts: int = RESTARTS,
    *,
    left_to_right: bool = False,
    most_rounds: int = 300,
    tolerance: float = 1e-2,
) -> HiddenStates:
    """Return the best of `restarts` models fitted by EM (Baum-Welch), each from other observations as first means.

    left_to_right  runs begin in the first state and never go back
    tolerance      a restart ends when a round gains less, in log-likelihood of all runs together
    """
    if states < 1 or states > int(sequences.lengths.sum()):
        raise ValueError(f"{states} states for {int(sequences.lengths.sum())} steps")
    guess = _first_guess(sequences, states, rng, restarts, left_to_right)
    ended = _Parameters(*(np.empty_like(part) for part in guess))
    reached, converged = np.full(restarts, -np.inf), np.zeros(restarts, bool)
    active = np.arange(restarts)
    for _ in range(most_rounds):
        emission = _log_emission(sequences, guess.means, guess.variances)
        alpha, total = forward(guess.start, guess.moves, emission, sequences.lengths)
        now = total.sum(axis=-1)
        converged[active] = now - reached[active] < tolerance
        reached[active] = now
        for kept, part in zip(ended, guess, strict=True):
            kept[active] = part
        going = ~converged[active]
        active = active[going]
        if not len(active):
            break
        occupied = backward(guess.moves[going], emission[:, going], sequences.lengths, alpha[:, going], total[going])
        guess = _maximise(sequences, *occupied, _Parameters(*(part[going] for part in guess)))
    best = int(np.argmax(reached))
    chosen = _Parameters(*(part[best] for part in ended))
    order = _by_entry(sequences, chosen)
    return HiddenStates(
        chosen.start[order],
        chosen.moves[np.ix_(order, order)],
        chosen.means[order],
        chosen.variances[order],
        float(reached[best]),
        reached,
        bool(converged[best]),
        left_to_right,
    )


class _Parameters(NamedTuple):
    """Parameters of all restarts, the restart leading."""

    start: Floats
    moves: Floats
    means: Floats
    variances: Floats


def _first_guess(
    sequences: Padded, states: int, rng: np.random.Generator, restarts: int, left_to_right: bool
) -> _Parameters:
    """Return means at observations drawn far from each other (k-means++), the variance of all, and runs that stay."""
    points = sequences.values[sequences.inside]
    there = sequences.there[sequences.inside]
    step = np.nonzero(sequences.inside)[0]
    count = np.maximum(there.sum(axis=0), 1)
    centre = (points * there).sum(axis=0) / count
    points = np.where(there > 0, points, centre)
    spread = np.maximum(((points - centre) ** 2).sum(axis=0) / count, _LEAST_VARIANCE)
    means = np.empty((restarts, states, points.shape[1]))
    for restart in range(restarts):
        chosen = [int(rng.integers(len(points)))]
        far = ((points - points[chosen[0]]) ** 2).sum(axis=1)
        for _ in range(states - 1):
            weight = far if far.sum() > 0 else np.ones(len(points))
            chosen.append(int(rng.choice(len(points), p=weight / weight.sum())))
            far = np.minimum(far, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        if left_to_right:
            chosen.sort(key=lambda index: int(step[index]))
        means[restart] = points[chosen]
    moves = np.full((states, states), (1 - _STICKY) / max(states - 1, 1))
    np.fill_diagonal(moves, _STICKY)
    start = np.full(states, 1 / states)
    if left_to_right:
        moves, start = np.triu(moves), np.eye(states)[0]
        moves = moves / moves.sum(axis=1, keepdims=True)
    variances = np.broadcast_to(spread, means.shape).copy()
    return _Parameters(np.tile(_log(start), (restarts, 1)), np.tile(_log(moves), (restarts, 1, 1)), means, variances)


def _maximise(sequences: Padded, occupied: Floats, moved: Floats, old: _Parameters) -> _Parameters:
    """Return the parameters that are most probable given who was where; an empty state stays as it was."""
    begun = occupied[0].sum(axis=1)
    leaves = moved.sum(axis=-1, keepdims=True)
    weight = np.einsum("trsk,tsd->rkd", occupied, sequences.there)
    some = np.maximum(weight, 1e-300)
    means = np.einsum("trsk,tsd->rkd", occupied, sequences.values) / some
    squares = np.einsum("trsk,tsd->rkd", occupied, sequences.values**2) / some
    is_seen = weight > 1e-8
    return _Parameters(
        _log(begun / begun.sum(axis=-1, keepdims=True)),
        np.where(leaves > 1e-8, _log(moved / np.maximum(leaves, 1e-300)), old.moves),
        np.where(is_seen, means, old.means),
        np.where(is_seen, np.maximum(squares - means**2, _LEAST_VARIANCE), old.variances),
    )


def _by_entry(sequences: Padded, model: _Parameters) -> NDArray[np.intp]:
    """Return the states in the order of the mean step at which runs are in them, so that refits have equal names."""
    emission = _log_emission(sequences, model.means[None], model.variances[None])[:, 0]
    occupied = smoothed(model.start, model.moves, emission, sequences.lengths)
    when = (np.arange(len(occupied))[:, None, None] * occupied).sum(axis=(0, 1))
    return np.argsort(when / np.maximum(occupied.sum(axis=(0, 1)), 1e-300), kind="stable")


def _log(probability: Floats) -> Floats:
    return np.where(probability > 0, np.log(np.maximum(probability, 1e-300)), NEVER)


def _log_emission(sequences: Padded, means: Floats, variances: Floats) -> Floats:
    """Return [step, restart, run, state] from means and variances [restart, state, metric]."""
    x, there = sequences.values, sequences.there
    precision = 1 / variances
    square = np.einsum("tsd,rkd->trsk", x**2, precision) - 2 * np.einsum("tsd,rkd->trsk", x, means * precision)
    constant = np.einsum("tsd,rkd->trsk", there, means**2 * precision + np.log(variances) + log(2 * pi))
    return np.asarray(-(square + constant) / 2, float)
