"""The other processes of a run, as its first one sees them: started, told what to do, and ended.

They keep nothing that the first process could not make again, so that killing them loses nothing; they end when it
does, however it ends (their input closes). One that dies is an error of the first, and the run goes on elsewhere.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.errors import RankLost, StoreError
from jobs.scratch import Scratch
from jobs.seeds import Streams
from jobs.spec import Condition
from workers.engines.replica import Shape, module_spec
from workers.engines.world import World, joined

HEADER = 5  # order, run, step, rows, length
STORE_FAILED = 74  # the exit code of a process that could not save
_START_S = 300.0
_LOOK_S = 0.02
_LAST_S = 10.0
log = logging.getLogger(__name__)


class Order(IntEnum):
    """What the first process lets all do."""

    STOP = 0
    STEP = 1
    EVALUATE = 2
    STATE = 3
    LOAD = 4
    LAYERS = 5
    ATTENTION = 6
    WEIGHTS = 7
    SAVE = 8

    @property
    def parts(self) -> int:
        """Return how many tables of tokens go with it: inputs, and targets where something is asked."""
        return {Order.STEP: 2, Order.EVALUATE: 2, Order.LAYERS: 1, Order.ATTENTION: 1}.get(self, 0)


@dataclass(slots=True)
class Fellows:
    """The processes beside this one; none where a run has one process."""

    world: World
    processes: Sequence["subprocess.Popen[bytes]"] = ()
    folder: Path = field(default_factory=Path)
    is_idle: bool = True

    @contextmanager
    def doing(
        self, order: Order, slot: int = 0, step: int = 0, rows: Sequence[Tensor] = (), said: str = ""
    ) -> Iterator[None]:
        """Let all processes carry out an order, this one in the context; raises RankLost where one has ended.

        What belongs to it are rows of a batch, or something said.
        """
        if not self.processes:
            yield
            return
        with self.watched():
            self.check()
            text = torch.tensor(list(said.encode()), dtype=torch.uint8)
            shape = rows[0].shape if rows else (0, len(text))
            self.world.tell(torch.tensor([order, slot, step, *shape]))
            for part in rows or ((text,) if said else ()):
                self.world.tell(part)
            yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Do something with all processes in the context; raises RankLost where one ends meanwhile."""
        self.is_idle = False
        try:
            yield
        except RuntimeError as error:  # what a library says when another process is gone
            self.check(wait_s=_LAST_S if self.processes else 0.0, because=error)
            raise
        self.is_idle = True

    def check(self, wait_s: float = 0.0, because: BaseException | None = None) -> None:
        """Raise RankLost where a process has ended, StoreError where its store failed; waits a while for that."""
        end = time.monotonic() + wait_s
        while True:
            for rank, process in enumerate(self.processes, start=1):
                if process.poll() is not None:
                    told = _last_line(self.folder / f"{rank}.log")
                    name = f"process {rank} of {self.world.size}"
                    if process.returncode == STORE_FAILED:
                        raise StoreError("parts", f"{name} could not save its part{told}") from because
                    raise RankLost(f"{name} ended with code {process.returncode}{told}") from because
            if time.monotonic() >= end:
                return
            time.sleep(_LOOK_S)

    def end(self) -> None:
        """End the processes: by their word where they wait for one, else at once."""
        if self.is_idle and self.processes and all(process.poll() is None for process in self.processes):
            with self.doing(Order.STOP):
                pass
            end = time.monotonic() + _LAST_S
            while time.monotonic() < end and any(process.poll() is None for process in self.processes):
                time.sleep(_LOOK_S)
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def gathered(condition: Condition, shape: Shape, streams: Sequence[Streams], device: str) -> Iterator[Fellows]:
    """Give the processes that train a pack together with this one, as long as the context lasts.

    Raises RankLost where one ends before it has begun.
    """
    spec = module_spec(condition)
    if spec.processes == 1:
        with joined(Path(), 0, 1, device) as world:
            yield Fellows(world)
        return
    with Scratch("processes") as folder:
        asked = {
            "condition": condition.model_dump(mode="json"),
            "shape": [shape.vocabulary_size, shape.length, shape.first_answer],
            "seeds": [stream.seeds.as_dict() for stream in streams],
            "device": device,
        }
        (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
        processes = [_start(folder, rank, spec.threads) for rank in range(1, spec.processes)]
        lone = Fellows(World(0, spec.processes, torch.device("cpu")), processes, folder)
        try:
            _await_all(lone)
            with joined(folder, 0, spec.processes, device) as world:
                fellows = Fellows(world, processes, folder)
                try:
                    yield fellows
                finally:
                    fellows.end()
        finally:
            lone.is_idle = False
            lone.end()


def _start(folder: Path, rank: int, threads: int) -> "subprocess.Popen[bytes]":
    """Start one process; its input stays open as long as this one lives, and what it says goes to a file."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }
    command = [sys.executable, "-m", "workers.engines.fellow", str(folder), str(rank)]
    with (folder / f"{rank}.log").open("wb") as file:
        # A session of its own, so that a terminal's Ctrl-C does not reach it before it can ignore that.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=file, stderr=file, env=environment, start_new_session=True
        )


def _await_all(fellows: Fellows) -> None:
    """Wait until every process has said that it is there: only then is it safe to wait for it inside a library."""
    end = time.monotonic() + _START_S
    while not all((fellows.folder / f"{rank}.ready").exists() for rank in range(1, fellows.world.size)):
        fellows.check()
        if time.monotonic() > end:
            raise RankLost(f"the other processes were not there after {_START_S:.0f} s")
        time.sleep(_LOOK_S)


def _last_line(path: Path) -> str:
    text: Any = path.read_text(encoding="utf-8", errors="replace").strip() if path.exists() else ""
    if text:
        log.error("what a process of the pack said last:\n%s", text[-4000:])
    return f": {text.splitlines()[-1]}" if text else ""
