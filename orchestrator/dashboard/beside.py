"""A process beside the server for what takes much memory: parts of tables, summaries, figures, estimates.

The server stays small and goes on answering. What is small is done in the server itself, since a process takes two
seconds to begin; the process leaves when it was idle for a while, and with the server, however that ends.

Not here: users' SQL, which has a process with walls (`sandbox.py`).
"""

import contextlib
import ctypes
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pyarrow as pa

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.collected import Collected, Placed, Tables, on_threads
from orchestrator.parts import Part, PartTask

T = TypeVar("T")
R = TypeVar("R")
FEW_BYTES = 512 * 1024  # of compressed files: what they become in memory is some ten times that
_IDLE_S = 60.0
_M_ARENA_MAX = -8  # of mallopt(3)


@dataclass(slots=True)
class Beside:
    """Does work here or in the process beside, by how many bytes of files it reads.

    clock  seconds that only go forward
    """

    few_bytes: int = FEW_BYTES
    clock: Callable[[], float] = time.monotonic
    _pool: ProcessPoolExecutor | None = None
    _used: float = 0.0
    _at_work: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def map(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterable[R]:
        """Return what the function gives for each task, in their order; raises QueryError where the process died."""
        if sum(map(_size, tasks)) <= self.few_bytes:
            return on_threads(function, tasks)
        return self._run(lambda pool: list(pool.map(function, tasks)))

    def call(self, size_bytes: int, function: Callable[..., R], *arguments: Any) -> R:
        """Return what the function gives; size_bytes: of the files that it reads."""
        if size_bytes <= self.few_bytes:
            return function(*arguments)
        return self._run(lambda pool: pool.submit(function, *arguments).result())

    @property
    def process(self) -> int | None:
        """Return the number of the process, or None while there is none."""
        pool = self._pool
        return next(iter(pool._processes), None) if pool is not None else None  # noqa: SLF001

    def rest(self) -> None:
        """Let the process end if it has been idle for a while."""
        with self._lock:
            if self._pool is not None and not self._at_work and self.clock() - self._used > _IDLE_S:
                self._drop()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._drop()

    def _run(self, work: Callable[[ProcessPoolExecutor], R]) -> R:
        with self._lock:
            self._at_work += 1
            if self._pool is None:
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(1, context, initializer=_leave_with_the_server)
            pool = self._pool
        try:
            return work(pool)
        except BrokenProcessPool:
            with self._lock:
                if self._pool is pool:
                    self._drop()
            raise QueryError("the process beside the server was ended, perhaps for want of memory") from None
        finally:
            with self._lock:
                self._at_work -= 1
                self._used = self.clock()

    def _drop(self) -> None:
        if self._pool is not None:
            for process in list(self._pool._processes.values()):  # noqa: SLF001  (it would finish its task first)
                process.kill()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _leave_with_the_server() -> None:
    server = multiprocessing.parent_process()

    def wait() -> None:
        if server is not None:
            server.join()
        os._exit(0)  # a server that was killed could not say goodbye

    threading.Thread(target=wait, daemon=True).start()


def _size(task: Any) -> int:
    if isinstance(task, PartTask):
        return sum(manifest.size_bytes for manifest in task.shards)
    return sum(size for _, _, _, size in task.files)


@dataclass(frozen=True, slots=True)
class Carried:
    """A study's tables on their way to another process: the small ones, and where the files of `metrics` are.

    parts  (part, store, key) of each; None where `metrics` is among the small ones
    """

    small: dict[str, Any]
    parts: tuple[tuple[Part, str, str], ...] | None

    @classmethod
    def of(cls, tables: Tables) -> "Carried":
        """Return the tables so that they can be sent; their files last as long as `tables` does."""
        if not isinstance(tables, Collected):
            return cls(dict(tables), None)
        return cls(tables.small, tuple((placed.part, placed.store.url, placed.key) for placed in tables.parts))

    def only(self, condition_ids: set[str], metric: str) -> "Carried":
        """Return the rows of one metric of some conditions; without the small tables, where it is a matter of files."""
        if self.parts is None:
            return self
        wanted = (each for each in self.parts if each[0].condition_id in condition_ids and metric in each[0].metrics)
        return Carried({}, tuple(wanted))

    @property
    def size_bytes(self) -> int:
        """Return the size of the files."""
        return sum(part.size_bytes for part, _, _ in self.parts or ())

    def tables(self) -> Tables:
        """Return them as they were."""
        if self.parts is None:
            return self.small
        return Collected(self.small, tuple(Placed(part, open_store(url), key) for part, url, key in self.parts))


def spare_memory() -> None:
    """Let this process give back what it frees, where the C library is GNU's: one arena, for Arrow, too."""
    pa.set_memory_pool(pa.system_memory_pool())
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give freed memory back now."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
