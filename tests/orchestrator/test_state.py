"""The head's decisions, event by event, and every invariant after random histories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import (
    AlreadyExists,
    ClusterError,
    Corrupt,
    LeaseLost,
    NodeLost,
    OutOfMemory,
    PackSilent,
    SpecMismatch,
    StoreError,
    StoreFull,
    StudyInterrupted,
    Superseded,
    TaskError,
)
from jobs.pack import PackOutcome, RunOutcome
from jobs.records import Status
from orchestrator.events import (
    AdoptPack,
    Command,
    DriverReplaced,
    Event,
    Finish,
    KillPack,
    LaunchPack,
    LivePack,
    MachineChanged,
    PackEnded,
    PackLaunched,
    PackLost,
    RecordLoss,
    RunsAdded,
    RunState,
    StopPack,
    StopRequested,
    StudyOpened,
)
from orchestrator.invariants import check_invariants
from orchestrator.machine import Machine
from orchestrator.packing import Pack
from orchestrator.policy import Blame, Budgets, Decision, blame, decide, parts, pause_s
from orchestrator.state import InvalidTransition, State, opened, transition

DIED = ClusterError("the pack's process ended")


def pack(*run_ids: str, threads: int = 1) -> Pack:
    return Pack("c", run_ids, threads, 1.0)


class History:
    """A study that is driven by hand: launches are confirmed at once, invariants checked after each event."""

    def __init__(self, *packs: Pack, cpus: int = 2, retries: int = 2, preemptions: int = 100) -> None:
        runs = {run: RunState(Status.WAITING, -1) for each in packs for run in each.run_ids}
        self.commands: list[Command] = []
        self.live: dict[str, Pack] = {}
        self.count = 0
        machine, budgets = Machine(cpus, cpus, "cpu"), Budgets(retries, preemptions)
        self.state, commands = opened(StudyOpened(runs, packs, machine, budgets))
        self._take(commands)

    def feed(self, event: Event) -> tuple[Command, ...]:
        self.state, commands = transition(self.state, event)
        check_invariants(self.state)
        self._take(commands)
        return tuple(command for command in commands if not isinstance(command, KillPack))

    def _take(self, commands: tuple[Command, ...]) -> None:
        self.commands += commands
        for command in commands:
            if isinstance(command, LaunchPack):
                assert len(self.state.live) <= self.state.machine.packs_at_once
                self.count += 1
                pack_id = f"p{self.count}"
                self.live[pack_id] = command.pack
                self.state, _ = transition(self.state, PackLaunched(command.pack.key, pack_id))
        check_invariants(self.state)

    def outcome(self, pack_id: str, status: Status = Status.FINISHED) -> PackEnded:
        runs = (RunOutcome(run_id=r, attempt=1, status=status, step=9) for r in self.live[pack_id].run_ids)
        return PackEnded(pack_id, PackOutcome(pack_id=pack_id, runs=tuple(runs)))

    def end(self, pack_id: str, status: Status = Status.FINISHED) -> tuple[Command, ...]:
        event = self.outcome(pack_id, status)
        del self.live[pack_id]
        return self.feed(event)

    def lose(self, pack_id: str, error: BaseException = DIED, step: int = -1) -> tuple[Command, ...]:
        run_ids = self.live.pop(pack_id).run_ids
        return self.feed(PackLost(pack_id, error, dict.fromkeys(run_ids, step)))

    def status(self) -> dict[str, Status]:
        return {run_id: run.status for run_id, run in self.state.runs.items()}

    def waiting(self) -> list[tuple[str, ...]]:
        return [waiting.run_ids for waiting in self.state.waiting]


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
    assert commands[0] == RecordLoss("p4", ("a",), ("a",), "ClusterError: the pack's process ended")
    while history.live:
        history.end(next(iter(history.live)))
    assert history.status() == {"a": Status.FAILED, "b": Status.FINISHED, "c": Status.FINISHED, "d": Status.FINISHED}


def test_runs_that_go_on_from_different_steps_never_share_a_pack() -> None:
    history = History(pack("a", "b"), cpus=1)
    history.live.clear()
    history.feed(PackLost("p1", DIED, {"a": 4, "b": 8}))
    assert [p.run_ids for p in history.live.values()] == [("a",)]
    assert history.waiting() == [("b",)]


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
    assert set(history.feed(StopRequested())) == {StopPack("p1"), StopPack("p2")}
    history.end("p1")
    history.lose("p2", StudyInterrupted("stopped"), step=5)
    assert history.state.finished
    assert history.status()["b"] is Status.RUNNING
    assert history.count == 2


def test_what_comes_twice_or_too_late_is_counted_and_changes_nothing_else() -> None:
    history = History(pack("a"), pack("b"))
    ended = history.outcome("p1")
    history.end("p1")
    before = history.state
    late = [
        ended,
        PackLost("p1", DIED, {"a": 3}),
        PackLost("p9", DIED),
        PackLaunched(pack("a").key, "p1"),
        PackLaunched(pack("b").key, "p7"),
    ]
    for number, event in enumerate(late, start=1):
        assert history.feed(event) == ()
        assert history.state.ignored == number
        assert (history.state.runs, history.state.live, history.state.tally) == (before.runs, before.live, before.tally)
    history.end("p2")
    assert history.feed(StopRequested()) == ()
    assert history.status() == {"a": Status.FINISHED, "b": Status.FINISHED}


def test_to_open_a_study_twice_is_a_bug_and_tells_the_story() -> None:
    history = History(pack("a"))
    with pytest.raises(InvalidTransition, match="opened before") as caught:
        history.feed(StudyOpened({}, (), Machine(1, 1, "cpu"), Budgets(1)))
    assert "StudyOpened with 1 runs" in str(caught.value)


def test_preemptions_use_up_no_retries_and_crashes_no_preemptions() -> None:
    history = History(pack("a"), retries=1, preemptions=3)
    for number, error in enumerate([NodeLost("n"), DIED, PackSilent("s"), StudyInterrupted("drained")], start=1):
        history.lose(f"p{number}", error)
    assert (history.state.runs["a"].crashes, history.state.runs["a"].preemptions) == (1, 3)
    assert history.status() == {"a": Status.RUNNING}
    history.lose("p5", NodeLost("once too often"))
    assert history.status() == {"a": Status.FAILED}


def test_out_of_memory_halves_the_pack_and_blames_nobody_until_it_is_one_run() -> None:
    history = History(pack(*"abcd"), cpus=1, retries=0)
    history.lose("p1", OutOfMemory("4 GB"))
    assert history.live["p2"].run_ids == ("a", "b")
    history.lose("p2", OutOfMemory("4 GB"))
    assert history.live["p3"].run_ids == ("a",)
    assert history.state.runs["a"].crashes == 0
    history.lose("p3", OutOfMemory("4 GB"))
    assert history.status()["a"] is Status.FAILED
    while history.live:
        history.end(next(iter(history.live)))
    assert [history.status()[run] for run in "bcd"] == [Status.FINISHED] * 3


def test_what_is_outside_is_tried_again_after_growing_pauses() -> None:
    assert [pause_s(Blame.OUTSIDE, count) for count in (1, 2, 3, 4, 30)] == [0, 1, 2, 4, 60]
    assert pause_s(Blame.CRASH, 5) == 0
    history = History(pack("a"))
    history.lose("p1", StoreError("k", "no answer"))
    history.lose("p2", StoreError("k", "no answer"))
    assert [c.pause_s for c in history.commands if isinstance(c, LaunchPack)] == [0, 0, 1]


def test_what_another_head_gave_up_is_tried_again_and_what_ended_stays() -> None:
    history = History(pack("a", "b"), cpus=1)
    runs = (
        RunOutcome(run_id="a", attempt=1, status=Status.FINISHED, step=9),
        RunOutcome(run_id="b", attempt=1, status=Status.RUNNING, step=0),
    )
    del history.live["p1"]
    history.feed(PackEnded("p1", PackOutcome(pack_id="p1", runs=runs), {"b": 4}))
    assert history.live["p2"].run_ids == ("b",)
    assert history.state.runs["b"].step == 4
    assert history.state.runs["b"].crashes == 0
    assert history.status()["a"] is Status.FINISHED


def test_runs_may_join_and_are_launched_after_those_that_wait() -> None:
    history = History(pack("a"), pack("b"), cpus=1)
    new = {run: RunState(Status.WAITING, -1) for run in "cd"}
    history.feed(RunsAdded(new, (pack("c"), pack("d"))))
    assert history.waiting() == [("b",), ("c",), ("d",)]
    history.feed(RunsAdded(new, (pack("c"), pack("d"))))
    assert history.waiting() == [("b",), ("c",), ("d",)], "told twice"
    assert history.state.ignored == 1
    with pytest.raises(InvalidTransition, match="once each"):
        history.feed(RunsAdded({"e": RunState(Status.WAITING, -1)}, ()))
    for _ in range(4):
        history.end(next(iter(history.live)))
    assert history.state.finished


def test_nodes_come_and_go() -> None:
    history = History(pack("a"), pack("b"), pack("c"), cpus=1)
    history.feed(MachineChanged(Machine(3, 3, "cpu")))
    assert len(history.live) == 3
    history.feed(MachineChanged(Machine(0, 0, "cpu")))
    for pack_id in list(history.live):
        history.lose(pack_id, NodeLost("gone"))
    assert not history.state.finished, "nodes may come back"
    history.feed(MachineChanged(Machine(1, 1, "cpu")))
    while history.live:
        history.end(next(iter(history.live)))
    assert set(history.status().values()) == {Status.FINISHED}


def test_packs_that_train_already_are_watched_and_not_launched() -> None:
    runs = {run: RunState(Status.WAITING, -1) for run in "ab"}
    live = LivePack(pack("a"), "old.0001")
    state, commands = opened(StudyOpened(runs, (pack("b"),), Machine(2, 2, "cpu"), Budgets(1), (live,)))
    assert [c.pack.run_ids for c in commands if isinstance(c, LaunchPack)] == [("b",)]
    assert [c for c in commands if isinstance(c, AdoptPack)] == [AdoptPack(live.pack, "old.0001")]
    check_invariants(state)
    state, _ = transition(state, PackLost("old.0001", PackSilent("s"), {"a": 4}))
    check_invariants(state)
    assert state.runs["a"].step == 4


def test_a_driver_that_was_replaced_touches_nothing_more() -> None:
    history = History(pack("a"), pack("b"), pack("c"))
    assert history.feed(DriverReplaced(LeaseLost("s", 1))) == (Finish(),)
    assert history.state.finished
    assert isinstance(history.state.error, LeaseLost)


def test_a_driver_whose_last_pack_its_successor_killed_says_that_it_was_replaced_and_not_that_the_run_failed() -> None:
    history = History(pack("a"), retries=0)
    (pack_id,) = history.live
    history.feed(PackLost(pack_id, DIED))
    assert history.state.finished
    assert history.state.error is None
    # It looks at its lease before it kills what it lost, and only then would it record the loss.
    assert [type(command) for command in history.commands[-3:]] == [KillPack, RecordLoss, Finish]
    history.feed(DriverReplaced(LeaseLost("s", 1)))
    assert isinstance(history.state.error, LeaseLost)


@pytest.mark.parametrize(
    ("error", "width", "expected"),
    [
        (DIED, 1, Blame.CRASH),
        (MemoryError(), 4, Blame.CRASH),
        (Corrupt("k", "m"), 1, Blame.CRASH),
        (AlreadyExists("k"), 1, Blame.CRASH),
        (StudyInterrupted(""), 1, Blame.OUTSIDE),
        (NodeLost(""), 1, Blame.OUTSIDE),
        (PackSilent(""), 1, Blame.OUTSIDE),
        (StoreError("k", "no answer"), 1, Blame.OUTSIDE),
        (OutOfMemory(""), 2, Blame.PLACEMENT),
        (OutOfMemory(""), 1, Blame.CRASH),
        (TaskError("t", "", -1, "m"), 1, Blame.USER),
        (StoreFull("k"), 1, Blame.DRIVE),
        (LeaseLost("s", 1), 1, Blame.DRIVE),
    ],
)
def test_the_table_of_reasons(error: Exception, width: int, expected: Blame) -> None:
    assert blame(error, width) is expected


def test_each_class_of_reasons_has_its_budget() -> None:
    budgets = Budgets(crashes=2, preemptions=5)
    assert [decide(Blame.CRASH, count, budgets) for count in (1, 2, 3)] == [
        Decision.RETRY,
        Decision.RETRY,
        Decision.GIVE_UP,
    ]
    assert [decide(Blame.OUTSIDE, count, budgets) for count in (5, 6)] == [Decision.RETRY, Decision.GIVE_UP]
    assert decide(Blame.USER, 1, budgets) is Decision.GIVE_UP
    assert decide(Blame.PLACEMENT, 99, budgets) is Decision.RETRY
    assert decide(Blame.DRIVE, 0, budgets) is Decision.END


def test_the_last_retry_gives_every_run_a_process_of_its_own() -> None:
    budgets = Budgets(crashes=3)
    assert [parts(8, Blame.CRASH, crashes, budgets) for crashes in (1, 2, 3)] == [1, 2, 8]
    assert parts(8, Blame.CRASH, 0, Budgets(0)) == 1
    assert parts(8, Blame.OUTSIDE, 3, budgets) == 1
    assert [parts(width, Blame.PLACEMENT, 0, budgets) for width in (1, 2, 8)] == [1, 2, 2]


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
            history.lose(pack_id, (DIED, OutOfMemory("x"), TaskError("t", "", -1, "m"))[how], step)
        else:
            history.end(pack_id, Status.DIVERGED if how == 3 else Status.FINISHED)
    assert all(status.is_terminal for status in history.status().values())
    budget = sum(len(p.run_ids) for p in packs) * (retries + 1)
    charged = sum(run.crashes for run in history.state.runs.values())
    assert charged <= budget


def test_state_counts() -> None:
    state: State = History(pack("a", "b"), pack("c"), cpus=1).state
    assert state.counts() == {Status.RUNNING: 2, Status.WAITING: 1}
