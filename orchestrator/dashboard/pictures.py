"""The figures of a paper on the page: drawn in one thread beside the pages, once for each version of a study's tables.

A page never waits: it asks how far a picture is, shows the newest that there is, and says when that is of an earlier
version. What is drawn is what `seedbed plot` draws. One thread, since matplotlib's style is the whole process's.
"""

import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.errors import NotFound
from orchestrator.dashboard.beside import Beside, Carried
from orchestrator.dashboard.feed import Shelf
from orchestrator.declared import Declared

KINDS = {
    "ridgeline": ("The distribution over steps", "Each line is a histogram over runs at one probe."),
    "law": (
        "The distribution's law beside the mean's",
        "A mixture whose weight is P(success), beside one power law of the mean; bands are 95 % from resampled runs.",
    ),
    "probability": (
        "P(success) over scale, fitted and predicted",
        "Firth's logistic curve; diamonds: each scale as the smaller ones predicted it.",
    ),
    "onsets": (
        "Runs without onset",
        "Turnbull's estimate from the brackets of the probe grid; runs that never break through are censored.",
    ),
}
FORMATS = {"svg": "image/svg+xml", "png": "image/png"}
_MOST_KEPT = 60
Drawn = dict[str, bytes]
Key = tuple[str, str, str]


@dataclass(slots=True)
class _Kept:
    """A picture: the version that was asked for last, how far that is, and the newest that was drawn."""

    version: int
    coming: Future[Drawn]
    newest: tuple[int, Drawn] | None = None

    def settle(self) -> None:
        """Take over what has come."""
        if self.coming.done() and self.coming.exception() is None:
            self.newest = self.version, self.coming.result()


@dataclass(slots=True)
class Pictures:
    """Draws and keeps pictures."""

    beside: Beside
    _kept: dict[Key, _Kept] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "seedbed-pictures"))

    def state(self, shelf: Shelf, kind: str, metric: str) -> dict[str, Any]:
        """Return how far the picture of this version is, and begin it where nobody has; raises NotFound.

        state    ready, drawing, or impossible; `says` is why
        version  of the newest picture that there is, or None
        """
        if kind not in KINDS:
            raise NotFound(kind, f"is no figure here; there are {', '.join(KINDS)}")
        key = (shelf.declared.name, kind, metric)
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                kept.settle()
            if kept is None or (kept.version != shelf.version and kept.coming.done()):
                newest = kept.newest if kept is not None else None
                self._kept[key] = kept = _Kept(
                    shelf.version, self._thread.submit(self._draw, shelf, kind, metric), newest
                )
                self._drop_oldest()
        error = kept.coming.exception() if kept.coming.done() else None
        kept.settle()
        is_current = kept.newest is not None and kept.newest[0] == shelf.version
        return {
            "state": "ready" if is_current else "impossible" if error is not None else "drawing",
            "says": str(error) if error is not None else "",
            "version": kept.newest[0] if kept.newest else None,
            "of": shelf.version,
        }

    def file(self, study: str, kind: str, metric: str, form: str) -> bytes:
        """Return the newest picture that was drawn; raises NotFound."""
        with self._lock:
            kept = self._kept.get((study, kind, metric))
        if kept is not None:
            kept.settle()
        if kept is None or kept.newest is None or form not in FORMATS:
            raise NotFound(f"{kind}.{form}", "was not drawn yet: ask for its .json first")
        return kept.newest[1][form]

    def _draw(self, shelf: Shelf, kind: str, metric: str) -> Drawn:
        carried = Carried.of(shelf.tables)
        return self.beside.call(carried.size_bytes, _draw, shelf.declared, carried, kind, metric)

    def close(self) -> None:
        """Let the thread end; what was begun is finished first."""
        self._thread.shutdown(cancel_futures=True)

    def _drop_oldest(self) -> None:
        while len(self._kept) > _MOST_KEPT:
            del self._kept[next(iter(self._kept))]


def _draw(declared: Declared, carried: Carried, kind: str, metric: str) -> Drawn:
    from orchestrator.plots.kinds import KINDS as DRAWERS  # matplotlib takes a second
    from orchestrator.plots.style import house_style, write
    from orchestrator.questions.asked import Options, Question

    question = Question(declared, carried.tables(), Options(metric=metric))
    with tempfile.TemporaryDirectory(prefix="seedbed-picture-") as folder, house_style():
        figure = DRAWERS[kind].draw(question)
        return {form: write(figure, Path(folder) / f"figure.{form}").read_bytes() for form in FORMATS}
