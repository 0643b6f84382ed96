"""The batches of a pack: one per run and step, stacked along the leading run axis.

Runs with equal data seeds get the same batch, drawn once. A task that raises, or returns what no task may,
ends its own run and no other.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jobs.errors import TaskError
from jobs.records import Status
from jobs.scalar import Curve, at, ever
from jobs.seeds import Streams
from jobs.tasks.masking import masked
from jobs.tasks.task import IGNORE, Batch, Task
from workers.crew import Crew

log = logging.getLogger(__name__)
Stacked = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(slots=True)
class Batches:
    """Draws and stacks the training batches of one pack.

    streams  of each run, by slot
    masking  the share of targets that is hidden and asked for
    """

    task: Task
    streams: Sequence[Streams]
    batch_size: int
    crew: Crew
    masking: float | Curve = 0.0
    _last: Stacked | None = field(default=None)
    _heads: NDArray[np.int64] | None = field(default=None)

    def at(self, step: int) -> Stacked:
        """Return inputs and targets of batch `step`, each int64 [runs, batch, length]."""
        drawn: dict[tuple[int, int], Batch] = {}
        for member in self.crew.alive:
            streams = self.streams[member.slot]
            key = (streams.seeds.data, streams.seeds.evaluation)
            try:
                if key not in drawn:
                    drawn[key] = self._checked(drawn_batch(self.task, streams, step, self.batch_size, self.masking))
                self._place(member.slot, drawn[key])
            except Exception as error:  # the border to a user's code: anything may come out of it
                log.exception("run %s, step %d: the task failed", member.run_id, step)
                self.crew.leave(member, Status.FAILED, step, f"task: {type(error).__name__}: {error}")
        if self._last is None:
            return np.zeros((0, 0, 0), np.int64), np.zeros((0, 0, 0), np.int64)
        return self._last

    @property
    def heads(self) -> NDArray[np.int64] | None:
        """Return [runs, batch, length] the heads of the words of the last batch; None where no trees are known."""
        return self._heads

    def _checked(self, batch: Batch) -> Batch:
        shape = self._last[0].shape[1:] if self._last else (self.batch_size, batch.inputs.shape[1])
        if batch.inputs.shape != shape:
            raise TaskError(type(self.task).__name__, "", -1, f"a batch has shape {batch.inputs.shape}, not {shape}")
        return batch

    def _place(self, slot: int, batch: Batch) -> None:
        if self._last is None:
            shape = (len(self.streams), *batch.inputs.shape)
            self._last = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._last[0][slot], self._last[1][slot] = batch.inputs, batch.targets
        if batch.trees is not None:
            if self._heads is None:
                self._heads = np.full(self._last[0].shape, -1, np.int64)
            self._heads[slot] = batch.trees.heads


def drawn_batch(task: Task, streams: Streams, step: int, size: int, masking: float | Curve) -> Batch:
    """Return batch `step` as it is trained on; raises TaskError where it is not what the contract of a task says."""
    batch = task.batch(streams, step, size)
    check_batch(task, batch)
    if not ever(masking):
        return batch
    if task.mask_token is None:
        raise TaskError(type(task).__name__, "", -1, "has no token that stands for a hidden one")
    return masked(batch, at(masking, step), streams.masking(step), task.mask_token, len(task.vocabulary))


def check_batch(task: Task, batch: Batch) -> None:
    """Raise TaskError unless the batch is what the contract of a task says."""
    size = len(task.vocabulary)
    name = type(task).__name__
    inputs, targets, trees = batch.inputs, batch.targets, batch.trees
    if trees is not None and not trees.heads.shape == trees.relations.shape == inputs.shape:
        raise TaskError(name, "", -1, f"trees are {trees.heads.shape}, inputs {inputs.shape}")
    if inputs.ndim != 2 or inputs.shape != targets.shape or inputs.shape[1] > task.length:
        raise TaskError(
            name, "", -1, f"inputs {inputs.shape} and targets {targets.shape} are not [batch, ≤ {task.length}]"
        )
    if not (np.issubdtype(inputs.dtype, np.integer) and np.issubdtype(targets.dtype, np.integer)):
        raise TaskError(name, "", -1, f"token ids are integers, not {inputs.dtype} and {targets.dtype}")
    if (targets[:, : task.first_answer] != IGNORE).any():
        raise TaskError(name, "", -1, f"a target stands before first_answer {task.first_answer}")
    if (
        inputs.min() < 0
        or inputs.max() >= size
        or targets.max() >= size
        or (targets.min() < 0 and targets.min() != IGNORE)
    ):
        raise TaskError(name, "", -1, f"a token id is outside the vocabulary of {size}")
