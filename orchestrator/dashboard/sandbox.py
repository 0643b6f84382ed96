"""A user's SQL: in a process of its own, with limits of memory, time and rows, over files that it reads.

`query.sql` locks DuckDB down; the process is the second wall: the kernel refuses it to write any file, and a query
that does not stop when it is told to is killed with it. The next query gets a new process.
"""

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from jobs.errors import QueryError
from orchestrator.dashboard.sandbox_process import receive, send

_GRACE_S = 2.0  # DuckDB's own timer comes first; some functions do not listen to it
_START_S = 60.0
_ROOT = Path(__file__).parents[2]
_MOST_TEXT = 20_000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may take: seconds, bytes of DuckDB's memory, rows of its answer."""

    seconds: float = 1.0
    memory_bytes: int = 512 * 1024**2
    rows: int = 10_000


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of an answer; `cut` where it has more than the limit of rows."""

    table: pa.Table
    cut: bool


@dataclass(slots=True)
class Sandbox:
    """Up to `width` processes that wait for queries; more queries than that wait their turn."""

    limits: Limits
    width: int = 2
    _idle: queue.LifoQueue[subprocess.Popen[bytes] | None] = field(init=False)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._idle = queue.LifoQueue()
        for _ in range(self.width):
            self._idle.put(None)

    def ask(self, text: str, *studies: Mapping[str, Sequence[Path]]) -> Answer:
        """Return the answer of one SELECT over the tables of one study or of several; raises QueryError.

        studies: of each by table its files, Arrow IPC or Parquet; all of them have the same tables
        """
        if len(text) > _MOST_TEXT:
            raise QueryError(f"a query has at most {_MOST_TEXT:,} characters")
        question = {
            "text": text,
            "studies": [{name: [str(path) for path in paths] for name, paths in files.items()} for files in studies],
            "timeout_s": self.limits.seconds,
            "most_rows": self.limits.rows + 1,
        }
        with self._process() as process:
            table = self._exchange(process, json.dumps(question).encode())
        return Answer(table.slice(0, self.limits.rows), table.num_rows > self.limits.rows)

    def close(self) -> None:
        """End the processes."""
        self._closed = True
        for _ in range(self.width):
            with contextlib.suppress(queue.Empty):
                process = self._idle.get_nowait()
                if process is not None:
                    _end(process)

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        found = self._idle.get()
        if found is not None and found.poll() is not None:
            _end(found)
            found = None
        process = found
        try:
            process = process or self._start()
            yield process
        finally:
            if process is not None and (self._closed or process.poll() is not None):
                _end(process)
                process = None
            self._idle.put(process)

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.dashboard.sandbox_process", str(self.limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONPATH": str(_ROOT)},
        )
        if _within(_START_S, process, lambda: receive(process.stdout)) is None:
            _end(process)
            raise QueryError("no process for queries could be started")
        return process

    def _exchange(self, process: subprocess.Popen[bytes], question: bytes) -> pa.Table:
        def exchange() -> tuple[bytes | None, bytes | None]:
            send(process.stdin, question)
            return receive(process.stdout), receive(process.stdout)

        head, body = _within(self.limits.seconds + _GRACE_S, process, exchange) or (None, None)
        if head is None or body is None:
            process.kill()
            process.wait()
            raise QueryError(
                f"the query took longer than {self.limits.seconds:g} s, or more memory than it may have: its process "
                "was ended"
            )
        told = json.loads(head)
        if told["last"]:
            process.wait()
        if "error" in told:
            raise QueryError(told["error"])
        return pa.ipc.open_stream(body).read_all()


def _within(seconds: float, process: subprocess.Popen[bytes], talk: Callable[[], T]) -> T | None:
    """Return what `talk` returns; the process is killed after `seconds`, and then that is None."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        return talk()
    except BrokenPipeError:
        return None
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
