"""A script of the user's as a process: what it is given, what it says on its terminal, and how it is ended.

It lies in a private folder: its files, which are its working directory; the checkpoint to go on from; a folder for
those that it writes; and the file in which it reports. A guard stands between it and the pack, so that its process
group never outlives the pack, whatever that dies of (`guard.py`).

Not here: what its reports mean (`workers/reports.py`, `workers/scripted.py`).
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jobs.schedule import steps_of
from jobs.scratch import Scratch
from jobs.script_files import PYTHON
from jobs.seeds import Seeds
from jobs.spec import CommandSpec, Condition, Given
from jobs.store import Store
from workers.engines import guard
from workers.stored import stored_file

_LAST_LINES = 30
_LONGEST_LINE = 4000
_LAST_S = 5.0  # for what a script said last to arrive
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a script is to train: a run, and the checkpoint from which it goes on.

    step  of that checkpoint; -1: from the seeds
    """

    condition: Condition
    seeds: Seeds
    run_id: str
    attempt: int
    step: int
    device: str
    rolling_every: int


@dataclass(slots=True)
class Script:
    """A script that runs, or has ended."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    said: deque[str]
    reader: threading.Thread

    @property
    def report(self) -> Path:
        """Return the file in which it reports."""
        return self.folder / "report.jsonl"

    def kept(self, step: int) -> Path:
        """Return the folder of its checkpoint at a step."""
        return self.folder / "checkpoints" / str(step)

    def ended(self) -> int | None:
        """Return its exit code, 128 + n after signal n; None while it runs."""
        code = self.process.poll()
        return None if code is None else guard.exit_code(code)

    def ask_to_leave(self) -> None:
        """Send SIGTERM to its process group."""
        self._tell(guard.LEAVE)

    def kill(self) -> None:
        """End its process group at once."""
        self._tell(guard.KILL)
        self.process.wait()

    def last_words(self) -> str:
        """Return the last line that it printed, which mostly tells why it ended; empty where there is none."""
        self.reader.join(_LAST_S)
        return next((line for line in reversed(self.said) if line.strip()), "").strip()

    def _tell(self, order: bytes) -> None:
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.write(order)
                self.process.stdin.flush()


def private_folder() -> Scratch:
    """Return a private folder for a script and its checkpoints, below TMPDIR; a context after which it is gone."""
    return Scratch("script")


@contextmanager
def running(store: Store, assigned: Assignment, folder: Path) -> Iterator[Script]:
    """Give the script of a task, running in `folder`; leaving the context ends it. Raises Corrupt, NotFound.

    folder/resume holds the checkpoint from which it goes on, if there is one.
    """
    spec = assigned.condition.engine
    if not isinstance(spec, CommandSpec):
        raise TypeError(f"engine {spec.name} is no script")
    work = folder / "work"
    for path, digest in spec.files.items():
        _place(store, work / path, digest)
    for made in (work, folder / "checkpoints"):
        made.mkdir(parents=True, exist_ok=True)
    (folder / "report.jsonl").touch()
    (folder / "given.json").write_text(json.dumps(_given(assigned, spec, folder)), encoding="utf-8")
    program = [sys.executable] if spec.command[0] in PYTHON else [spec.command[0]]
    command = [sys.executable, "-I", "-S", guard.__file__, str(folder), *program, *spec.command[1:]]
    process = subprocess.Popen(
        command,
        cwd=work,
        env=_environment(assigned, spec, folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    said: deque[str] = deque(maxlen=_LAST_LINES)
    reader = threading.Thread(target=_log_lines, args=(process.stdout, said), name="script", daemon=True)
    reader.start()
    script = Script(folder, process, said, reader)
    try:
        yield script
    finally:
        script.kill()
        reader.join(_LAST_S)
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()


def _place(store: Store, path: Path, digest: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stored_file(store, digest))
    path.chmod(0o700)


def _given(assigned: Assignment, spec: CommandSpec, folder: Path) -> dict[str, Any]:
    """Return what the script reads in SEEDBED_SPEC; its form is documented in docs/models.md."""
    condition = assigned.condition
    parts = {name: part.root for name in ("model", "optimizer") if isinstance(part := getattr(condition, name), Given)}
    steps = condition.training.steps
    return {
        "run_id": assigned.run_id,
        "attempt": assigned.attempt,
        "task": condition.task.parameters,
        **parts,
        "training": condition.training.model_dump(mode="json", exclude_defaults=True),
        "seeds": assigned.seeds.as_dict(),
        "steps": steps,
        "resume_step": max(assigned.step, 0),
        "resume_folder": str(folder / "resume") if assigned.step >= 0 else "",
        "device": assigned.device,
        "threads": spec.threads,
        "processes": spec.processes,
        "probes": steps_of(condition.probes, steps),
        "milestones": steps_of(condition.milestones, steps),
        "rolling_every": assigned.rolling_every,
    }


def _environment(assigned: Assignment, spec: CommandSpec, folder: Path) -> Mapping[str, str]:
    root = str(Path(__file__).resolve().parents[2])
    told = {
        "SEEDBED_SPEC": folder / "given.json",
        "SEEDBED_REPORT": folder / "report.jsonl",
        "SEEDBED_CHECKPOINTS": folder / "checkpoints",
        "SEEDBED_RESUME": folder / "resume" if assigned.step >= 0 else "",
        "SEEDBED_RESUME_STEP": max(assigned.step, 0),
        "SEEDBED_STEPS": assigned.condition.training.steps,
        "SEEDBED_RUN": assigned.run_id,
        "SEEDBED_ATTEMPT": assigned.attempt,
        "SEEDBED_DEVICE": assigned.device,
        **{f"SEEDBED_SEED_{name.upper()}": seed for name, seed in assigned.seeds.as_dict().items()},
        "OMP_NUM_THREADS": spec.threads,
        "MKL_NUM_THREADS": spec.threads,
        "PYTHONHASHSEED": 0,  # else the order of a set of words is another in every process
        "PYTHONUNBUFFERED": 1,
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    return {**os.environ, **{name: str(value) for name, value in told.items()}}


def _log_lines(output: IO[bytes] | None, said: deque[str]) -> None:
    """Let what the script prints go into the pack's log, line by line."""
    with suppress(ValueError, OSError):
        for raw in output or ():
            line = raw.decode(errors="replace").rstrip().rpartition("\r")[2][:_LONGEST_LINE]  # a bar's last state
            said.append(line)
            log.info("script: %s", line)
        if output is not None:
            output.close()
