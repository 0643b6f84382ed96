"""The loop of a script: what it reports becomes rows and checkpoints, and its end becomes the run's.

The place of `train.py` where a script trains: the script owns its steps, and this loop reads what it says. Claims,
beats, the fence, shards, checkpoints and outcomes are those of every pack (`pack.py`).
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from jobs.errors import ScriptLost, StudyInterrupted
from jobs.records import Status
from workers.checkpoint import Kind
from workers.checkpoint_files import state_of
from workers.crew import Crew
from workers.engines.command import Script
from workers.engines.guard import NOT_STARTED, SIGNALLED
from workers.probes import Rows
from workers.reports import Diverged, Kept, Measured, Proven, ReportRefused, Reports, Said
from workers.train import Plan

LEAST_S = 1800.0  # between two reports of a script, before it counts as standing still: an evaluation may take so long
GRACE_S = 25.0  # for a script that is asked to leave; Kubernetes kills 30 s after its signal
_LOOK_S = 0.02

Witness = Callable[[Mapping[str, str]], str]


class FileKeeper(Protocol):
    """Where rows and checkpoints of a script go: to the store (`saver.py`), or nowhere (`replay_script.py`)."""

    def save_files(self, step: int, kind: Kind, folder: Path) -> None:
        """Keep all rows, then the files in `folder`, and take the folder away."""

    def flush_if_due(self) -> None:
        """Keep the rows if the last ones are old enough."""

    def settle(self) -> None:
        """Keep all rows, and wait until all is kept; raises what failed."""


def follow(
    plan: Plan,
    resumed: int,
    script: Script,
    crew: Crew,
    rows: Rows,
    keeper: FileKeeper,
    stop: threading.Event,
    witness: Witness,
    clock: Callable[[], float] = time.monotonic,
    grace_s: float = GRACE_S,
) -> None:
    """Follow the script to its end, and say how its run ended.

    resumed  the step of the checkpoint from which it goes on; -1: none
    witness  compares what the script says of its seeds with what other runs have said; returns what does not fit

    Raises StudyInterrupted where `stop` was set, after the script had time to save; ScriptLost where it died, or ended
    with an error after it had begun; Superseded where another process has taken over. What is the script's own fault,
    and would be again, ends the run as failed.
    """
    crew.progress.least_s = LEAST_S
    reports = Reports(script.report, resumed, plan.steps)
    leaves_by = None
    pause = threading.Event()
    while True:
        code = script.ended()
        try:
            for said in reports.read(is_whole=code is not None):
                if isinstance(said, Proven):
                    _compare(said, resumed, witness)
                else:
                    _heed(said, plan, script, crew, rows, keeper)
        except ReportRefused as error:
            crew.leave(crew.members[0], Status.FAILED, crew.step, f"script: {error}")
        keeper.flush_if_due()
        if not crew.alive:
            script.kill()
            keeper.settle()
            return
        if code is not None:
            break
        if stop.is_set() and leaves_by is None:
            script.ask_to_leave()
            leaves_by = clock() + grace_s
        elif leaves_by is not None and clock() > leaves_by:
            script.kill()
        pause.wait(_LOOK_S)
    keeper.settle()
    _conclude(code, reports.step, plan, script, crew, stopped=stop.is_set())


def _compare(said: Proven, resumed: int, witness: Witness) -> None:
    fault = "" if resumed >= 0 else witness(said.digests)  # what a resumed script begins with is not of its seeds
    if fault:
        raise ReportRefused(f"its seeds do not do what the design says: {fault}")


def _heed(said: Said, plan: Plan, script: Script, crew: Crew, rows: Rows, keeper: FileKeeper) -> None:
    member = crew.members[0]
    if not crew.alive:  # what it said after its end was told
        return
    crew.progress.begin("a report")
    crew.step = max(crew.step, said.step)
    match said:
        case Measured():
            for row in said.rows:
                number = member.attempt.attempt
                rows.add(member.run_id, number, said.step, row.metric, row.value, row.correct, row.total)
        case Kept():
            folder = script.kept(said.step)
            if not state_of(folder):
                raise ReportRefused(f"checkpoint {said.step} is said to be whole, and {folder.name}/ holds no file")
            keeper.save_files(said.step, "milestone" if said.step in plan.milestones else "rolling", folder)
        case Diverged():
            crew.leave(member, Status.DIVERGED, said.step, said.reason)


def _conclude(code: int, step: int, plan: Plan, script: Script, crew: Crew, *, stopped: bool) -> None:
    """Say how the run of a script that has ended by itself, or was asked to, has ended."""
    if code == 0 and step == plan.steps:
        crew.finish(step)
        return
    if stopped:
        raise StudyInterrupted(f"stopped at step {crew.step}; the run goes on from the script's last checkpoint")
    words = script.last_words()
    if code == 0:
        reached = f"at step {step}" if step >= 0 else "without having reported a step"
        told = f"script: ended {reached}, and the study declares {plan.steps}"
    else:
        told = f"script: ended {ending(code)}{f': {words}' if words else ''}"
        if code > SIGNALLED or (step >= 0 and code != NOT_STARTED):
            raise ScriptLost(told)
    crew.leave(crew.members[0], Status.FAILED, crew.step, told)


def ending(code: int) -> str:
    """Return an exit code in words."""
    return f"by signal {code - SIGNALLED}" if code > SIGNALLED else f"with code {code}"
