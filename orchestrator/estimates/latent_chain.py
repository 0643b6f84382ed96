"""A hidden Markov chain in log space: forward, backward, and the most probable path, for whatever is emitted.

Vectorised over states, runs of unequal length, and any leading axes (restarts). Nothing underflows, whatever the length
of a run. Sources: Rabiner 1989; Murphy 2012, ch. 17.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Path = NDArray[np.int64]
NEVER = -1e100  # log of a probability of zero that can still be subtracted


def forward(start: Floats, moves: Floats, emission: Floats, lengths: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return log P(observations so far, state) as [step, …, run, state], and log P(observations) as […, run].

    start […, state], moves […, state, state], emission [step, …, run, state], all logarithms; `…` is nothing, or
    restarts. After a run's end its values stay as they were (Rabiner 1989).
    """
    alpha = np.empty_like(emission)
    alpha[0] = start[..., None, :] + emission[0]
    for step in range(1, len(emission)):
        moved = log_sum(alpha[step - 1][..., :, None] + moves[..., None, :, :], axis=-2) + emission[step]
        alpha[step] = np.where((step < lengths)[:, None], moved, alpha[step - 1])
    return alpha, log_sum(alpha[-1], axis=-1)


def backward(
    moves: Floats, emission: Floats, lengths: NDArray[np.int64], alpha: Floats, total: Floats
) -> tuple[Floats, Floats]:
    """Return P(state | all observations) as [step, …, run, state], and expected moves […, state, state]."""
    beta = np.zeros_like(emission[0])
    states = np.zeros_like(emission)
    expected = np.zeros(moves.shape)
    states[-1] = np.where((len(emission) <= lengths)[:, None], np.exp(alpha[-1] + beta - total[..., None]), 0)
    for step in range(len(emission) - 2, -1, -1):
        onward = moves[..., None, :, :] + (emission[step + 1] + beta)[..., None, :]
        joint = np.exp(alpha[step][..., :, None] + onward - total[..., None, None])
        goes_on = (step + 1 < lengths)[:, None]
        expected += np.where(goes_on[..., None], joint, 0).sum(axis=-3)
        beta = np.where(goes_on, log_sum(onward, axis=-1), beta)
        states[step] = np.where((step < lengths)[:, None], np.exp(alpha[step] + beta - total[..., None]), 0)
    return states, expected


def smoothed(start: Floats, moves: Floats, emission: Floats, lengths: NDArray[np.int64]) -> Floats:
    """Return P(state | all observations) as [step, …, run, state]."""
    alpha, total = forward(start, moves, emission, lengths)
    return backward(moves, emission, lengths, alpha, total)[0]


def viterbi(start: Floats, moves: Floats, emission: Floats, lengths: NDArray[np.int64]) -> list[Path]:
    """Return the most probable path of every run from emission [step, run, state]; ties go to the lower state."""
    best = start + emission[0]
    came = np.tile(np.arange(emission.shape[2]), (*emission.shape[:2], 1))
    for step in range(1, len(emission)):
        reach = best[:, :, None] + moves
        goes_on = (step < lengths)[:, None]
        came[step] = np.where(goes_on, reach.argmax(axis=1), came[step])
        best = np.where(goes_on, reach.max(axis=1) + emission[step], best)
    path = np.empty(emission.shape[:2], np.int64)
    path[-1] = best.argmax(axis=1)
    for step in range(len(emission) - 1, 0, -1):
        path[step - 1] = came[step, np.arange(len(best)), path[step]]
    return [path[:length, run] for run, length in enumerate(lengths)]


def log_sum(values: Floats, axis: int) -> Floats:
    """Return log Σ exp over an axis."""
    top = values.max(axis=axis, keepdims=True)
    return np.asarray(np.log(np.exp(values - top).sum(axis=axis)) + top.squeeze(axis), float)
