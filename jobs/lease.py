"""One driver at a time: numbered epochs, claimed by put-if-absent, kept by beats, and no clock compared.

Whoever puts the next number has the study, and whoever finds a higher number than its own has lost it. A driver
beats at least every BEAT_S seconds; one whose beats have not changed for LEASE_S seconds of the watcher's own clock
has lapsed, and its successor claims the next number. A driver that was only slow finds that number before its next
launch, and leaves. What it launched in between is void (`workers/pack.py`), and its rows are counted by the same rule
as everybody's (`claims.py`): the lease saves work, the fences keep the truth.

Not here: signs of life of packs (`beats.py`).
"""

import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from jobs.beats import Clock
from jobs.errors import AlreadyExists, Corrupt, LeaseLost, NotFound, Superseded
from jobs.layout import DriverKeys, PackKeys, parse_driver_key
from jobs.pack import PackRequest
from jobs.process import is_surely_dead, this_process
from jobs.store import Store, get_record, put_record

LEASE_S = 15.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What the store says of a study's newest driver.

    epoch     its number; 0 where there never was one
    beat      the number of its newest beat
    released  whether it has left by itself
    """

    epoch: int
    beat: int
    released: bool


@dataclass(slots=True)
class Lease:
    """The right to drive a study, for as long as no later epoch is there.

    says  what its beats tell the drivers of other studies (`orchestrator/rivals.py`)
    """

    store: Store
    study: str
    epoch: int
    _number: int = 0
    says: Mapping[str, int] = field(default_factory=dict)

    @property
    def keys(self) -> DriverKeys:
        """Return the keys of this epoch."""
        return DriverKeys(self.study, self.epoch)

    def check(self) -> None:
        """Raise LeaseLost where a later driver has the study."""
        if self.store.exists(DriverKeys(self.study, self.epoch + 1).claim):
            raise LeaseLost(self.study, self.epoch)

    def beat(self) -> None:
        """Give a sign of life; raises LeaseLost, or what the store raises, and may be called again."""
        self.check()
        number = self._number + 1
        with suppress(AlreadyExists):  # the reply to an earlier try was lost
            put_record(self.store, self.keys.beat(number), {"says": dict(self.says)})
        self._number = number
        self.store.delete(self.keys.beat(number - 1))

    def release(self) -> None:
        """Leave the study, so that the next driver need not wait; may be called again."""
        try:
            put_record(self.store, self.keys.released, {})
        except AlreadyExists:
            return
        self.store.delete(self.keys.beat(self._number))


def sight(store: Store, study: str) -> Sight:
    """Return what the store says of the study's newest driver."""
    return _sights(store.keys(f"drivers/{study}.")).get(study, Sight(0, 0, released=False))


def sights(store: Store) -> dict[str, Sight]:
    """Return what the store says of the newest driver of every study that ever had one, from one listing."""
    return _sights(store.keys("drivers/"))


def said(store: Store, study: str, seen: Sight) -> Mapping[str, int]:
    """Return what a driver's beat says; empty where there is a later one by now, or none."""
    try:
        return dict(get_record(store, DriverKeys(study, seen.epoch).beat(seen.beat))["says"])
    except (NotFound, Corrupt, KeyError):
        return {}


def _sights(keys: Iterable[str]) -> dict[str, Sight]:
    newest: dict[str, Sight] = {}
    for key in keys:
        found = parse_driver_key(key)
        if found is None:
            continue
        study, epoch, what = found
        seen = newest.get(study, Sight(0, 0, released=False))
        if epoch < seen.epoch:
            continue
        if epoch > seen.epoch:
            seen = Sight(epoch, 0, released=False)
        if what == "released.json":
            seen = replace(seen, released=True)
        elif what.endswith(".beat"):
            seen = replace(seen, beat=max(seen.beat, int(what.removesuffix(".beat"))))
        newest[study] = seen
    return newest


def holder(store: Store, study: str, epoch: int) -> Mapping[str, Any]:
    """Return who claimed an epoch: host, pid and what else names the process; empty where nobody did."""
    try:
        return dict(get_record(store, DriverKeys(study, epoch).claim)["holder"])
    except NotFound:
        return {}


def check_still_wanted(store: Store, request: PackRequest) -> None:
    """Raise Superseded where its head has given the pack up, LeaseLost where that head was replaced.

    Called after the attempts of its runs were read and before the next ones are claimed: whoever launches the runs
    again does so after that mark was made, and then its claims come first, or supersede.
    """
    if store.exists(PackKeys(request.pack_id).given_up):
        raise Superseded(request.runs[0].run_id, 0)
    if request.epoch and store.exists(DriverKeys(request.study, request.epoch + 1).claim):
        raise LeaseLost(request.study, request.epoch)


@dataclass(slots=True)
class Candidate:
    """One who wants to drive a study, and watches its driver until it may.

    holder  how this process names itself in the store
    """

    store: Store
    study: str
    clock: Clock
    holder: Mapping[str, Any] = field(default_factory=lambda: _this_driver())
    _seen: tuple[Sight, float] | None = None

    def attempt(self, *, takeover: bool = False) -> Lease | None:
        """Return the lease if the study has no driver, or it has left, is dead or has lapsed; else None.

        With `takeover`, the study is taken from whoever has it.
        """
        seen, now = sight(self.store, self.study), self.clock()
        if self._seen is None or self._seen[0] != seen:
            self._seen = seen, now
        before = holder(self.store, self.study, seen.epoch)
        if before == self.holder and not seen.released:  # the reply to an earlier try was lost
            return Lease(self.store, self.study, seen.epoch, seen.beat)
        free = not before or seen.released or now - self._seen[1] > LEASE_S or is_surely_dead(before)
        return self._claim(seen) if takeover or free else None

    def _claim(self, seen: Sight) -> Lease | None:
        keys = DriverKeys(self.study, seen.epoch + 1)
        try:
            put_record(self.store, keys.claim, {"study": self.study, "epoch": keys.epoch, "holder": dict(self.holder)})
        except AlreadyExists:
            return None
        if seen.beat:
            self.store.delete(DriverKeys(self.study, seen.epoch).beat(seen.beat))
        return Lease(self.store, self.study, keys.epoch)


def _this_driver() -> Mapping[str, Any]:
    # One process may drive one study twice, so its names alone do not tell two claims apart.
    return this_process() | {"nonce": secrets.token_hex(8)}
