"""One node's part of a run: its processes are started there, looked after, and ended.

A run on several nodes has one host for each: `Here` on the node of its first process, and others that whoever launched
the pack reaches there. Nothing of a run depends on which processes lie on which node.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.scratch import Scratch

LOOK_S = 0.02
LAST_S = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended: its rank, its exit code, and what it said."""

    rank: int
    code: int
    said: str


class Host(Protocol):
    """A node on which processes of a run are started; for one run after another."""

    def start(self, asked: str, ranks: Sequence[int], threads: int) -> None:
        """Start processes that are told `asked`; raises NodeLost where the node is gone, as all methods do."""

    def are_ready(self) -> bool:
        """Return whether all have said that they are there."""

    def ended(self) -> Ended | None:
        """Return the first process that has ended, if one has."""

    def end(self, wait_s: float) -> None:
        """End all processes; those that end by themselves have some time for it."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes of a pack beside its own, and the address at which they reach this one."""

    others: Sequence[Host] = ()
    address: str = ""


ALONE = Nodes()


@dataclass(slots=True)
class Here:
    """This node."""

    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    _scratch: Scratch | None = None

    @property
    def folder(self) -> Path:
        """Return the private folder of the processes; it is gone when they are."""
        if self._scratch is None:
            self._scratch = Scratch("processes")
        return self._scratch.folder

    def start(self, asked: str, ranks: Sequence[int], threads: int) -> None:
        """Start processes."""
        (self.folder / "asked.json").write_text(asked, encoding="utf-8")
        for rank in ranks:
            self.processes[rank] = _start(self.folder, rank, threads)

    def are_ready(self) -> bool:
        """Return whether all have said that they are there."""
        return all((self.folder / f"{rank}.ready").exists() for rank in self.processes)

    def ended(self) -> Ended | None:
        """Return the first process that has ended."""
        for rank, process in tuple(self.processes.items()):
            if process.poll() is not None:
                log = self.folder / f"{rank}.log"
                said = log.read_text(encoding="utf-8", errors="replace").strip() if log.exists() else ""
                return Ended(rank, process.returncode, said[-4000:])
        return None

    def end(self, wait_s: float) -> None:
        """End all processes, and remove their folder."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until and any(process.poll() is None for process in self.processes.values()):
            time.sleep(LOOK_S)
        for process in self.processes.values():
            process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self.processes.clear()
        if self._scratch is not None:
            self._scratch.close()
            self._scratch = None


def _start(folder: Path, rank: int, threads: int) -> "subprocess.Popen[bytes]":
    """Start one process; its input stays open as long as this one lives, and what it says goes to a file."""
    root = str(Path(__file__).resolve().parents[1])
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
