"""Probes: what a pack's runs get right on their held-out sets, as rows of `metrics`.

Each held-out set gives what the task measures (k correct of m, or a mean) and `<set>.loss`, the mean cross-entropy
over its targets in nats. `train.loss` and `train.grad_norm` are means over the steps since the last probe.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.records import Status
from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Mean, Task
from workers.batches import check_batch
from workers.crew import Crew, Member
from workers.engines import MODEL, Engine, Layered
from workers.similarity import similarities
from workers.weight_statistics import weight_statistics

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """Sums of what every training step reports, between two probes; part of a checkpoint."""

    loss: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    steps: NDArray[np.int64]

    @classmethod
    def empty(cls, runs: int) -> "Tally":
        """Return a tally of nothing for `runs` runs."""
        return cls(np.zeros(runs), np.zeros(runs), np.zeros(runs, np.int64))

    def add(self, engine: Engine) -> None:
        """Add what the engine's last step reported, run by run."""
        self.loss += engine.losses
        self.grad_norm += engine.grad_norms
        self.steps += 1

    def state(self) -> dict[str, torch.Tensor]:
        """Return the sums as tensors with a leading run axis."""
        return {
            "tally.loss": torch.from_numpy(self.loss.copy()),
            "tally.grad_norm": torch.from_numpy(self.grad_norm.copy()),
            "tally.steps": torch.from_numpy(self.steps.copy()),
        }

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from the sums in `state`."""
        self.loss[:] = state["tally.loss"].numpy()
        self.grad_norm[:] = state["tally.grad_norm"].numpy()
        self.steps[:] = state["tally.steps"].numpy()

    def clear(self) -> None:
        """Begin again from zero."""
        for sums in (self.loss, self.grad_norm, self.steps):
            sums[:] = 0


class Rows(Protocol):
    """Where rows of `metrics` go."""

    def add(
        self,
        run_id: str,
        attempt: int,
        step: int,
        metric: str,
        value: float,
        correct: int | None = None,
        total: int | None = None,
        /,
    ) -> None:
        """Add one row."""


@dataclass(slots=True)
class Probes:
    """Measures every run of a pack that is alive and adds the rows to its shards.

    measured  what is measured beside the task's held-out sets
    ends      of runs on lines: their engine and one that holds the other ends, to be compared layer by layer
    """

    task: Task
    streams: Sequence[Streams]
    crew: Crew
    shards: Rows
    measured: Sequence[str] = ()
    ends: tuple[Layered, Layered] | None = None
    _sets: dict[int, dict[str, Batch]] = field(default_factory=dict)

    def measure(self, step: int, engine: Engine, tally: Tally) -> None:
        """Add the rows of every alive run at `step`, and begin a new tally."""
        for member in self.crew.alive:
            count = int(tally.steps[member.slot])
            if count:
                self._add(member, step, "train.loss", float(tally.loss[member.slot]) / count)
                self._add(member, step, "train.grad_norm", float(tally.grad_norm[member.slot]) / count)
        tally.clear()
        for name in self._names(step):
            self._measure_set(name, step, engine)
        if "weights" in self.measured:
            self._measure_weights(step, engine)

    def _measure_weights(self, step: int, engine: Engine) -> None:
        weights = {name: value for name, value in engine.state().items() if name.startswith(MODEL)}
        for member in self.crew.alive:
            for metric, value in weight_statistics(weights, member.slot).items():
                self._add(member, step, metric, value)

    def _names(self, step: int) -> list[str]:
        for member in self.crew.alive:
            if member.slot not in self._sets:
                try:
                    sets = self.task.held_out(self.streams[member.slot])
                    for batch in sets.values():
                        check_batch(self.task, batch)
                    self._sets[member.slot] = sets
                except Exception as error:  # the border to a user's code
                    self._fail(member, step, error)
        return sorted({name for member in self.crew.alive for name in self._sets[member.slot]})

    def _measure_set(self, name: str, step: int, engine: Engine) -> None:
        alive = [member for member in self.crew.alive if name in self._sets[member.slot]]
        if not alive:
            return
        # Every slot computes, alive or not: the shapes, and with them the bits, do not depend on who is left.
        slots = [member.slot for member in alive]
        sets = [self._sets[slot if slot in slots else slots[0]][name] for slot in range(len(self.streams))]
        inputs, targets = np.stack([s.inputs for s in sets]), np.stack([s.targets for s in sets])
        predicted, losses = engine.evaluate(inputs, targets)
        for member in alive:
            self._add_set(member, step, name, sets[member.slot], predicted[member.slot], losses[member.slot])
        if self.ends:
            self._measure_similarity(name, step, inputs, self.ends)

    def _measure_similarity(
        self, name: str, step: int, inputs: NDArray[np.int64], ends: tuple[Layered, Layered]
    ) -> None:
        mine, others = (engine.hidden(inputs) for engine in ends)
        for member in self.crew.alive:
            for layer, (one, other) in enumerate(zip(mine, others, strict=True)):
                for what, value in similarities(one[member.slot], other[member.slot]).items():
                    self._add(member, step, f"{name}.{what}.{layer}", value)

    def _add_set(
        self,
        member: Member,
        step: int,
        name: str,
        batch: Batch,
        predicted: NDArray[np.int64],
        losses: NDArray[np.float32],
    ) -> None:
        try:
            found = self.task.measure(name, batch, predicted, losses)
        except Exception as error:  # the border to a user's code
            self._fail(member, step, error)
            return
        for one in found:
            if isinstance(one, Mean):
                self._add(member, step, one.metric, one.value)
            elif one.total:
                self._add(member, step, one.metric, one.correct / one.total, one.correct, one.total)
        asked = int((batch.targets != IGNORE).sum())
        if asked:
            self._add(member, step, f"{name}.loss", float(losses.sum(dtype=np.float64)) / asked)

    def _fail(self, member: Member, step: int, error: Exception) -> None:
        log.error("run %s, step %d: the task failed", member.run_id, step, exc_info=error)
        self.crew.leave(member, Status.FAILED, step, f"task: {type(error).__name__}: {error}")

    def _add(
        self,
        member: Member,
        step: int,
        metric: str,
        value: float,
        correct: int | None = None,
        total: int | None = None,
    ) -> None:
        self.shards.add(member.run_id, member.attempt.attempt, step, metric, value, correct, total)
