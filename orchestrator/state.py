"""Where a study stands, and what to do next: (state, event) → (state, commands), and nothing else.

There is no clock, no store, no cluster and no thread in here, so every history can be replayed and every rule
tested. The form is that of the worker state machine of dask.distributed. Whatever arrives twice, late or for a
pack that is no longer live is counted in `ignored` and changes nothing else. One event costs the same whether the
study has ten runs or a hundred thousand: runs and live packs are persistent maps.

Promised, and checked by `check_invariants` in the tests: every run is in exactly one place (waiting, live,
or at an end), no more packs are launched than the machine holds, and a finished state changes no more.

Not here: the words (`events.py`), whose fault a loss is (`policy.py`), which runs share a pack (`packing.py`).
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from immutables import Map

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
    line,
)
from orchestrator.machine import Machine, Shape
from orchestrator.packing import Pack
from orchestrator.policy import Blame, Budgets, Decision, blame, decide, parts, pause_s

_STORY_LENGTH = 20
_NOTHING: Map[str, Any] = Map()
_EMPTY: Map[Shape, int] = Map()


@dataclass(frozen=True, slots=True)
class Queue:
    """Packs that wait, in their order: those that try again, then those of the plan.

    `planned[done:]` is what is left of the plan, so that taking the first one copies nothing.
    """

    planned: tuple[Pack, ...] = ()
    done: int = 0
    again: tuple[Pack, ...] = ()

    def __len__(self) -> int:
        return len(self.again) + len(self.planned) - self.done

    def __iter__(self) -> Iterator[Pack]:
        yield from self.again
        for index in range(self.done, len(self.planned)):
            yield self.planned[index]

    def first(self) -> Pack:
        """Return the pack whose turn it is."""
        return self.again[0] if self.again else self.planned[self.done]

    def rest(self) -> "Queue":
        """Return the queue without it."""
        return replace(self, again=self.again[1:]) if self.again else replace(self, done=self.done + 1)


@dataclass(frozen=True, slots=True)
class State:
    """A study under way.

    tally    runs in each status
    shapes   of the live packs: how many there are of each
    ignored  events that came twice or too late
    error    what ends the drive early
    story    the tail of the events, oldest first
    """

    runs: Map[str, RunState]
    machine: Machine
    budgets: Budgets
    tally: Map[Status, int]
    waiting: Queue = Queue()
    live: Map[str, LivePack] = _NOTHING
    keys: Map[str, str] = _NOTHING
    shapes: Map[Shape, int] = _EMPTY
    ignored: int = 0
    stopping: bool = False
    finished: bool = False
    error: BaseException | None = None
    story: tuple[str, ...] = ()

    def counts(self) -> Counter[Status]:
        """Return how many runs are in each status."""
        return Counter({status: count for status, count in self.tally.items() if count})

    def live_packs(self) -> list[LivePack]:
        """Return the live packs, sorted by name."""
        return sorted(self.live.values(), key=lambda it: it.pack.key)

    def find(self, pack_id: str) -> Pack | None:
        """Return the live pack with this id."""
        key = self.keys.get(pack_id)
        return self.live[key].pack if key is not None else None


class InvalidTransition(Exception):
    """An event that cannot follow the ones before: a bug. Tells the story so far."""

    def __init__(self, event: str, reason: str, story: tuple[str, ...]) -> None:
        super().__init__(event, reason, story)
        self.event, self.reason, self.story = event, reason, story

    def __str__(self) -> str:
        return "\n  ".join([f"{self.event}: {self.reason}. Before it:", *self.story])


def opened(event: StudyOpened) -> tuple[State, tuple[Command, ...]]:
    """Return the first state of a drive and the first commands."""
    counts = Counter(run.status for run in event.runs.values())
    state = State(Map(event.runs), event.machine, event.budgets, Map(counts), story=(line(event),))
    state = replace(state, waiting=Queue(event.packs))
    for live in event.live:
        state = _with_live(state, live)
    return _launch_or_finish(state, [AdoptPack(live.pack, live.pack_id) for live in event.live])


def transition(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Return the state after `event` and what to do now, in that order; raises InvalidTransition."""
    if isinstance(event, StudyOpened):
        raise InvalidTransition(line(event), "the study was opened before", state.story)
    state = replace(state, story=(*state.story, line(event))[-_STORY_LENGTH:])
    if isinstance(event, DriverReplaced):
        # After its end, too: what it ended with may be the doing of its successor, who kills packs and says so to all.
        return replace(state, finished=True, stopping=True, error=state.error or event.error), (Finish(),)
    if state.finished:
        return _ignored(state)
    match event:
        case PackLaunched():
            return _launched(state, event)
        case PackEnded():
            return _ended(state, event)
        case PackLost():
            return _lost(state, event)
        case RunsAdded():
            return _added(state, event)
        case MachineChanged():
            return _launch_or_finish(replace(state, machine=event.machine), [])
        case StopRequested():
            return _stop(state)


