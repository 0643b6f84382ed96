"""The only loop: news from the cluster become events, commands of the state become calls.

Nothing is decided here (`state.py`, `policy.py`, `packing.py`) and nothing is kept here (the store): a head that
dies is replaced by one that reads the store.
"""

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from jobs.errors import AlreadyExists, StudyInterrupted
from jobs.layout import PackKeys
from jobs.pack import PackRequest, SeedDigests, put_request
from jobs.records import Status
from jobs.store import Store
from jobs.study import GridPoint, Run, Study
from orchestrator.clusters import Cluster
from orchestrator.packing import Machine, Pack, Timing, Todo, assumed_timings, most_threads, pack_runs
from orchestrator.seed_audit import pack_run, prove_study
from orchestrator.state import (
    Command,
    Event,
    Finish,
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
    opened,
    transition,
)
from orchestrator.store_state import Standing, find_outcome, read_standings, record_loss, resume_steps

POLL_S = 0.5
_CALIBRATED_FROM = 20_000  # run-steps of a condition; below, measuring costs more than it saves
_CALIBRATION_S = 0.1  # for each pack width and number of threads


def _ignore(state: State) -> None:
    """Watch nothing."""


def drive(
    study: Study,
    store: Store,
    cluster: Cluster,
    on_change: Callable[[State], None] = _ignore,
    *,
    calibrate: bool = True,
    strict: bool = False,
) -> State:
    """Train every run of the study that the store does not hold yet; returns the state at the end.

    The seeds of all runs are proven first. With `strict`, a checkpoint of another environment is refused.
    `on_change` is called after every event, and at least every POLL_S while packs train. Raises StudyInterrupted
    after Ctrl-C, when all packs have saved a checkpoint; SeedError where the seeds do not do what the design says;
    EnvironmentChanged; StoreError and its kin where the store fails; SpecMismatch where a stored run is not what its
    id says.
    """
    head = _Head(study, store, cluster, strict)
    standings = read_standings(store, [run.id for run in study.runs])
    todo = head.todo(standings)
    if todo:
        head.proofs = prove_study(study, store, cluster, frozenset(run.run_id for run in todo))
    timings = head.timings(todo, calibrate=calibrate)
    packs = pack_runs(todo, timings, study.settings.execution.pack_width, head.machine)
    runs = {run_id: _run_state(standing) for run_id, standing in standings.items()}
    state, commands = opened(StudyOpened(runs, packs, head.machine, study.settings.execution.retries))
    with _stop_signals() as stop:
        events = deque[Event](head.carry_out(commands))
        while not state.finished:
            on_change(state)
            if stop.is_set() and not state.stopping:
                events.appendleft(StopRequested())
            if not events:
                events.extend(head.news())
                continue
            state, commands = transition(state, events.popleft())
            events.extend(head.carry_out(commands))
    on_change(state)
    if state.error:
        raise state.error
    if state.stopping:
        raise StudyInterrupted("stopped; the same command goes on from the last checkpoints")
    return state


@dataclass(slots=True)
class _Head:
    """Carries out commands and fetches news, for one drive of one study."""

    study: Study
    store: Store
    cluster: Cluster
    strict: bool
    machine: Machine = field(init=False)
    runs: Mapping[str, Run] = field(init=False)
    points: Mapping[str, GridPoint] = field(init=False)
    launched: dict[str, Pack] = field(default_factory=dict)
    proofs: Mapping[str, SeedDigests] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.machine = self.cluster.machine()
        self.runs = {run.id: run for run in self.study.runs}
        self.points = {point.id: point for point in self.study.points}

    def todo(self, standings: Mapping[str, Standing]) -> list[Todo]:
        """Return the runs that are to be trained, in the order of the study."""
        found = []
        for run in self.study.runs:
            standing = standings[run.id]
            if not standing.is_done:
                left = run.point.condition.training.steps - max(standing.step, run.point.first_step)
                found.append(Todo(run.id, run.point.id, standing.step, left))
        return found

    def timings(self, todo: Sequence[Todo], *, calibrate: bool) -> dict[str, Sequence[Timing]]:
        """Return the timings of each condition that is to be trained: measured where that pays, else assumed."""
        work: dict[str, list[int]] = {}
        for run in todo:
            work.setdefault(run.condition_id, []).append(run.steps_left)
        measured = calibrate and self.study.settings.execution.pack_width == "calibrated"
        threads = tuple(sorted({1, most_threads(self.machine.cpus)}))
        found: dict[str, Sequence[Timing]] = {}
        for condition_id, steps in work.items():
            condition = self.points[condition_id].condition
            if measured and sum(steps) >= _CALIBRATED_FROM:
                where = self.store.url, condition, len(steps)
                found[condition_id] = self.cluster.calibrate(*where, threads, _CALIBRATION_S)
            else:
                found[condition_id] = assumed_timings(condition, self.machine)
        return found

    def carry_out(self, commands: Sequence[Command]) -> list[Event]:
        """Do what the state asks for; returns the events that this makes at once."""
        events: list[Event] = []
        for command in commands:
            match command:
                case LaunchPack():
                    pack_id = self._request(command)
                    self.cluster.launch(self.store.url, pack_id, command.pack.threads)
                    self.launched[pack_id] = command.pack
                    events.append(PackLaunched(command.pack.key, pack_id))
                case StopPack():
                    self.cluster.stop(command.pack_id)
                case RecordLoss():
                    pack = self.launched[command.pack_id]
                    record_loss(self.store, command.pack_id, command.run_ids, pack.run_ids, command.reason)
                case Finish():
                    pass
        return events

    def _request(self, command: LaunchPack) -> str:
        """Write the request under the first launch number that is free; returns the pack's id."""
        pack = command.pack
        runs = tuple(pack_run(self.runs[run_id], self.proofs.get(run_id)) for run_id in pack.run_ids)
        number = 0
        while True:
            number += 1
            pack_id = f"{pack.key}.{number:04d}"
            if self.store.exists(PackKeys(pack_id).request):
                continue
            request = PackRequest(
                pack_id=pack_id,
                condition=self.points[pack.condition_id].condition,
                runs=runs,
                rolling_every=self.study.settings.checkpoints.rolling.every,
                threads=pack.threads,
                device=command.device,
                strict=self.strict,
            )
            try:
                put_request(self.store, request)
            except AlreadyExists:
                continue
            return pack_id

    def news(self) -> list[Event]:
        """Return what the cluster says, checked against the store: what a pack committed counts, not its death."""
        events: list[Event] = []
        for item in self.cluster.poll(POLL_S):
            if isinstance(item, PackEnded):
                events.append(item)
            else:
                events.append(self._after_loss(item))
        return events

    def _after_loss(self, lost: PackLost) -> Event:
        outcome = find_outcome(self.store, lost.pack_id)
        if outcome is not None:
            return PackEnded(lost.pack_id, outcome)
        steps = resume_steps(self.store, lost.pack_id, self.launched[lost.pack_id].run_ids)
        return replace(lost, steps=steps)


def _run_state(standing: Standing) -> RunState:
    if standing.is_done:
        return RunState(standing.status, standing.step, reason=standing.reason)
    return RunState(Status.WAITING, standing.step)


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C or SIGTERM sets; a second one raises KeyboardInterrupt as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
