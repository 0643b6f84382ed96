"""A script's run once more, from a checkpoint to a step, with nothing written into the store: do its rows come again?

What is compared are rows. Files may hold the time, or lie in another order: whether a checkpoint comes again byte for
byte is the script's own affair, and the hashes of those that were committed are compared anyway.
"""

import shutil
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.claims import FRESH
from jobs.errors import NotFound, SeedbedError
from jobs.records import METRICS
from jobs.schedule import steps_of
from jobs.store import Store
from workers.checkpoint import Kind, Saved, checkpoints_of
from workers.checkpoint_files import lay_out
from workers.crew import Crew, Member
from workers.engines.command import Assignment, private_folder, running
from workers.scripted import follow
from workers.stored import stored_run
from workers.train import Plan


class _Reached(Exception):
    """The script has passed the step that was asked for."""


@dataclass(slots=True)
class _Until:
    """Keeps the rows up to a step in memory, and nothing else."""

    step: int
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, *row: Any) -> None:
        found = dict(zip(METRICS.names, row, strict=True))
        if found["step"] > self.step:
            raise _Reached
        self.rows.append(found)

    def save_files(self, step: int, kind: Kind, folder: Path) -> None:  # noqa: ARG002
        """Let the files go; what is measured at a step is reported before its checkpoint."""
        shutil.rmtree(folder)
        if step >= self.step:
            raise _Reached

    def flush_if_due(self) -> None:
        """Have nothing to write."""

    def settle(self) -> None:
        """Have nothing to wait for."""


def rows_again(store: Store, run_id: str, step: int, start: int) -> tuple[int, list[dict[str, Any]]]:
    """Return the step of the checkpoint from which the script went on (FRESH: none), and its rows up to `step`.

    start  the newest step from which it may go on
    Raises SeedbedError where the script ends otherwise than by being well.
    """
    run = stored_run(store, run_id)
    found = checkpoints_of(store, run.attempts)
    began = max((saved for saved in found if saved <= min(start, step)), default=FRESH)
    crew, until = Crew("replay", [Member(0, run.attempts[-1])]), _Until(step)
    steps = run.condition.training.steps
    milestones = frozenset(steps_of(run.condition.milestones, steps))
    plan = Plan(steps, frozenset(), milestones, rolling_every=steps + 1)
    with private_folder() as folder:
        if began != FRESH:
            lay_out(store, found[began], folder / "resume")
        attempt = run.attempts[-1].attempt
        assigned = Assignment(run.condition, run.seeds, run_id, attempt, began, "cpu", plan.rolling_every)
        with suppress(_Reached), running(store, assigned, folder) as script:
            follow(plan, began, script, crew, until, until, threading.Event(), lambda _: "")
    ended = crew.members[0]
    if not crew.alive and ended.step < step:
        raise SeedbedError(f"run {run_id} is {ended.status} at step {ended.step}: {ended.reason}")
    return began, until.rows


def files_at(store: Store, run_id: str, step: int, folder: Path) -> Saved:
    """Lay the checkpoint of a script's run at a step out in `folder`; raises NotFound where it has none there."""
    run = stored_run(store, run_id)
    found = checkpoints_of(store, run.attempts)
    if step not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise NotFound(f"{run_id}@{step}", f"a script's state is there at its checkpoints alone: {there}")
    lay_out(store, found[step], folder)
    return found[step]