def _ignored(state: State) -> tuple[State, tuple[Command, ...]]:
    return replace(state, ignored=state.ignored + 1), ()


def _launched(state: State, event: PackLaunched) -> tuple[State, tuple[Command, ...]]:
    live = state.live.get(event.key)
    if live is None or live.pack_id:
        return _ignored(state)
    live = replace(live, pack_id=event.pack_id)
    state = replace(state, live=state.live.set(event.key, live), keys=state.keys.set(event.pack_id, event.key))
    return state, ((StopPack(event.pack_id),) if state.stopping else ())


def _ended(state: State, event: PackEnded) -> tuple[State, tuple[Command, ...]]:
    pack = state.find(event.pack_id)
    if pack is None:
        return _ignored(state)
    # A pack that was taken over counts for those of its runs that no later attempt holds; the outcome has all.
    said = {run.run_id: run for run in event.outcome.runs}
    changes, left = {}, []
    for run_id in pack.run_ids:
        run, end = state.runs[run_id], said.get(run_id)
        if end is not None and end.status.is_terminal:
            changes[run_id] = replace(run, status=end.status, step=end.step, reason=end.reason)
        else:
            changes[run_id] = replace(run, status=Status.RUNNING, step=event.steps.get(run_id, run.step))
            left.append(run_id)
    state = _with_runs(_without_live(state, event.pack_id), changes)
    return _launch_or_finish(_requeued(state, _groups(state, pack, left, Blame.OUTSIDE)), [])


def _lost(state: State, event: PackLost) -> tuple[State, tuple[Command, ...]]:
    pack = state.find(event.pack_id)
    if pack is None:
        return _ignored(state)
    found = blame(event.error, len(pack.run_ids))
    reason = f"{type(event.error).__name__}: {event.error}"
    changes: dict[str, RunState] = {}
    failed: list[str] = []
    for run_id in pack.run_ids:
        run = _charged(state.runs[run_id], found)
        charged = run.preemptions if found is Blame.OUTSIDE else run.crashes
        if decide(found, charged, state.budgets) is Decision.GIVE_UP:
            failed.append(run_id)
            changes[run_id] = replace(run, status=Status.FAILED, reason=reason)
        else:
            changes[run_id] = replace(run, status=Status.RUNNING, step=event.steps.get(run_id, run.step), reason="")
    state = _with_runs(_without_live(state, event.pack_id), changes)
    open_runs = [run_id for run_id in pack.run_ids if not state.runs[run_id].status.is_terminal]
    state = _requeued(state, _groups(state, pack, open_runs, found))
    commands: list[Command] = [KillPack(event.pack_id)]
    if failed:
        commands.append(RecordLoss(event.pack_id, tuple(failed), pack.run_ids, reason))
    if found is Blame.DRIVE and state.error is None:
        state = replace(_without_unsent(state), stopping=True, error=event.error)
        commands += [StopPack(live.pack_id) for live in state.live_packs()]
    return _launch_or_finish(state, commands)


def _charged(run: RunState, found: Blame) -> RunState:
    if found is Blame.OUTSIDE:
        return replace(run, preemptions=run.preemptions + 1)
    return replace(run, crashes=run.crashes + 1) if found in (Blame.CRASH, Blame.USER) else run


