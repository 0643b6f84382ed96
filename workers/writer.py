"""One thread that makes things durable, in the order in which they were handed over, while training goes on.

What it failed to write is raised where the next thing is handed over, and at the latest where its end is awaited:
no error is lost, and nothing is written after one.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

Job = Callable[[], None]


class Writer:
    """A queue with one thread behind it; a context that ends when all is written."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, "writer")
        self._last: Future[None] | None = None

    def submit(self, job: Job) -> None:
        """Hand over `job`; raises what an earlier one failed with, if that is known by now."""
        before = self._last
        if before is not None and before.done():
            before.result()
        self._last = self._executor.submit(_after, before, job)

    def check(self) -> None:
        """Raise what failed, if that is known by now."""
        if self._last is not None and self._last.done():
            self._last.result()

    def wait(self) -> None:
        """Wait until all is written; raises what failed."""
        if self._last is not None:
            self._last.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(wait=True)
        if error is None:
            self.wait()


def _after(before: "Future[None] | None", job: Job) -> None:
    if before is not None:
        before.result()
    job()
