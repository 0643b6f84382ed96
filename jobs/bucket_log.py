"""A log that lies in a bucket: objects cannot grow, so the whole text is put again every few seconds.

It is the one thing in a store that is written over, and nothing but a reader's eye depends on it. A process that
is killed loses at most the lines since the last upload.
"""

import io
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from jobs.errors import StoreError

_EVERY_S = 3.0
_MOST_CHARACTERS = 4 << 20  # above, the middle is left out: every upload carries the whole text


class BucketLog(io.StringIO):
    """A text file that `upload` makes readable: soon while it is open, whole when it is closed.

    every_s  seconds between looks whether there is something new
    """

    def __init__(self, upload: Callable[[str], None], every_s: float = _EVERY_S) -> None:
        super().__init__()
        self._upload, self._every_s = upload, every_s
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._uploaded = 0
        self._thread = threading.Thread(target=self._follow, name="log", daemon=True)

    def write(self, text: str) -> int:
        """Add text."""
        with self._lock:
            return super().write(text)

    def _follow(self) -> None:
        while not self._ended.wait(self._every_s):
            self._bring_up()

    def _bring_up(self) -> None:
        with self._lock:
            text = self.getvalue()
        if len(text) != self._uploaded:
            with suppress(StoreError):  # a log that cannot be put must not end what it tells of
                self._upload(_shortened(text))
                self._uploaded = len(text)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._bring_up()


def _shortened(text: str) -> str:
    if len(text) <= _MOST_CHARACTERS:
        return text
    half = _MOST_CHARACTERS // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