def _groups(state: State, pack: Pack, run_ids: Iterable[str], found: Blame) -> list[Pack]:
    """Return the packs in which runs of a lost pack try again: never two that go on from different steps."""
    groups: dict[tuple[int, int, int], list[str]] = {}
    for run_id in run_ids:
        run = state.runs[run_id]
        groups.setdefault((run.step, run.crashes, run.preemptions), []).append(run_id)
    packs = []
    for (_, crashes, preemptions), members in groups.items():
        count = parts(len(members), found, crashes, state.budgets)
        size = -(-len(members) // count)
        chunks = (tuple(members[start : start + size]) for start in range(0, len(members), size))
        packs += [replace(pack, run_ids=chunk, pause_s=pause_s(found, preemptions)) for chunk in chunks]
    return packs


def _added(state: State, event: RunsAdded) -> tuple[State, tuple[Command, ...]]:
    new = {run_id: run for run_id, run in event.runs.items() if run_id not in state.runs}
    packs = tuple(pack for pack in event.packs if all(run_id in new for run_id in pack.run_ids))
    if not new:
        return _ignored(state)
    if sorted(run_id for pack in packs for run_id in pack.run_ids) != sorted(
        run_id for run_id, run in new.items() if not run.status.is_terminal
    ):
        raise InvalidTransition(line(event), "its packs do not hold its open runs, once each", state.story)
    left = state.waiting.planned[state.waiting.done :]
    state = _with_runs(state, new)
    return _launch_or_finish(replace(state, waiting=Queue((*left, *packs), 0, state.waiting.again)), [])


def _stop(state: State) -> tuple[State, tuple[Command, ...]]:
    if state.stopping:
        return _ignored(state)
    state = replace(_without_unsent(state), stopping=True)
    return _launch_or_finish(state, [StopPack(live.pack_id) for live in state.live_packs()])


def _launch_or_finish(state: State, commands: list[Command]) -> tuple[State, tuple[Command, ...]]:
    """Launch the packs that fit, in their order; finish where none is live and none may follow."""
    machine = state.machine
    while not state.stopping and state.waiting and len(state.live) < machine.packs_at_once:
        pack = state.waiting.first()
        # With nothing live, a pack that asks for more than there is must not wait for ever.
        if machine.cpus == 0 or (state.live and not machine.fits(_counted(state.shapes, pack, 1))):
            break
        state = replace(_with_live(state, LivePack(pack)), waiting=state.waiting.rest())
        commands.append(LaunchPack(pack, machine.device, pack.pause_s))
    if not state.live and (state.stopping or not state.waiting):
        state = replace(state, finished=True)
        commands.append(Finish())
    return state, tuple(commands)


def _requeued(state: State, packs: Sequence[Pack]) -> State:
    return replace(state, waiting=replace(state.waiting, again=(*packs, *state.waiting.again))) if packs else state


def _counted(shapes: Map[Shape, int], pack: Pack, more: int) -> Map[Shape, int]:
    count = shapes.get(pack.shape, 0) + more
    return shapes.set(pack.shape, count) if count else shapes.delete(pack.shape)


def _with_runs(state: State, changes: dict[str, RunState]) -> State:
    """Return the state with these runs changed, and the counts with them."""
    counts = Counter(run.status for run in changes.values())
    counts.subtract(state.runs[run_id].status for run_id in changes if run_id in state.runs)
    changed = {status: state.tally.get(status, 0) + count for status, count in counts.items()}
    return replace(state, runs=state.runs.update(changes), tally=state.tally.update(changed))


def _with_live(state: State, live: LivePack) -> State:
    pack = live.pack
    keys = state.keys.set(live.pack_id, pack.key) if live.pack_id else state.keys
    state = replace(state, live=state.live.set(pack.key, live), keys=keys, shapes=_counted(state.shapes, pack, 1))
    return _with_runs(state, {run: replace(state.runs[run], status=Status.RUNNING) for run in pack.run_ids})


def _without_live(state: State, pack_id: str) -> State:
    key = state.keys[pack_id]
    live = state.live[key]
    state = replace(state, keys=state.keys.delete(pack_id))
    return replace(state, live=state.live.delete(key), shapes=_counted(state.shapes, live.pack, -1))


def _without_unsent(state: State) -> State:
    """Put packs whose launch was never confirmed back: they may send no news."""
    unsent = [live.pack for live in state.live_packs() if not live.pack_id]
    for pack in unsent:
        state = replace(state, live=state.live.delete(pack.key), shapes=_counted(state.shapes, pack, -1))
        state = _with_runs(state, {run: replace(state.runs[run], status=Status.WAITING) for run in pack.run_ids})
    return _requeued(state, unsent)
