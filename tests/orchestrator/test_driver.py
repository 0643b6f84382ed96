"""Turns of a driver over a cluster that tells nothing: what the beats alone say of its packs."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs.beats import LATE_S, PACK_SILENT_S, Pulse
from jobs.claims import FRESH, claim
from jobs.errors import ClusterError, LeaseLost, RunEnded
from jobs.identity import condition_spec, run_spec
from jobs.layout import PackKeys
from jobs.lease import Candidate
from jobs.pack import PackOutcome, RunOutcome, get_request, put_outcome
from jobs.records import Status
from jobs.store import LocalStore, put_record
from jobs.study import Study
from orchestrator.driver import LOOK_S, START_S, Driver
from orchestrator.events import PackLost
from orchestrator.machine import ANYWHERE, Needs
from orchestrator.prepare import prepare
from tests.fakes import FakeCluster

MakeStudy = Callable[..., Study]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Mute(FakeCluster):
    """Takes packs and tells only what lies in `news`; `killed` lists those that were ended.

    finds  whether processes of an earlier head are found here
    """

    def __init__(self, *, finds: bool = True) -> None:
        super().__init__(cpus=1)
        self.finds = finds
        self.killed: list[str] = []
        self.news: list[PackLost] = []

    def poll(self, timeout_s: float) -> list[Any]:
        told, self.news = self.news, []
        return told

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:
        super().adopt(store_url, pack_id, threads, needs)
        return self.finds

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
    return driving(made, store, cluster, clock)


def driving(made: Study, store: LocalStore, cluster: Mute, clock: Clock) -> Driver:
    """Return a driver of the study, whoever drove it before."""
    lease = Candidate(store, made.name, clock).attempt(takeover=True)
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


def claimed(store: LocalStore, pack_id: str, *run_ids: str) -> None:
    """Claim the first attempt of these runs of a pack, or of all, as its process would."""
    request = get_request(store, pack_id)
    for run in request.runs:
        if not run_ids or run.run_id in run_ids:
            own = run_spec(condition_spec(request.condition), run.seeds.seeds())
            claim(store, run.run_id, pack_id, (FRESH, ""), own, after=0)


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


def test_a_run_that_a_pack_ended_after_it_was_given_up_counts_as_ended_and_the_others_go_on(
    driver: Driver, store: LocalStore, clock: Clock, cluster: Mute
) -> None:
    first = launched(driver, cluster)
    turns(driver, clock, START_S + 2 * LOOK_S)
    second = cluster.launched[-1][0]
    assert second != first
    ended, *others = get_request(store, second).runs
    claimed(store, first, ended.run_id)
    said = RunOutcome(run_id=ended.run_id, attempt=1, status=Status.DIVERGED, step=3, reason="its loss is not finite")
    put_outcome(store, PackOutcome(pack_id=first, runs=(said,)))
    cluster.news.append(PackLost(second, RunEnded(ended.run_id, 1)))
    turns(driver, clock, 2 * LOOK_S)
    run = driver.state.runs[ended.run_id]
    assert (run.status, run.step, run.reason, run.crashes) == (Status.DIVERGED, 3, said.reason, 0)
    third = cluster.launched[-1][0]
    assert {it.run_id for it in get_request(store, third).runs} == {it.run_id for it in others}


@pytest.mark.parametrize(("finds", "least_s"), [(True, PACK_SILENT_S), (False, LATE_S)])
def test_a_pack_of_an_earlier_head_that_cannot_be_found_is_given_up_sooner(
    driver: Driver, store: LocalStore, clock: Clock, cluster: Mute, *, finds: bool, least_s: float
) -> None:
    pulse = Pulse(store, launched(driver, cluster))
    put_record(store, PackKeys(pulse.pack_id).claim, {"pid": 1, "host": "another"})
    claimed(store, pulse.pack_id)
    pulse.beat({"step": 1, "stalled": ""})
    other = Mute(finds=finds)
    second = driving(driver.study, store, other, clock)
    second.turn(0.0)
    assert other.adopted == [pulse.pack_id]
    turns(second, clock, 120.0, lambda: pulse.beat({"step": 1, "stalled": ""}))
    assert other.killed == [], "it beats"
    turns(second, clock, least_s)
    assert other.killed == []
    turns(second, clock, 2 * LOOK_S)
    assert other.killed == [pulse.pack_id]


def test_a_turn_that_fails_at_once_is_taken_again_after_a_wait_and_told_of_once(
    driver: Driver, cluster: Mute, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone(timeout_s: float) -> list[Any]:
        raise ClusterError("nobody answers")

    waited: list[float] = []
    monkeypatch.setattr("orchestrator.driver.time.sleep", waited.append)
    launched(driver, cluster)
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "poll", gone)
        for _ in range(3):
            driver.turn(0.5)
    assert waited == [0.5] * 3
    assert [record.getMessage() for record in caplog.records] == ["this turn again: nobody answers"]
    driver.turn(0.5)
    assert len(waited) == 3
