"""Who drives a study: one at a time, by what the store says and the watcher's own clock."""

from pathlib import Path

import pytest

from jobs.beats import Heart, Pulse, Silences, newest_beats
from jobs.errors import LeaseLost, StoreError
from jobs.lease import LEASE_S, Candidate, Lease, sight
from jobs.process import is_surely_dead, this_process
from jobs.store import LocalStore, open_store


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(store: LocalStore, clock: Clock, name: str, study: str = "s") -> Candidate:
    return Candidate(store, study, clock, {"host": name, "pid": 1})


def test_the_first_has_the_study_and_the_second_watches_while_it_beats(store: LocalStore, clock: Clock) -> None:
    first, second = candidate(store, clock, "a").attempt(), candidate(store, clock, "b")
    assert first is not None
    assert first.epoch == 1
    for _ in range(10):
        first.beat()
        clock.now += LEASE_S
        assert second.attempt() is None
    assert len(store.keys("drivers/")) == 2, "an old beat is deleted"


def test_a_silent_driver_is_replaced_and_finds_out_before_it_launches(store: LocalStore, clock: Clock) -> None:
    first, second = candidate(store, clock, "a").attempt(), candidate(store, clock, "b")
    assert first is not None
    first.beat()
    assert second.attempt() is None
    clock.now += LEASE_S + 0.1
    lease = second.attempt()
    assert lease is not None
    assert lease.epoch == 2
    lease.check()
    with pytest.raises(LeaseLost, match="driver 1 was replaced"):
        first.check()
    with pytest.raises(LeaseLost):
        first.beat()


def test_of_two_that_want_it_at_once_one_gets_it(store: LocalStore, clock: Clock) -> None:
    first = candidate(store, clock, "a").attempt()
    assert first is not None
    watchers = [candidate(store, clock, name) for name in "bcd"]
    assert [watcher.attempt() for watcher in watchers] == [None] * 3
    clock.now += LEASE_S + 1
    taken = [watcher.attempt() for watcher in watchers]
    assert sum(lease is not None for lease in taken) == 1
    assert sight(store, "s").epoch == 2


def test_a_release_and_a_takeover_need_no_waiting(store: LocalStore, clock: Clock) -> None:
    first = candidate(store, clock, "a").attempt()
    assert first is not None
    first.beat()
    first.release()
    first.release()
    second = candidate(store, clock, "b").attempt()
    assert second is not None
    second.beat()
    assert candidate(store, clock, "c").attempt() is None
    third = candidate(store, clock, "c").attempt(takeover=True)
    assert third is not None
    assert third.epoch == 3
    with pytest.raises(LeaseLost):
        second.check()


def test_a_driver_that_died_here_is_replaced_at_once(store: LocalStore, clock: Clock) -> None:
    gone = {**this_process(), "started": 1}
    assert is_surely_dead(gone)
    assert not is_surely_dead(this_process())
    assert not is_surely_dead({**gone, "boot": "another machine"})
    assert Candidate(store, "s", clock, gone).attempt() is not None
    assert Candidate(store, "s", clock).attempt() is not None


def test_studies_whose_names_begin_alike_have_drivers_of_their_own(store: LocalStore, clock: Clock) -> None:
    assert candidate(store, clock, "a", "s").attempt() is not None
    assert candidate(store, clock, "a", "s.000001").attempt() is not None
    assert sight(store, "s").epoch == sight(store, "s.000001").epoch == 1
    assert sight(store, "t").epoch == 0


def test_a_claim_whose_reply_was_lost_is_ones_own(store: LocalStore, clock: Clock) -> None:
    class Forgetful(LocalStore):
        def put(self, key: str, data: bytes) -> None:
            super().put(key, data)
            if key not in told:
                told.append(key)
                raise StoreError(key, "no reply")

    told: list[str] = []
    flaky = Forgetful(store.root)
    wants = Candidate(flaky, "s", clock, {"host": "a"})
    with pytest.raises(StoreError):
        wants.attempt()
    lease = wants.attempt()
    assert isinstance(lease, Lease)
    assert lease.epoch == 1, "it neither waits for itself nor claims twice"
    with pytest.raises(StoreError):
        lease.beat()
    lease.beat()
    assert sight(store, "s").beat == 1


def test_beats_are_numbered_and_leave_one_record(store: LocalStore) -> None:
    pulses = [Pulse(store, f"p{n}.0001") for n in range(3)]
    for pulse in pulses:
        for _ in range(4):
            pulse.beat({"step": 5})
    assert newest_beats(store) == {"p0.0001": 4, "p1.0001": 4, "p2.0001": 4}
    assert len(store.keys("beats/")) == 3
    pulses[1].end()
    assert set(newest_beats(store)) == {"p0.0001", "p2.0001"}


def test_silence_is_measured_by_the_watchers_clock_from_the_last_change() -> None:
    clock = Clock()
    silences = Silences(clock)
    assert silences.look({"p": 7}, ["p", "q"]) == {"p": 0.0, "q": 0.0}
    clock.now = 10.0
    assert silences.look({"p": 8}, ["p", "q"]) == {"p": 0.0, "q": 10.0}
    clock.now = 25.0
    assert silences.look({"p": 8, "q": 1}, ["p", "q"]) == {"p": 15.0, "q": 0.0}
    assert silences.look({}, ["r"]) == {"r": 0.0}, "what is not watched is forgotten"


def test_a_heart_beats_on_after_an_error_and_stops_when_told() -> None:
    beats: list[int] = []

    def beat() -> None:
        beats.append(1)
        raise StoreError("k", "no answer")

    with Heart(beat, every_s=0.001):
        while len(beats) < 3:
            pass
    assert len(beats) >= 3
