"""Studies of one store beside each other: who is more important has the room."""

from collections.abc import Callable, Sequence

import pytest

from jobs.lease import LEASE_S, Candidate, Lease, said, sights
from jobs.records import Status
from jobs.store import LocalStore
from jobs.study import Study
from orchestrator.driver import LOOK_S, Driver
from orchestrator.machine import Shape
from orchestrator.prepare import prepare
from orchestrator.rivals import YIELD_S, Rivals, wishes
from tests.fakes import FakeCluster

MakeStudy = Callable[..., Study]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(FakeCluster):
    """Its packs train until they are let go, or are asked to stop."""

    def __init__(self) -> None:
        super().__init__(cpus=2)
        self.lets_go = False
        self.told: list[tuple[int, bool]] = []

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        self.told.append((len(waiting), others_first))

    def poll(self, timeout_s: float) -> list[object]:  # type: ignore[override]
        stopped = any(pack in self.stopped for _, pack in self.waiting)
        self.waiting.sort(key=lambda item: item[1] not in self.stopped)
        return super().poll(timeout_s) if self.lets_go or stopped else []  # type: ignore[return-value]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def rival(store: LocalStore, clock: Clock, name: str, priority: int, waiting: int) -> Lease:
    lease = Candidate(store, name, clock, {"name": name}).attempt()
    assert lease is not None
    lease.says = wishes(priority, waiting)
    lease.beat()
    return lease


def test_beats_say_what_a_driver_waits_for_to_all_others(store: LocalStore, clock: Clock) -> None:
    first, second = rival(store, clock, "a", 5, 3), rival(store, clock, "b.c", 0, 1)
    second.beat()
    found = sights(store)
    assert {name: (seen.epoch, seen.beat) for name, seen in found.items()} == {"a": (1, 1), "b.c": (1, 2)}
    assert said(store, "a", found["a"]) == {"priority": 5, "waiting": 3}
    first.beat()
    assert said(store, "a", found["a"]) == {}, "that beat is gone"


def test_only_more_important_studies_that_wait_and_live_count(store: LocalStore, clock: Clock) -> None:
    mine = Rivals(store, "mine", 1, clock)
    rival(store, clock, "mine", 9, 9)
    rival(store, clock, "equal", 1, 4)
    rival(store, clock, "less", 0, 4)
    assert mine.waiting() == 0
    more = rival(store, clock, "more", 2, 4)
    rival(store, clock, "most", 3, 1)
    assert mine.waiting() == 5
    for _ in range(4):
        clock.now += LEASE_S / 2
        more.beat()
        mine.waiting()
    assert mine.waiting() == 4, "the other's beats have stopped"
    more.says = wishes(2, 0)
    more.beat()
    assert mine.waiting() == 0
    more.says = wishes(2, 1)
    more.beat()
    assert mine.waiting() == 1
    more.release()
    assert mine.waiting() == 0


def test_packs_are_asked_to_leave_once_for_what_others_wait_for(store: LocalStore, clock: Clock) -> None:
    mine = Rivals(store, "mine", 0, clock)
    assert mine.leaving(waiting=0, live=4) == 0
    assert mine.leaving(waiting=3, live=4) == 3
    clock.now += YIELD_S - 1
    assert mine.leaving(waiting=3, live=4) == 0, "those that got room have not said so yet"
    clock.now += 1
    assert mine.leaving(waiting=9, live=1) == 1


def driver_of(made: Study, store: LocalStore, clock: Clock, cluster: FakeCluster) -> Driver:
    lease = Candidate(store, made.name, clock, {"name": made.name}).attempt()
    assert lease is not None
    return Driver(made, store, cluster, lease, clock, prepare(made, store, cluster, calibrate=False))


def turns(driver: Driver, clock: Clock, count: int, each: Callable[[], None]) -> None:
    for _ in range(count):
        clock.now += LOOK_S
        each()
        driver.turn(0.0)


def test_a_less_important_study_leaves_saves_waits_and_goes_on(
    store: LocalStore, study: MakeStudy, clock: Clock
) -> None:
    cluster = Slow()
    driver = driver_of(study(execution="{pack_width: 1}"), store, clock, cluster)
    driver.turn(0.0)
    assert len(cluster.launched) == 2
    more = rival(store, clock, "more", 1, 1)
    turns(driver, clock, 1, more.beat)
    assert cluster.stopped == {cluster.launched[0][0]} or cluster.stopped == {cluster.launched[1][0]}, "one is enough"
    turns(driver, clock, 3, more.beat)
    assert (len(cluster.launched), len(driver.state.live)) == (2, 1), "and nothing takes its place"
    assert cluster.told[-1] == (5, True), "no idle process keeps the room"
    assert max(run.preemptions for run in driver.state.runs.values()) == 1
    more.release()
    turns(driver, clock, 1, lambda: None)
    assert (len(cluster.launched), len(driver.state.live)) == (3, 2)
    assert cluster.told[-1] == (4, False)
    assert driver.lease.says == wishes(0, 4)
    cluster.lets_go = True
    turns(driver, clock, 30, lambda: None)
    assert driver.state.counts() == {Status.FINISHED: 6}
    assert all(run.crashes == 0 for run in driver.state.runs.values())


def test_a_study_that_opens_while_a_more_important_one_waits_launches_nothing(
    store: LocalStore, study: MakeStudy, clock: Clock
) -> None:
    more = rival(store, clock, "more", 1, 1)
    cluster = FakeCluster()
    driver = driver_of(study(), store, clock, cluster)
    turns(driver, clock, 4, more.beat)
    assert cluster.launched == []
    turns(driver, clock, 10 + int(LEASE_S / LOOK_S), lambda: None)
    assert driver.state.counts() == {Status.FINISHED: 6}, "its driver has died, and the room is ours"


def test_what_a_study_may_not_launch_itself_it_does_not_wait_for(
    store: LocalStore, study: MakeStudy, clock: Clock
) -> None:
    cluster = Slow()
    driver = driver_of(study(execution="{pack_width: 1, packs_at_once: 1, priority: 7}"), store, clock, cluster)
    driver.turn(0.0)
    assert len(driver.state.live) == 1
    assert driver.lease.says == wishes(7, 0)
