"""Where a study stands, and what to do next: (state, event) → (state, commands), and nothing else.

Events say in the past tense what happened, commands in the imperative what shall be done. There is no clock,
no store, no cluster and no thread in here, so every history can be replayed and every rule tested. The form is
that of the worker state machine of dask.distributed.

Promised, and checked by `check_invariants` in the tests: every run is in exactly one place (waiting, live,
or at an end), no more packs are live than the machine holds, and a finished state changes no more.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jobs.pack import PackOutcome
from jobs.records import Status
from orchestrator.packing import Machine, Pack
from orchestrator.policy import Decision, decide, parts

_STORY_LENGTH = 20


@dataclass(frozen=True, slots=True)
class RunState:
    """Where one run stands.

    step    the step it ended at, or from which it goes on (-1: from nothing)
    losses  how often in this drive its pack was lost and the loss was charged to it
    reason  why it failed or diverged; else empty
    """

    status: Status
    step: int
    losses: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LivePack:
    """A pack that is on the cluster; `pack_id` is empty until its launch was confirmed."""

    pack: Pack
    pack_id: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """A study under way. `error` is what ends the drive early; `story` is the tail of the events, oldest first."""

    runs: Mapping[str, RunState]
    machine: Machine
    retries: int
    waiting: tuple[Pack, ...] = ()
    live: tuple[LivePack, ...] = ()
    stopping: bool = False
    finished: bool = False
    error: BaseException | None = None
    story: tuple[str, ...] = ()

    def counts(self) -> Counter[Status]:
        """Return how many runs are in each status."""
        return Counter(run.status for run in self.runs.values())


@dataclass(frozen=True, slots=True)
class StudyOpened:
    """The store was read: where every declared run stands, and the packs of those that need training."""

    runs: Mapping[str, RunState]
    packs: tuple[Pack, ...]
    machine: Machine
    retries: int


@dataclass(frozen=True, slots=True)
class PackLaunched:
    """The cluster took a pack."""

    key: str
    pack_id: str


@dataclass(frozen=True, slots=True)
class PackEnded:
    """A pack said how each of its runs ended."""

    pack_id: str
    outcome: PackOutcome


@dataclass(frozen=True, slots=True)
class PackLost:
    """A pack's process ended without an outcome.

    steps  the step from which each of its runs can go on, as the store has it
    """

    pack_id: str
    error: BaseException
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the study to stop, such as by Ctrl-C."""


Event = StudyOpened | PackLaunched | PackEnded | PackLost | StopRequested


@dataclass(frozen=True, slots=True)
class LaunchPack:
    """Ask the cluster to train these runs."""

    pack: Pack
    device: str


@dataclass(frozen=True, slots=True)
class StopPack:
    """Ask a pack to save a checkpoint and end."""

    pack_id: str


@dataclass(frozen=True, slots=True)
class RecordLoss:
    """Write into the store that these runs of a lost pack have failed, and why; the rest of it goes on elsewhere."""

    pack_id: str
    run_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do."""


Command = LaunchPack | StopPack | RecordLoss | Finish


class InvalidTransition(Exception):
    """An event that cannot follow the ones before: a bug. Tells the story so far."""

    def __init__(self, event: str, reason: str, story: tuple[str, ...]) -> None:
        super().__init__(event, reason, story)
        self.event, self.reason, self.story = event, reason, story

    def __str__(self) -> str:
        return "\n  ".join([f"{self.event}: {self.reason}. Before it:", *self.story])


def opened(event: StudyOpened) -> tuple[State, tuple[Command, ...]]:
    """Return the first state of a drive and the first commands."""
    state = State(event.runs, event.machine, event.retries, waiting=event.packs, story=(_line(event),))
    return _launch_or_finish(state, [])


def transition(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Return the state after `event` and what to do now, in that order; raises InvalidTransition."""
    if state.finished or isinstance(event, StudyOpened):
        raise InvalidTransition(_line(event), "the study is finished or was opened before", state.story)
    state = replace(state, story=(*state.story, _line(event))[-_STORY_LENGTH:])
    match event:
        case PackLaunched():
            return _launched(state, event), ()
        case PackEnded():
            return _launch_or_finish(_ended(state, event), [])
        case PackLost():
            return _lost(state, event)
        case StopRequested():
            return _stop(state)


def check_invariants(state: State) -> None:
    """Raise InvalidTransition where the state breaks what this module promises."""
    places = Counter(run for pack in state.waiting for run in pack.run_ids)
    places.update(run for live in state.live for run in live.pack.run_ids)
    for run_id, run in state.runs.items():
        places[run_id] += run.status.is_terminal
    problems = [f"run {run_id} is in {count} places" for run_id, count in places.items() if count != 1]
    problems += [f"run {run_id} is unknown" for run_id in places if run_id not in state.runs]
    if sum(live.pack.threads for live in state.live) > state.machine.cpus:
        problems.append("more threads than CPUs")
    if len(state.live) > state.machine.packs_at_once:
        problems.append("more packs than the machine holds at once")
    if state.finished and (state.live or (state.waiting and not state.stopping)):
        problems.append("finished with packs left")
    if problems:
        raise InvalidTransition("invariants", "; ".join(problems[:5]), state.story)


