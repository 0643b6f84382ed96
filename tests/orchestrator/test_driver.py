"""Turns of a driver over a cluster that tells nothing: what the beats alone say of its packs."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.beats import LATE_S, PACK_SILENT_S, Pulse
from jobs.errors import LeaseLost
from jobs.layout import PackKeys
from jobs.lease import Candidate
from jobs.records import Status
from jobs.store import LocalStore
from jobs.study import Study
from orchestrator.driver import LOOK_S, START_S, Driver
from orchestrator.prepare import prepare
from tests.fakes import FakeCluster

MakeStudy = Callable[..., Study]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Mute(FakeCluster):
    """Takes packs and never tells of one; `killed` lists those that were ended."""

    def __init__(self) -> None:
        super().__init__(cpus=1)
        self.killed: list[str] = []

    def poll(self, timeout_s: float) -> list[Any]:
        return []

    def kill(self, pack_id: str) -> None:
        super().kill(pack_id)
        self.killed.append(pack_id)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> Mute:
    return Mute()


@pytest.fixture
def driver(store: LocalStore, study: MakeStudy, clock: Clock, cluster: Mute) -> Driver:
    made = study(
        execution="{pack_width: 6, retries: 1, packs_at_once: 1}", grid="{}", seeds="{design: paired, count: 3}"
    )
    lease = Candidate(store, made.name, clock).attempt()
    assert lease is not None
    return Driver(made, store, cluster, lease, clock, prepare(made, store, cluster, calibrate=False))


def turns(driver: Driver, clock: Clock, seconds: float, each: Callable[[], None] = lambda: None) -> None:
    """Let so many seconds go by, a look at a time, and `each` happen before a turn."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += LOOK_S
        each()
        driver.turn(0.0)


def launched(driver: Driver, cluster: Mute) -> str:
    driver.turn(0.0)
    return cluster.launched[-1][0]


def test_a_pack_that_beats_is_kept_and_one_that_is_silent_for_30_s_is_replaced(
    driver: Driver, store: LocalStore, clock: Clock, cluster: Mute
) -> None:
    pulse = Pulse(store, launched(driver, cluster))
    turns(driver, clock, 600.0, lambda: pulse.beat({"step": 1, "stalled": ""}))
    assert cluster.killed == []
    turns(driver, clock, PACK_SILENT_S)
    assert cluster.killed == []
    turns(driver, clock, 2 * LOOK_S)
    assert cluster.killed == [pulse.pack_id]
    assert cluster.launched[-1][0] != pulse.pack_id
    run = next(iter(driver.state.runs.values()))
    assert (run.crashes, run.preemptions) == (0, 1), "silence is charged to nobody's retries"


def test_a_pack_that_says_that_it_stands_still_is_replaced_and_charged(
    driver: Driver, store: LocalStore, clock: Clock, cluster: Mute
) -> None:
    pulse = Pulse(store, launched(driver, cluster))
    turns(driver, clock, 60.0, lambda: pulse.beat({"step": 7, "stalled": ""}))
    pulse.beat({"step": 7, "stalled": "a step has not ended for 70 s"})
    turns(driver, clock, LATE_S)
    assert cluster.killed == []
    turns(driver, clock, 2 * LOOK_S)
    assert cluster.killed == [pulse.pack_id]
    run = next(iter(driver.state.runs.values()))
    assert (run.crashes, run.preemptions) == (1, 0)
    second = Pulse(store, launched(driver, cluster))
    second.beat({"step": 7, "stalled": "a step has not ended for 140 s"})
    turns(driver, clock, LATE_S + 4 * LOOK_S)
    failed = [run for run in driver.state.runs.values() if run.status is Status.FAILED]
    assert len(failed) == 1, "the last retry gave each run a process of its own"
    assert "stands still: a step has not ended for 140 s" in failed[0].reason


def test_a_pack_that_never_begins_is_given_up_after_three_minutes(driver: Driver, clock: Clock, cluster: Mute) -> None:
    first = launched(driver, cluster)
    turns(driver, clock, START_S)
    assert cluster.killed == []
    turns(driver, clock, 2 * LOOK_S)
    assert cluster.killed == [first]


def test_a_driver_that_was_replaced_ends_no_pack_of_its_successor(
    driver: Driver, store: LocalStore, clock: Clock, cluster: Mute
) -> None:
    pulse = Pulse(store, launched(driver, cluster))
    pulse.beat({"step": 1, "stalled": ""})
    turns(driver, clock, LOOK_S)
    successor = Candidate(store, "tiny", clock).attempt(takeover=True)
    assert successor is not None
    turns(driver, clock, 2 * PACK_SILENT_S)  # it was stopped, and thinks that its pack has been silent
    assert isinstance(driver.state.error, LeaseLost)
    assert driver.state.finished
    driver.close()
    assert cluster.killed == []
    assert not store.exists(PackKeys(pulse.pack_id).given_up)
