"""The head's decisions, event by event, and every invariant after random histories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import (
    AlreadyExists,
    ClusterError,
    Corrupt,
    SpecMismatch,
    StoreFull,
    StudyInterrupted,
    Superseded,
    TaskError,
)
from jobs.pack import PackOutcome, RunOutcome
from jobs.records import Status
from orchestrator.packing import Machine, Pack
from orchestrator.policy import Decision, decide, parts
from orchestrator.state import (
    Command,
    Event,
    Finish,
    InvalidTransition,
    LaunchPack,
    PackEnded,
    PackLaunched,
    PackLost,
    RecordLoss,
    RunState,
    State,
    StopPack,
    StopRequested,
    StudyOpened,
    check_invariants,
    opened,
    transition,
)

DIED = ClusterError("the pack's process ended")


def pack(*run_ids: str, threads: int = 1) -> Pack:
    return Pack("c", run_ids, threads, 1.0)


class History:
    """A study that is driven by hand: launches are confirmed at once, invariants checked after each event."""

    def __init__(self, *packs: Pack, cpus: int = 2, retries: int = 2) -> None:
        runs = {run: RunState(Status.WAITING, -1) for each in packs for run in each.run_ids}
        self.commands: list[Command] = []
        self.live: dict[str, Pack] = {}
        self.count = 0
        self.state, commands = opened(StudyOpened(runs, packs, Machine(cpus, cpus, "cpu"), retries))
        self._take(commands)

    def feed(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = transition(self.state, event)
        check_invariants(self.state)
        self._take(commands)
        return commands

    def _take(self, commands: tuple[Command, ...]) -> None:
        self.commands += commands
        for command in commands:
            if isinstance(command, LaunchPack):
                self.count += 1
                pack_id = f"p{self.count}"
                self.live[pack_id] = command.pack
                self.state, _ = transition(self.state, PackLaunched(command.pack.key, pack_id))
        check_invariants(self.state)

    def end(self, pack_id: str, status: Status = Status.FINISHED) -> tuple[Command, ...]:
        runs = (RunOutcome(run_id=r, attempt=1, status=status, step=9) for r in self.live.pop(pack_id).run_ids)
        return self.feed(PackEnded(pack_id, PackOutcome(pack_id=pack_id, runs=tuple(runs))))

    def lose(self, pack_id: str, error: BaseException = DIED, step: int = -1) -> tuple[Command, ...]:
        run_ids = self.live.pop(pack_id).run_ids
        return self.feed(PackLost(pack_id, error, dict.fromkeys(run_ids, step)))

    def status(self) -> dict[str, Status]:
        return {run_id: run.status for run_id, run in self.state.runs.items()}


def test_packs_start_in_order_as_many_as_fit_and_the_study_finishes() -> None:
    history = History(pack("a"), pack("b"), pack("c"))
    assert sorted(history.live) == ["p1", "p2"]
    history.end("p2")
    assert history.live["p3"].run_ids == ("c",)
    history.end("p1")
    assert not history.state.finished
    assert history.end("p3") == (Finish(),)
    assert history.state.finished
    assert set(history.status().values()) == {Status.FINISHED}


def test_a_study_with_nothing_to_do_is_finished_at_once() -> None:
    assert History().commands == [Finish()]


def test_a_wide_pack_waits_until_its_threads_are_free() -> None:
    history = History(pack("a"), pack("b", threads=2))
    assert list(history.live) == ["p1"]
    history.end("p1")
    assert list(history.live) == ["p2"]


def test_a_diverged_run_is_an_outcome_and_is_not_retried() -> None:
    history = History(pack("a"))
    history.end("p1", Status.DIVERGED)
    assert history.state.finished
    assert history.count == 1


def test_a_lost_pack_is_retried_whole_then_in_halves_then_alone_then_given_up() -> None:
    history = History(pack(*"abcd"), cpus=1, retries=3)
    history.lose("p1", step=4)
    assert history.live["p2"].run_ids == tuple("abcd")
    history.lose("p2")
    assert history.live["p3"].run_ids == ("a", "b")
    history.lose("p3")
    assert history.live["p4"].run_ids == ("a",)
    commands = history.lose("p4")
    assert commands[0] == RecordLoss("p4", ("a",), "ClusterError: the pack's process ended")
    while history.live:
        history.end(next(iter(history.live)))
    assert history.status() == {"a": Status.FAILED, "b": Status.FINISHED, "c": Status.FINISHED, "d": Status.FINISHED}


def test_runs_that_go_on_from_different_steps_never_share_a_pack() -> None:
    history = History(pack("a", "b"), cpus=1)
    history.live.clear()
    history.feed(PackLost("p1", DIED, {"a": 4, "b": 8}))
    assert [p.run_ids for p in history.live.values()] == [("a",)]
    assert [p.run_ids for p in history.state.waiting] == [("b",)]


def test_preemption_costs_no_retry() -> None:
    history = History(pack("a"), retries=0)
    for number in range(1, 30):
        history.lose(f"p{number}", StudyInterrupted("the node goes"))
    history.end("p30")
    assert history.status() == {"a": Status.FINISHED}


@pytest.mark.parametrize("error", [StoreFull("k"), SpecMismatch("k", "m"), Superseded("r", 1)])
def test_what_no_run_could_do_better_stops_the_drive(error: Exception) -> None:
    history = History(pack("a"), pack("b"), pack("c"))
    assert StopPack("p2") in history.lose("p1", error)
    history.lose("p2", StudyInterrupted("asked to"))
    assert history.state.finished
    assert history.state.error is error
    assert history.count == 2, "nothing was launched after it"


def test_a_stop_asks_every_live_pack_and_launches_no_other() -> None:
    history = History(pack("a"), pack("b"), pack("c"))
    assert history.feed(StopRequested()) == (StopPack("p1"), StopPack("p2"))
    history.end("p1")
    history.lose("p2", StudyInterrupted("stopped"), step=5)
    assert history.state.finished
    assert history.status()["b"] is Status.RUNNING
    assert history.count == 2


def test_impossible_news_tell_the_story() -> None:
    history = History(pack("a"))
    with pytest.raises(InvalidTransition, match="no such pack is live") as caught:
        history.feed(PackLost("p9", DIED))
    assert "StudyOpened with 1 runs" in str(caught.value)
    history.end("p1")
    with pytest.raises(InvalidTransition, match="finished"):
        history.feed(StopRequested())


@pytest.mark.parametrize(
    ("error", "first", "after_two_retries"),
    [
        (DIED, Decision.RETRY, Decision.GIVE_UP),
        (MemoryError(), Decision.RETRY, Decision.GIVE_UP),
        (Corrupt("k", "m"), Decision.RETRY, Decision.GIVE_UP),
        (AlreadyExists("k"), Decision.RETRY, Decision.GIVE_UP),
        (StudyInterrupted(""), Decision.RETRY_FREE, Decision.RETRY_FREE),
        (TaskError("t", "", -1, "m"), Decision.GIVE_UP, Decision.GIVE_UP),
        (StoreFull("k"), Decision.END, Decision.END),
    ],
)
def test_the_table_of_reasons(error: Exception, first: Decision, after_two_retries: Decision) -> None:
    assert decide(error, losses=1, retries=2) is first
    assert decide(error, losses=3, retries=2) is after_two_retries


def test_the_last_retry_gives_every_run_a_process_of_its_own() -> None:
    assert [parts(8, losses, retries=3) for losses in (1, 2, 3)] == [1, 2, 8]
    assert parts(8, losses=0, retries=0) == 1


@given(
    widths=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    cpus=st.integers(1, 3),
    retries=st.integers(0, 2),
    choices=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.integers(-1, 9)), max_size=60),
)
def test_any_history_keeps_the_invariants_and_ends(
    widths: list[int], cpus: int, retries: int, choices: list[tuple[int, int, int]]
) -> None:
    packs = [pack(*(f"r{index}.{slot}" for slot in range(width))) for index, width in enumerate(widths)]
    history = History(*packs, cpus=cpus, retries=retries)
    ends = iter(choices)
    while not history.state.finished:
        which, how, step = next(ends, (0, 5, 0))
        pack_id = sorted(history.live)[which % len(history.live)]
        if how <= 2:
            history.lose(pack_id, (DIED, StudyInterrupted("x"), TaskError("t", "", -1, "m"))[how], step)
        else:
            history.end(pack_id, Status.DIVERGED if how == 3 else Status.FINISHED)
    assert all(status.is_terminal for status in history.status().values())
    budget = sum(len(p.run_ids) for p in packs) * (retries + 1)
    charged = sum(run.losses for run in history.state.runs.values())
    assert charged <= budget


def test_state_counts() -> None:
    state: State = History(pack("a", "b"), pack("c"), cpus=1).state
    assert state.counts() == {Status.RUNNING: 2, Status.WAITING: 1}