def _launched(state: State, event: PackLaunched) -> State:
    if not any(live.pack.key == event.key and not live.pack_id for live in state.live):
        raise InvalidTransition(_line(event), "nobody asked for it", state.story)
    live = (replace(it, pack_id=event.pack_id) if it.pack.key == event.key else it for it in state.live)
    return replace(state, live=tuple(live))


def _ended(state: State, event: PackEnded) -> State:
    found, rest = _taken(state, event.pack_id, event)
    ended = {run.run_id: run for run in event.outcome.runs}
    open_ended = [run for run in ended.values() if not run.status.is_terminal]
    if set(ended) != set(found.pack.run_ids) or open_ended:
        raise InvalidTransition(
            _line(event), "its outcome does not end its runs, all of them and no other", state.story
        )
    changes = {
        run_id: replace(state.runs[run_id], status=run.status, step=run.step, reason=run.reason)
        for run_id, run in ended.items()
    }
    return replace(state, live=rest, runs={**state.runs, **changes})


def _lost(state: State, event: PackLost) -> tuple[State, tuple[Command, ...]]:
    found, rest = _taken(state, event.pack_id, event)
    changes: dict[str, RunState] = {}
    failed: list[str] = []
    reason = f"{type(event.error).__name__}: {event.error}"
    for run_id in found.pack.run_ids:
        run = state.runs[run_id]
        charged = run.losses + 1
        decision = decide(event.error, charged, state.retries)
        again = replace(run, status=Status.RUNNING, step=event.steps.get(run_id, run.step), reason="")
        if decision is Decision.GIVE_UP:
            failed.append(run_id)
            changes[run_id] = replace(run, status=Status.FAILED, losses=charged, reason=reason)
        elif decision is Decision.RETRY:
            changes[run_id] = replace(again, losses=charged)
        else:
            changes[run_id] = again
        if decision is Decision.END and not state.error:
            state = replace(state, stopping=True, error=event.error)
    state = replace(state, live=rest, runs={**state.runs, **changes})
    state = replace(state, waiting=(*_repacked(state, found.pack), *state.waiting))
    commands: list[Command] = [RecordLoss(event.pack_id, tuple(failed), reason)] if failed else []
    if state.error is event.error:
        commands += [StopPack(live.pack_id) for live in state.live if live.pack_id]
    return _launch_or_finish(state, commands)


def _repacked(state: State, pack: Pack) -> list[Pack]:
    """Return the packs in which the runs of a lost pack try again: never two that go on from different steps."""
    groups: dict[tuple[int, int], list[str]] = {}
    for run_id in pack.run_ids:
        run = state.runs[run_id]
        if not run.status.is_terminal:
            groups.setdefault((run.step, run.losses), []).append(run_id)
    packs = []
    for (_, losses), run_ids in groups.items():
        count = parts(len(run_ids), losses, state.retries)
        size = -(-len(run_ids) // count)
        chunks = (tuple(run_ids[start : start + size]) for start in range(0, len(run_ids), size))
        packs += [replace(pack, run_ids=chunk) for chunk in chunks]
    return packs


def _stop(state: State) -> tuple[State, tuple[Command, ...]]:
    # A pack whose launch was never confirmed will send no news: it counts as not launched.
    unsent = tuple(live.pack for live in state.live if not live.pack_id)
    sent = tuple(live for live in state.live if live.pack_id)
    state = replace(state, stopping=True, live=sent, waiting=(*unsent, *state.waiting))
    return _launch_or_finish(state, [StopPack(live.pack_id) for live in sent])


def _launch_or_finish(state: State, commands: list[Command]) -> tuple[State, tuple[Command, ...]]:
    """Launch the packs that fit, in their order; finish where none is live and none may follow."""
    waiting, live = list(state.waiting), list(state.live)
    free = state.machine.cpus - sum(it.pack.threads for it in live)
    while not state.stopping and waiting and waiting[0].threads <= free and len(live) < state.machine.packs_at_once:
        pack = waiting.pop(0)
        free -= pack.threads
        live.append(LivePack(pack))
        commands.append(LaunchPack(pack, state.machine.device))
    changes = {run_id: replace(state.runs[run_id], status=Status.RUNNING) for it in live for run_id in it.pack.run_ids}
    finished = not live
    if finished:
        commands.append(Finish())
    runs = {**state.runs, **changes} if len(live) > len(state.live) else state.runs
    return replace(state, runs=runs, waiting=tuple(waiting), live=tuple(live), finished=finished), tuple(commands)


def _taken(state: State, pack_id: str, event: Event) -> tuple[LivePack, tuple[LivePack, ...]]:
    found = [live for live in state.live if live.pack_id == pack_id]
    if not found or not pack_id:
        raise InvalidTransition(_line(event), "no such pack is live", state.story)
    return found[0], tuple(live for live in state.live if live is not found[0])


def _line(event: Event) -> str:
    match event:
        case StudyOpened():
            return f"StudyOpened with {len(event.runs)} runs in {len(event.packs)} packs"
        case PackLaunched():
            return f"PackLaunched {event.pack_id}"
        case PackEnded():
            counts = Counter(str(run.status) for run in event.outcome.runs)
            return f"PackEnded {event.pack_id}: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        case PackLost():
            return f"PackLost {event.pack_id}: {type(event.error).__name__}: {event.error}"
        case StopRequested():
            return "StopRequested"
