"""Folders for what nobody counts on: gone with their process, or swept by the next one where it was killed."""

import fcntl
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
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
        top = Path(tempfile.mkdtemp(prefix=prefix))
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
    shutil.rmtree(top, ignore_errors=True)
    with suppress(OSError):
        os.close(held)


def _sweep(prefix: str) -> None:
    for top in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # not locked yet, still held, or just swept by another
            held = os.open(top / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(top, ignore_errors=True)
            finally:
                os.close(held)
