"""Studies of one store beside each other: the less important one makes room.

Each driver's beats say how important its study is and how many of its packs wait for room. A driver that sees a more
important study wait launches nothing, and asks as many of its packs to save and leave as the others wait for: at once,
and again only after YIELD_S, when those that got room have said so. Between equals, who came first has the room.

No clock is compared with another's: a driver whose beats stop has lapsed, as for the lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from jobs.beats import Clock, Silences
from jobs.lease import LEASE_S, said, sights
from jobs.store import Store

YIELD_S = 30.0  # for a pack to save and end, another to be launched in its place, and its driver to say so
_PRIORITY, _WAITING = "priority", "waiting"
_MOST_BEATS = 10**8  # of an epoch: the digits that their names have


def wishes(priority: int, waiting: int) -> Mapping[str, int]:
    """Return what a driver's beats say to its rivals: how important its study is, and how many packs wait for room."""
    return {_PRIORITY: priority, _WAITING: waiting}


@dataclass(slots=True)
class Rivals:
    """What other drivers of a store ask of the driver of `study`."""

    store: Store
    study: str
    priority: int
    clock: Clock
    _silences: Silences = field(init=False)
    _yielded_at: float = -inf

    def __post_init__(self) -> None:
        self._silences = Silences(self.clock)

    def waiting(self) -> int:
        """Return how many packs of more important studies wait for room; raises what the store raises."""
        found = {
            study: seen
            for study, seen in sights(self.store).items()
            if study != self.study and seen.beat and not seen.released
        }
        numbers = {study: seen.epoch * _MOST_BEATS + seen.beat for study, seen in found.items()}
        silent_s = self._silences.look(numbers, sorted(found))
        told = (said(self.store, study, found[study]) for study in sorted(found) if silent_s[study] <= LEASE_S)
        return sum(it.get(_WAITING, 0) for it in told if it.get(_PRIORITY, 0) > self.priority)

    def leaving(self, waiting: int, live: int) -> int:
        """Return how many of the live packs shall leave now for those that wait."""
        if not waiting or not live or self.clock() - self._yielded_at < YIELD_S:
            return 0
        self._yielded_at = self.clock()
        return min(waiting, live)
