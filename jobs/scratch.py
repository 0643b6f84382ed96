"""Folders for what nobody counts on: gone with their process, or swept by the next one where it was killed."""

import fcntl
import os
import tempfile
import weakref
from contextlib import suppress
from os import rmdir, unlink
from pathlib import Path
from types import TracebackType

_LOCK = "alive"


class Scratch:
    """A private folder with files of this process, removed with this object; what it is for is part of its name.

    A process that is killed removes nothing, so whoever makes the next folder of that name removes those of the dead.
    """

    def __init__(self, what: str) -> None:
        prefix = f"seedbed-{what}-{os.getuid()}-"
        _sweep(prefix)
        top = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        # Whoever can take this lock knows that the process is gone, in whatever container it was. It gets its name when
        # it is held: in between it would look like a dead one's.
        held = os.open(top / f"{_LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(held, fcntl.LOCK_EX)
        (top / f"{_LOCK}.new").rename(top / _LOCK)
        self.folder = top / "files"
        self.folder.mkdir()
        self._remove = weakref.finalize(self, _remove, top, held)

    def close(self) -> None:
        """Remove the folder now."""
        self._remove()

    def __enter__(self) -> Path:
        """Return the folder."""
        return self.folder

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the folder."""
        self.close()


def _remove(top: Path, held: int) -> None:
    _clear(top)
    with suppress(OSError):
        os.close(held)


def _clear(top: Path) -> None:
    for folder, folders, files in os.walk(top, topdown=False):
        for name in (*files, *folders):
            drop(Path(folder, name))
    drop(top)


def drop(path: Path) -> None:
    """Remove a file, or an empty folder, if it is there.

    Finalizers call this in the midst of whatever is done to a store, whose storage operations tests count and fail: so
    it is done by functions that were bound when this module was read.
    """
    with suppress(OSError):
        (rmdir if path.is_dir() and not path.is_symlink() else unlink)(path)


def _sweep(prefix: str) -> None:
    for top in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # not locked yet, still held, or just swept by another
            held = os.open(top / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _clear(top)
            finally:
                os.close(held)
