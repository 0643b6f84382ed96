"""The loop: batch, step, probe, checkpoint; readable from top to bottom.

The state at step s is what s updates made; update s uses batch s. Step 0 is probed and saved before any
update. Before a checkpoint is committed, every row up to its step is durable.
"""

import threading
from dataclasses import dataclass, field

import numpy as np

from jobs.errors import StudyInterrupted, Superseded
from jobs.layout import PackKeys, attempt_key
from jobs.records import Status
from jobs.store import Store
from workers.batches import Batches
from workers.checkpoint import Kind, Slice, discard, save, slice_digest
from workers.crew import Crew
from workers.engines import Engine
from workers.probes import Probes, Tally
from workers.shards import ShardWriter

_KEPT_ROLLING = 2  # complete ones that stay until the next is durable


@dataclass(frozen=True, slots=True)
class Plan:
    """When to do what: the last step, and the steps to probe, to keep and to save for a restart."""

    steps: int
    probes: frozenset[int]
    milestones: frozenset[int]
    rolling_every: int

    def kind(self, step: int) -> Kind | None:
        """Return what kind of checkpoint is due at `step`, if any."""
        if step in self.milestones:
            return "milestone"
        return "rolling" if step % self.rolling_every == 0 else None


@dataclass(slots=True)
class Saver:
    """Saves the pack, links each slice to its parent, and drops rolling checkpoints that are no longer needed."""

    store: Store
    keys: PackKeys
    crew: Crew
    shards: ShardWriter
    parents: dict[str, tuple[int, str]]
    last_saved: int
    _rolling: list[int] = field(default_factory=list)

    def save(self, step: int, kind: Kind, engine: Engine, tally: Tally) -> None:
        """Commit all rows, then the state at `step`; raises Superseded where a later attempt has a run."""
        self.shards.flush()
        if step == self.last_saved:
            return
        self._check_fence()
        state = engine.state() | tally.state()
        slices = []
        for member in self.crew.alive:
            parent = self.parents.get(member.run_id, (-1, ""))
            digest = slice_digest(state, member.slot)
            slices.append(Slice(member.run_id, member.attempt.attempt, member.slot, digest, *parent))
        save(self.store, self.keys, step, kind, state, slices)
        self.last_saved = step
        self.parents.update({part.run_id: (step, part.sha256) for part in slices})
        if kind == "rolling":
            self._rolling.append(step)
            self.drop_rolling(_KEPT_ROLLING)

    def drop_rolling(self, keep: int) -> None:
        """Remove all but the newest `keep` rolling checkpoints."""
        while len(self._rolling) > keep:
            discard(self.store, self.keys, self._rolling.pop(0))

    def _check_fence(self) -> None:
        for member in self.crew.alive:
            if self.store.exists(attempt_key(member.run_id, member.attempt.attempt + 1)):
                raise Superseded(member.run_id, member.attempt.attempt)


def train(
    plan: Plan,
    first_step: int,
    engine: Engine,
    batches: Batches,
    probes: Probes,
    saver: Saver,
    tally: Tally,
    stop: threading.Event,
) -> None:
    """Train the crew from `first_step` (-1: from nothing) to the end of the plan.

    Raises StudyInterrupted after saving, when `stop` is set; Superseded when another process has taken over.
    """
    crew = batches.crew
    step = max(first_step, 0)
    if first_step < 0:
        probes.measure(0, engine, tally)
        saver.save(0, "milestone", engine, tally)
    while step < plan.steps:
        if stop.is_set():
            saver.save(step, "rolling", engine, tally)
            raise StudyInterrupted(f"stopped at step {step}; a checkpoint is in the store")
        inputs, targets = batches.at(step)
        if not crew.alive:
            break
        engine.train_step(step, inputs, targets)
        step += 1
        _let_diverged_leave(crew, engine, step)
        tally.add(engine)
        if step in plan.probes:
            probes.measure(step, engine, tally)
            saver.shards.flush_if_due()
        kind = plan.kind(step)
        if kind and crew.alive:
            saver.save(step, kind, engine, tally)
    saver.shards.flush()
    crew.finish(step)
    saver.drop_rolling(0)


def _let_diverged_leave(crew: Crew, engine: Engine, step: int) -> None:
    if np.all(engine.diverged_at < 0):
        return
    for member in crew.alive:
        if engine.diverged_at[member.slot] >= 0:
            crew.leave(member, Status.DIVERGED, step, "the loss or its gradient stopped being finite")
