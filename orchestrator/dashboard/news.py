"""News for open pages: one stream of server-sent events, deltas only, at most two a second, fewer where many read.

An event says what changed, not what is: numbers of the changed study, and for each changed condition the first step to
read again. The first event has the versions of all studies: a page that is behind them reads anew what it missed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.dashboard.alerts import Alert
from orchestrator.dashboard.feed import News

MOST_READERS = 512
_PAUSE_S, _READERS_A_SECOND = 0.5, 50
_BEAT_S = 5.0


@dataclass(eq=False, slots=True)
class _Reader:
    """One open page: what it was not told yet, the newest of each study, and the alerts."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, name: str, told: dict[str, Any]) -> None:
        before = self.studies.get(name)
        if before is not None:
            steps = dict(before["changed"])
            for label, step in told["changed"].items():
                steps[label] = min(step, steps.get(label, step))
            told = told | {"changed": steps}
        self.studies[name] = told
        self.wake.set()


@dataclass(slots=True)
class Broadcast:
    """Hands news from the feed's thread to the pages that listen, and never waits for a slow one."""

    loop: asyncio.AbstractEventLoop | None = None
    _readers: set[_Reader] = field(default_factory=set)

    def publish(self, news: News) -> None:
        """Tell every reader; called from the feed's thread."""
        told = study_event(news)

        def tell() -> None:
            for reader in self._readers:
                reader.tell(told["study"], told)

        self._later(tell)

    def alert(self, alert: Alert) -> None:
        """Tell every reader of an alert; called from the feed's thread."""

        def tell() -> None:
            for reader in self._readers:
                reader.alerts.append(alert.as_dict())
                reader.wake.set()

        self._later(tell)

    def _later(self, call: Any) -> None:
        if self.loop is not None and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(call)

    @property
    def is_full(self) -> bool:
        """Return whether no more readers are taken."""
        return len(self._readers) >= MOST_READERS

    async def stream(self, versions: Callable[[], dict[str, int]]) -> AsyncIterator[bytes]:
        """Yield events as bytes, and a beat where there are none, until the reader goes."""
        reader = _Reader()
        self._readers.add(reader)
        try:
            # Asked only now, when nothing that comes later can be missed.
            yield b"retry: 1000\n\n" + _event("hello", 0, {"versions": versions()})
            while True:
                try:
                    await asyncio.wait_for(reader.wake.wait(), _BEAT_S)
                except TimeoutError:
                    yield b"event: beat\ndata: {}\n\n"
                    continue
                reader.wake.clear()
                studies, reader.studies = reader.studies, {}
                alerts, reader.alerts = reader.alerts, []
                for told in studies.values():
                    yield _event("study", told["version"], told)
                for told in alerts:
                    yield _event("alert", 0, told)
                # After news each page asks for what changed: the more there are, the more news go into one answer.
                await asyncio.sleep(max(_PAUSE_S, len(self._readers) / _READERS_A_SECOND))
        finally:
            self._readers.discard(reader)


def study_event(news: News) -> dict[str, Any]:
    """Return what a page is told of a change."""
    shelf = news.shelf
    return {
        "study": shelf.declared.name,
        "version": shelf.version,
        "counts": shelf.counts,
        "launched": shelf.launched,
        "changed": news.changed,
    }


def _event(kind: str, number: int, told: dict[str, Any]) -> bytes:
    mark = f"id: {number}\n" if number else ""
    return f"event: {kind}\n{mark}data: {json.dumps(told, allow_nan=False)}\n\n".encode()
