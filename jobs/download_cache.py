"""Downloads of this process: a private folder that is bounded, and gone when the process is.

Nothing counts on it: whatever is here is in the bucket, and what is not is downloaded again.
"""

import atexit
import functools
import secrets
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.scratch import Scratch

MOST_BYTES = 4 << 30
_ALWAYS_KEPT = 8  # the newest files stay whatever their size: somebody is about to open them


class DownloadCache:
    """Files by address and key, the oldest leaving first.

    most_bytes  how large all of them may be together
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._held: OrderedDict[tuple[str, str], tuple[Path, int]] = OrderedDict()
        self._lock = threading.Lock()
        self._scratch = Scratch("downloads")
        self.folder = self._scratch.folder

    def find(self, url: str, key: str) -> Path | None:
        """Return the file of the key, if it is still here."""
        with self._lock:
            held = self._held.get((url, key))
            if held is None or not held[0].is_file():
                return None
            self._held.move_to_end((url, key))
            return held[0]

    @contextmanager
    def filling(self, url: str, key: str) -> Iterator[Path]:  # noqa: ARG002
        """Yield the path of a new file to fill, and remove it unless it was kept."""
        staged = self.folder / f"{secrets.token_hex(8)}.part"
        try:
            yield staged
        finally:
            staged.unlink(missing_ok=True)

    def keep(self, url: str, key: str, staged: Path) -> Path:
        """Return where the filled file now is under its key; the oldest leave where there are too many bytes."""
        # The name of the key stays: a user's own task is found by it.
        folder = self.folder / secrets.token_hex(8)
        folder.mkdir()
        path = folder / key.rpartition("/")[2]
        staged.rename(path)
        with self._lock:
            self._held[url, key] = (path, path.stat().st_size)
            total = sum(size for _, size in self._held.values())
            while total > self._most_bytes and len(self._held) > _ALWAYS_KEPT:
                _, (oldest, size) = self._held.popitem(last=False)
                shutil.rmtree(oldest.parent, ignore_errors=True)
                total -= size
        return path

    def drop(self, url: str, key: str) -> None:
        """Forget the key."""
        with self._lock:
            held = self._held.pop((url, key), None)
        if held is not None:
            shutil.rmtree(held[0].parent, ignore_errors=True)

    def close(self) -> None:
        """Remove the folder."""
        self._scratch.close()


@functools.cache
def process_cache(process: int) -> DownloadCache:  # noqa: ARG001
    """Return the cache of this process, made when it is first asked for; a forked child has its own."""
    cache = DownloadCache()
    atexit.register(cache.close)
    return cache
