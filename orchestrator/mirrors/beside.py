"""Mirrors beside a head: rounds of a process of its own, so that a tracker can hang, fail or die as it likes.

Nothing waits for a mirror but the thread that looks after it. There is no queue: what was not sent lies in the store.
A round that says nothing for a while is ended with all its processes, and what it did not finish is sent again.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Self

EVERY_S = 30.0  # between two rounds
SHARE = 10  # a round that takes long is followed by a pause of so many times as long
PATIENCE_S = 60.0  # with a round that says nothing
LAST_ROUND_S = 60.0  # after the last step: then what is left waits for `seedbed sync`
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Round:
    """What one round did: runs with news, how many of them were sent, their rows; `error` is empty where all were."""

    runs: int = 0
    sent: int = 0
    rows: int = 0
    error: str = ""


def send(
    mirror: str,
    store_url: str,
    study: str,
    folder: Path,
    tell: Callable[[Round], None],
    *,
    patience_s: float = PATIENCE_S,
    ended: Callable[[], bool] = lambda: False,
) -> Round:
    """Send what a mirror has not been sent, in a process of its own, and return what became of it; never raises.

    tell   is told how far it is
    ended  ends it where it stands, as silence of `patience_s` does
    """
    with _process([mirror, store_url, study, str(folder)]) as lines:
        now, heard = Round(error=f"{mirror}: the process that sends ended at once"), time.monotonic()
        while True:
            try:
                line = lines.get(timeout=_LOOK_S)
            except queue.Empty:
                silent = time.monotonic() - heard
                if silent > patience_s:
                    return _but(now, f"{mirror} took nothing for {patience_s:g} s")
                if ended():
                    return _but(now, f"{mirror} was not waited for any longer")
                continue
            if not line:
                return now
            heard, now = time.monotonic(), _heard(now, line, mirror)
            tell(now)


@contextmanager
def _process(arguments: Sequence[str]) -> Iterator["queue.SimpleQueue[str]"]:
    """Yield the lines that the process says, an empty one at its end; leaving ends it, with all that it started."""
    with tempfile.TemporaryDirectory(prefix="seedbed-mirror-") as scratch:  # a process that is killed clears up nothing
        process = subprocess.Popen(
            # -P: a folder of the user's with the name of a part of Seedbed is not imported for ours.
            [sys.executable, "-P", "-m", "orchestrator.mirrors", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": scratch},
            start_new_session=True,
            text=True,
        )
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
        reader.start()
        try:
            yield lines
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    if pipe is not None:
                        pipe.close()


def _read(lines: IO[str] | None, into: "queue.SimpleQueue[str]") -> None:
    with suppress(ValueError, OSError):  # it was closed
        for line in lines or ():
            into.put(line)
    into.put("")


def _heard(now: Round, line: str, mirror: str) -> Round:
    try:
        told = json.loads(line)
    except json.JSONDecodeError:  # a tracker that prints
        return now
    if "error" in told:
        return _but(now, told["error"])
    return Round(told["runs"], told["sent"], told["rows"], f"{mirror}: the process that sends died")


def _but(now: Round, error: str) -> Round:
    return Round(now.runs, now.sent, now.rows, error)


@dataclass(slots=True)
class Beside:
    """The mirrors of a study while it is driven; leaving it ends what they do."""

    mirrors: Sequence[str]
    store_url: str
    study: str
    folder: Callable[[str], Path]
    every_s: float = EVERY_S
    patience_s: float = PATIENCE_S
    _stop: threading.Event = field(default_factory=threading.Event)
    _cut: threading.Event = field(default_factory=threading.Event)
    _threads: dict[str, threading.Thread] = field(default_factory=dict)
    _rounds: dict[str, Round] = field(default_factory=dict)

    def __enter__(self) -> Self:
        for mirror in self.mirrors:
            self._threads[mirror] = threading.Thread(target=self._mirror, args=(mirror,), daemon=True)
            self._threads[mirror].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._cut.set()
        self._stop.set()
        for thread in self._threads.values():
            thread.join()

    def finish(self, last_round_s: float = LAST_ROUND_S) -> dict[str, Round]:
        """Return what became of the last round of each mirror, which is begun now and may take so long."""
        self._stop.set()
        until = time.monotonic() + last_round_s
        for thread in self._threads.values():
            thread.join(max(until - time.monotonic(), 0.0))
        self._cut.set()
        for thread in self._threads.values():
            thread.join()
        return {mirror: self._rounds[mirror] for mirror in self.mirrors}

    def _mirror(self, mirror: str) -> None:
        pause = self.every_s
        while True:
            self._stop.wait(pause)
            if self._cut.is_set():
                self._rounds.setdefault(mirror, Round(error=f"{mirror} was not waited for any longer"))
                return
            last, began = self._stop.is_set(), time.monotonic()
            self._rounds[mirror] = send(
                mirror,
                self.store_url,
                self.study,
                self.folder(mirror),
                lambda _: None,
                patience_s=self.patience_s,
                ended=self._cut.is_set,
            )
            if last or self._cut.is_set():
                return
            pause = max(self.every_s, SHARE * (time.monotonic() - began))
