"""Signs of life in the store: a new numbered record every few seconds, and the one before it deleted.

No clock is ever compared with another machine's. Who watches notes, on a clock of their own, when the number last
changed; what has not changed for long enough has stopped. All beats of packs lie in one folder, so one listing
tells of all of them.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from jobs.errors import AlreadyExists, Corrupt, NotFound, SeedbedError
from jobs.layout import beat_key, parse_beat_key
from jobs.store import Store, get_record, put_record

BEAT_S = 5.0
PACK_SILENT_S = (
    26.0  # after which a pack is replaced: a beat is seen up to 2 s late, so 30 s after it stood still at most
)
LATE_S = 2 * BEAT_S  # after which its last beat is read: it may say why
log = logging.getLogger(__name__)

Clock = Callable[[], float]  # seconds that only go forward


@dataclass(slots=True)
class Pulse:
    """The beats of one pack, written by the process that carries it out."""

    store: Store
    pack_id: str
    number: int = 0

    def beat(self, body: Mapping[str, Any]) -> None:
        """Put the next beat and delete the one before; raises what the store raises, and may be called again."""
        number = self.number + 1
        try:
            put_record(self.store, beat_key(self.pack_id, number), {"pack_id": self.pack_id, **body})
        except AlreadyExists:  # the reply to an earlier try was lost
            log.debug("beat %d of pack %s was there", number, self.pack_id)
        self.number = number
        self.store.delete(beat_key(self.pack_id, number - 1))

    def end(self) -> None:
        """Delete the last beat: the process leaves."""
        self.store.delete(beat_key(self.pack_id, self.number))


def newest_beats(store: Store) -> dict[str, int]:
    """Return the number of the newest beat of every pack that has one, from one listing."""
    found: dict[str, int] = {}
    for key in store.keys("beats/"):
        parsed = parse_beat_key(key)
        if parsed:
            found[parsed[0]] = max(found.get(parsed[0], 0), parsed[1])
    return found


def stalled(store: Store, pack_id: str, number: int) -> str:
    """Return what a beat says that its pack has not ended in a plausible time; empty where it says nothing."""
    try:
        return str(get_record(store, beat_key(pack_id, number)).get("stalled", ""))
    except (NotFound, Corrupt):  # there is a later one by now, or none: silence tells the rest
        return ""


@dataclass(slots=True)
class Silences:
    """How long each pack has been silent, by the watcher's own clock."""

    clock: Clock
    _seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def look(self, beats: Mapping[str, int], packs: Iterable[str]) -> dict[str, float]:
        """Take note of a listing; returns the seconds of silence of each of `packs`, from when it was first asked for.

        A pack that has not yet begun is silent from then on, too: whether its launch was lost or it waits for its
        turn on the cluster is for the caller to know.
        """
        now = self.clock()
        watched: dict[str, tuple[int, float]] = {}
        for pack_id in packs:
            number = beats.get(pack_id, 0)
            before = self._seen.get(pack_id)
            # A beat that is gone is no sign of life: the number that was seen last stays.
            watched[pack_id] = (number, now) if before is None or number > before[0] else before
        self._seen = watched
        return {pack_id: now - since for pack_id, (_, since) in watched.items()}

    def number(self, pack_id: str) -> int:
        """Return the number of the newest beat that was seen of a pack; 0 before its first."""
        return self._seen.get(pack_id, (0, 0.0))[0]


class Heart:
    """A thread that beats until it is stopped, whatever one beat meets: silence tells the rest.

    A context: beating starts when it is entered, and ends when it is left.
    """

    def __init__(self, beat: Callable[[], None], every_s: float = BEAT_S) -> None:
        self._beat, self._every_s = beat, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)

    def _run(self) -> None:
        while True:
            try:
                self._beat()
            except SeedbedError as error:
                log.warning("no beat: %s", error)
            if self._stop.wait(self._every_s):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
