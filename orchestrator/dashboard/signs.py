"""Who is alive: beats of packs and drivers in the store, told apart by this server's own clock.

A beat is a number that grows; no clock of another machine is read. So what stood there before the server began to
watch counts as alive only when it has been heard again.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from jobs.beats import PACK_SILENT_S, newest_beats
from jobs.lease import LEASE_S, Sight, holder, sights
from jobs.store import Store

_LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was heard last and when; `again` once it has changed while somebody watched."""

    what: Any
    at: float
    again: bool = False

    def then(self, what: Any, now: float) -> "_Heard":
        return self if what == self.what else _Heard(what, now, again=True)


@dataclass(slots=True)
class Signs:
    """Watches the beats in a store.

    clock  seconds that only go forward
    """

    store: Store
    clock: Callable[[], float]
    _packs: dict[str, _Heard] = field(default_factory=dict)
    _drivers: dict[str, _Heard] = field(default_factory=dict)
    _looked: float | None = None

    def look(self, studies: Iterable[str]) -> None:
        """Note what beats now, if the last look is two seconds ago."""
        now = self.clock()
        if self._looked is not None and now - self._looked < _LOOK_S:
            return
        self._looked = now
        beats = newest_beats(self.store)
        self._packs = {pack: _then(self._packs.get(pack), number, now) for pack, number in beats.items()}
        drivers = sights(self.store)
        for study in studies:
            seen = drivers.get(study, Sight(0, 0, released=False))
            self._drivers[study] = _then(self._drivers.get(study), seen, now)

    def of_pack(self, pack_id: str) -> str:
        """Return `beats`, `silent`, `unheard` (it has a beat, and was not watched for long enough), or nothing."""
        heard = self._packs.get(pack_id)
        return "" if heard is None else self._judged(heard, PACK_SILENT_S)

    def stalled(self) -> set[str]:
        """Return the packs that were heard and have fallen silent."""
        return {pack for pack, heard in self._packs.items() if heard.again and self.of_pack(pack) == "silent"}

    def of_driver(self, study: str) -> dict[str, Any]:
        """Return who drives the study: state (none, left, beats, silent, unheard), epoch, host and pid."""
        heard = self._drivers.get(study)
        seen: Sight = heard.what if heard else Sight(0, 0, released=False)
        if heard is None or not seen.epoch:
            return {"state": "none", "epoch": 0, "host": "", "pid": 0}
        named = holder(self.store, study, seen.epoch)
        state = "left" if seen.released else self._judged(heard, LEASE_S)
        return {"state": state, "epoch": seen.epoch, "host": str(named.get("host", "")), "pid": named.get("pid", 0)}

    def _judged(self, heard: _Heard, silent_s: float) -> str:
        if self.clock() - heard.at > silent_s:
            return "silent"
        return "beats" if heard.again else "unheard"


def _then(before: _Heard | None, what: Any, now: float) -> _Heard:
    return _Heard(what, now) if before is None else before.then(what, now)
