"""A disk that fails at its k-th operation, in every way that disks and processes do.

Every durable step of the store goes through `os.fsync`, `os.link` and `os.unlink`; they are counted, and the chosen one
fails. After a crash nothing more reaches the disk, not even the clean-up of a `finally`.

    before  the process dies before the operation
    after   the process dies right after it
    torn    the process dies and only half of the file's bytes have reached the disk
    error   the operation fails once with EIO, and the process lives on
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

MODES = ("before", "after", "torn", "error")


KILLED = 9  # the exit code of a process that really died at its operation


class Crash(BaseException):
    """The process died here, as far as its own code can tell."""


class Disk:
    """Counts operations; the one with the number `fails_at` (from 0; -1: none) fails as `mode` says.

    really  whether the process ends then and there; else Crash is raised, from that operation on by every one
    """

    def __init__(self, fails_at: int = -1, mode: str = "before", *, really: bool = False) -> None:
        self.fails_at, self.mode, self.really = fails_at, mode, really
        self.count = 0
        self.dead = False

    @contextmanager
    def in_place(self) -> Iterator["Disk"]:
        """Put this disk in the place of the real one."""
        names = ("fsync", "link", "unlink")
        patches = [patch.object(os, name, self._wrapped(name, getattr(os, name))) for name in names]
        for one in patches:
            one.start()
        try:
            yield self
        finally:
            for one in patches:
                one.stop()

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **named: Any) -> Any:
            if self.dead and self.really:
                threading.Event().wait(60)  # the thread that met the failure is about to end all of them
            if self.dead:
                raise Crash
            number, self.count = self.count, self.count + 1
            if number != self.fails_at:
                return real(*arguments, **named)
            if self.mode == "error":
                raise OSError(errno.EIO, "Input/output error")
            self.dead = True
            if self.mode == "after":
                with suppress(OSError):  # a link that loses is an operation, too
                    real(*arguments, **named)
            elif self.mode == "torn" and name == "fsync":
                _tear(arguments[0])
            if self.really:
                os._exit(KILLED)
            raise Crash

        return operation


def _tear(handle: int) -> None:
    path = Path(f"/proc/self/fd/{handle}").readlink()
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)
