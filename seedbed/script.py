"""What a script that Seedbed trains says and asks: the standard library alone, so that any script may import it.

Everything goes through files that the environment names (docs/models.md), so that a script in another language does the
same with lines of JSON. In a script that was started by hand, what is said goes nowhere, and `given` is an error.
"""

import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

_LOOK_S = 0.01
_announced: list[Path] = []
_told_to_stop = threading.Event()
_listens = threading.Event()


class GivenSeeds(NamedTuple):
    """The four seeds of a run: what its initial weights, its data, its dropout and its held-out sets are drawn from."""

    init: int
    data: int
    dropout: int
    evaluation: int


@dataclass(frozen=True, slots=True)
class GivenRun:
    """The run that a script is to train.

    task, model, optimizer, training  as they stand in the study, a value of the grid in its place
    steps          the last step, which has to be reported
    resume_step    the step of the checkpoint to go on from; 0 without one
    resume_folder  the files of that checkpoint, to be read only; None: begin with the seeds
    """

    run_id: str
    attempt: int
    task: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    training: dict[str, Any]
    seeds: GivenSeeds
    steps: int
    resume_step: int
    resume_folder: Path | None
    device: str
    threads: int
    processes: int
    probes: frozenset[int]
    milestones: frozenset[int]
    rolling_every: int

    def probes_at(self, step: int) -> bool:
        """Return whether the study's schedule of probes has this step."""
        return step in self.probes

    def saves_at(self, step: int) -> bool:
        """Return whether a checkpoint is due at this step: one that is kept for ever, or one for a restart."""
        return step in self.milestones or (step > 0 and step % self.rolling_every == 0)


def given() -> GivenRun:
    """Return the run that this script is to train; raises RuntimeError in a script that Seedbed has not started."""
    path = os.environ.get("SEEDBED_SPEC")
    if not path:
        raise RuntimeError("SEEDBED_SPEC is not set: this script is started by a study with engine: {command: …}")
    body: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    folder = body.pop("resume_folder")
    body |= {name: frozenset(body[name]) for name in ("probes", "milestones")}
    body |= {"seeds": GivenSeeds(**body["seeds"]), "resume_folder": Path(folder) if folder else None}
    return GivenRun(**body)


def log(step: int, metrics: Mapping[str, Any] | None = None, **more: Any) -> None:
    """Report what was measured at `step`: numbers, or (k, m) where k of m were right.

    Steps never go back, and a metric has one value at a step. A `train.loss` or `loss` that is not finite ends the run
    as diverged. Raises TypeError or ValueError for what is no number.
    """
    values = {**(metrics or {}), **more}
    _say({"step": int(step), **{name: _plain(name, value) for name, value in values.items()}})


def checkpoint_folder(step: int) -> Path:
    """Return the empty folder for the files of the checkpoint at `step`; say `checkpoint(step)` when they are whole."""
    path = Path(os.environ.get("SEEDBED_CHECKPOINTS", "seedbed-checkpoints")) / str(int(step))
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def checkpoint(step: int, folder: str | Path | None = None, copy: Callable[..., Any] = shutil.copy2) -> None:
    """Say that the files in `checkpoint_folder(step)` are whole; from then on they may not be changed.

    The run goes on from them if it is cut off, once they are committed; the folder is taken away then. At most one is
    waited for: this returns when the one before has been committed.

    folder  whose files are taken instead, copied by `copy`; os.link copies nothing where they are never written again
    """
    if "SEEDBED_CHECKPOINTS" not in os.environ:
        return
    if folder is not None:
        shutil.copytree(folder, checkpoint_folder(step), copy_function=copy, dirs_exist_ok=True)
    while any(path.exists() for path in _announced):
        time.sleep(_LOOK_S)
    _announced[:] = [Path(os.environ["SEEDBED_CHECKPOINTS"]) / str(int(step))]
    _say({"checkpoint": int(step)})


def prove(**made: Any) -> None:
    """Say what the seeds made, before the first step: `prove(init=weights, data=first_batch)`.

    The factors are init, data, dropout and evaluation; what was made is an array or a tensor, text, bytes, a number,
    or a mapping or list of such. Seedbed compares over all runs of a condition: two seeds that make the same, or one
    that makes two things, end the run. A run that goes on from a checkpoint need not say it again.
    """
    digests = {}
    for factor, value in made.items():
        digest = hashlib.sha256()
        _add(digest, value)
        digests[factor] = digest.hexdigest()
    _say({"proof": digests})


def diverged(step: int, reason: str = "") -> None:
    """Say that the run is of no more use from `step` on: an outcome, never tried again. The script is ended."""
    _say({"diverged": int(step), "reason": reason})


def stopping() -> bool:
    """Return whether the run was asked to leave (SIGTERM): save a checkpoint and end soon, or be ended.

    The first call takes the signal over, in the main thread; a script that never asks ends at the signal.
    """
    if not _listens.is_set():
        signal.signal(signal.SIGTERM, lambda *_: _told_to_stop.set())
        _listens.set()
    return _told_to_stop.is_set()


def _plain(name: str, value: Any) -> float | list[int]:
    try:
        if isinstance(value, tuple | list):
            correct, total = value
            return [int(correct), int(total)]
        return float(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}; a measurement is a number, or (k, m) where k of m were right") from None


def _add(digest: Any, value: Any) -> None:
    """Add a value to a digest, with its type and its length, so that no two values run together."""
    if isinstance(value, Mapping | list | tuple):
        items = sorted(value.items()) if isinstance(value, Mapping) else enumerate(value)
        digest.update(f"{len(value)} items;".encode())
        for name, item in items:
            digest.update(f"{name};".encode())
            _add(digest, item)
        return
    if hasattr(value, "detach"):  # a tensor; as bytes, because numpy has not all of its types
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{value.dtype}{tuple(value.shape)};".encode())
        data = flat.view(sys.modules["torch"].uint8).numpy().tobytes()
    elif hasattr(value, "tobytes"):
        digest.update(f"{getattr(value, 'dtype', '')}{getattr(value, 'shape', '')};".encode())
        data = value.tobytes()
    else:
        data = value if isinstance(value, bytes) else repr(value).encode()
    digest.update(f"{type(value).__name__}{len(data)};".encode() + data)


def _say(line: Mapping[str, Any]) -> None:
    path = os.environ.get("SEEDBED_REPORT")
    if path:
        # One write to a file that is open for appending: lines of several processes do not mix.
        with Path(path).open("ab", buffering=0) as file:
            file.write(json.dumps(line).encode() + b"\n")
