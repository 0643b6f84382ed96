"""The loop: batch, step, probe, checkpoint; readable from top to bottom.

The state at step s is what s updates made; update s uses batch s. Step 0 is probed and saved before any
update. Before a checkpoint is committed, every row up to its step is durable.
"""

import threading
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from jobs.errors import StudyInterrupted
from jobs.records import Status
from workers.batches import Batches
from workers.checkpoint import Kind
from workers.crew import Crew
from workers.engines import Engine
from workers.probes import Probes, Tally


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


@dataclass(frozen=True, slots=True)
class Start:
    """Where training begins: at `step`; `is_first` where no run was measured and saved there before."""

    step: int
    is_first: bool


class Recorder(Protocol):
    """Where rows and states go: to the store (`saver.py`), or to memory (`replay.py`)."""

    def save(self, step: int, kind: Kind, engine: Engine, tally: Tally) -> None:
        """Keep the state at `step`, and all rows up to it."""

    def flush_if_due(self) -> None:
        """Keep the rows if the last ones are old enough."""

    def wait(self) -> None:
        """Wait until all is kept; raises what failed."""

    def finish(self) -> None:
        """Keep what is left."""


def train(
    plan: Plan,
    start: "Start",
    engine: Engine,
    batches: Batches,
    probes: Probes,
    saver: Recorder,
    tally: Tally,
    stop: threading.Event,
) -> None:
    """Train the crew from its start to the end of the plan.

    Raises StudyInterrupted after saving, when `stop` is set; Superseded when another process has taken over.
    """
    crew = batches.crew
    step = start.step
    doing = crew.progress.begin
    if start.is_first:
        doing("a probe")
        probes.measure(step, engine, tally)
        doing("a checkpoint")
        saver.save(step, "milestone", engine, tally)
    while step < plan.steps:
        if stop.is_set():
            doing("a checkpoint")
            saver.save(step, "rolling", engine, tally)
            saver.wait()
            raise StudyInterrupted(f"stopped at step {step}; a checkpoint is in the store")
        doing("a step")
        inputs, targets = batches.at(step)
        if not crew.alive:
            break
        engine.train_step(step, inputs, targets, batches.heads)
        step += 1
        crew.step = step
        _let_diverged_leave(crew, engine, step)
        tally.add(engine)
        if step in plan.probes:
            doing("a probe")
            probes.measure(step, engine, tally)
            saver.flush_if_due()
        kind = plan.kind(step)
        if kind and crew.alive:
            doing("a checkpoint")
            saver.save(step, kind, engine, tally)
    doing("the last checkpoint")
    saver.finish()
    crew.finish(step)


def _let_diverged_leave(crew: Crew, engine: Engine, step: int) -> None:
    if np.all(engine.diverged_at < 0):
        return
    for member in crew.alive:
        if engine.diverged_at[member.slot] >= 0:
            crew.leave(member, Status.DIVERGED, step, "the loss or its gradient stopped being finite")
