"""Carrying out one pack: claim it, claim its runs, restore, train, say how it ended.

    python -m workers STORE PACK       one pack, without Ray

A pack needs the store's address and its own id, and nothing else: the request lies in the store.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

from jobs.beats import Heart, Pulse
from jobs.claims import FRESH, Attempt, attempts_of, claim
from jobs.errors import Corrupt, EnvironmentChanged, NotFound, SeedbedError, SeedError, StoreError
from jobs.identity import condition_spec, run_spec
from jobs.layout import PackKeys
from jobs.lease import check_still_wanted
from jobs.pack import PackOutcome, PackRequest, check_still_open, get_request, put_outcome
from jobs.process import this_process
from jobs.requests import Wanted
from jobs.schedule import steps_of
from jobs.seeds import Streams
from jobs.spec import CommandSpec
from jobs.store import Store, get_record, open_store, put_record
from jobs.tasks.task import Task
from workers.batches import Batches
from workers.checkpoint import Link, Saved, State, checkpoints_of, join, read_rows
from workers.checkpoint_files import restore
from workers.crew import Crew, Member
from workers.determinism import Environment, fingerprint
from workers.effort import effort_of
from workers.engines import Engine, parameters_of
from workers.engines.choice import engine_of, packages_of, switch
from workers.engines.command import Assignment, private_folder, running
from workers.harness import harness_of
from workers.host import ALONE, Nodes
from workers.memory import keeping_freed_memory, out_of_memory
from workers.probes import Probes, Tally
from workers.progress import Signs
from workers.replay import Replays, ends_of, first_state, other_ends, pasts_of
from workers.saver import Saver
from workers.script_proof import witness
from workers.scripted import follow
from workers.seed_proof import prove, weights_digest
from workers.shards import ShardWriter
from workers.stored import load_task
from workers.stored_slice import StoredRows
from workers.train import Plan, Start, train
from workers.writer import Writer

log = logging.getLogger("workers")


@dataclass(frozen=True, slots=True)
class _Launch:
    """What is asked for, and with what it is carried out."""

    store: Store
    request: PackRequest
    environment: Environment
    crew: Crew
    stop: threading.Event
    clock: Callable[[], float]
    nodes: Nodes


def run_pack(
    store_url: str,
    pack_id: str,
    stop: threading.Event | None = None,
    clock: Callable[[], float] = time.monotonic,
    actor: str = "",
    nodes: Nodes = ALONE,
) -> PackOutcome:
    """Train the pack `pack_id` of the store and return how it ended, which the store then holds too.

    It stops, too, when the store says that nobody wants it any more, so that it needs no head to hear of that. `actor`
    is the name by which a later head finds this process on its cluster; it stands in the pack's claim. Processes that
    train a run together lie on this node and on `nodes`.
    Raises AlreadyExists where another process carries out this launch, LeaseLost where the driver that asked for it
    was replaced before it began, StudyInterrupted after `stop` was set (a checkpoint is saved first), Superseded where
    a later attempt has taken over, OutOfMemory where the pack does not fit, SeedError where the seeds make something
    else than was proven, EnvironmentChanged where that is to be refused, StoreError and Corrupt where the store fails.
    """
    store = open_store(store_url)
    keys = PackKeys(pack_id)
    request = get_request(store, pack_id)
    crew = Crew(pack_id)
    with _logging_to(store, keys):
        try:
            switch(request.condition, request.threads, len(request.runs))
            environment = fingerprint(request.device, packages_of(request.condition))
            check_still_wanted(store, request)
            put_record(store, keys.claim, this_process() | {"actor": actor, "environment": environment.facts})
            stop = stop or threading.Event()
            launch = _Launch(store, request, environment, crew, stop, clock, nodes)
            with _beating(store, request, crew, stop), keeping_freed_memory(), out_of_memory(request):
                _train(launch)
                outcome = crew.outcome()
                put_outcome(store, outcome)
        except SeedbedError:
            log.exception("pack %s stopped", pack_id)
            raise
        log.info("pack %s ended: %s", pack_id, json.dumps([str(run.status) for run in outcome.runs]))
    return outcome


@contextmanager
def _beating(store: Store, request: PackRequest, crew: Crew, stop: threading.Event) -> Iterator[None]:
    """Give signs of life from a thread of its own, while the crew moves, and hear there that it shall stop."""
    pulse = Pulse(store, crew.pack_id)
    signs, wanted = Signs(pulse, crew.progress), Wanted(store, request)

    def beat() -> None:
        signs.beat(crew.step)
        if not wanted():
            stop.set()

    try:
        with Heart(beat):
            yield
    finally:
        with suppress(StoreError):
            pulse.end()


def _train(launch: _Launch) -> None:
    before = {run.run_id: attempts_of(launch.store, run.run_id) for run in launch.request.runs}
    launch.crew.progress.trust(1 + max(len(of_run) for of_run in before.values()))
    if isinstance(launch.request.condition.engine, CommandSpec):
        _train_script(launch, before)
        return
    left_out: set[int] = set()
    while not _trained(launch, before, left_out):
        pass


def _trained(launch: _Launch, before: dict[str, list[Attempt]], left_out: set[int]) -> bool:
    """Train, unless the checkpoint that it would go on from is damaged: then its step is added to `left_out`."""
    store, request, crew = launch.store, launch.request, launch.crew
    keys, condition = PackKeys(request.pack_id), request.condition
    task = load_task(store, condition.task)
    saved, state = _restore(store, before, left_out)
    if request.strict:
        _refuse_change(store, saved, launch.environment)
    streams = [Streams(run.seeds.seeds()) for run in request.runs]
    tally = Tally.empty(len(streams))
    replays = Replays(store, crew.progress)
    if saved:
        parents = {part.slice.run_id: _lineage(part) for part in saved}
    else:
        parents, state = _beginnings(replays, request, task, streams)
    origins = [run.origin for run in request.runs]
    others, pasts = other_ends(replays, origins, condition), pasts_of(store, origins, condition, task, crew.progress)
    effort = effort_of(condition, task, origins[0].step if origins[0] else 0)
    switch(condition, request.threads, len(request.runs))  # a replay has set its own
    del replays  # and with it the states of all parents
    with closing(engine_of(condition, task, streams, request.device, launch.nodes)) as engine, Writer() as writer:
        if saved and not _have_gone_on(engine, tally, state, saved, left_out):
            return False
        if not saved:
            if state:
                engine.load(state)
            _check_proof(request, task, engine)
        check_still_wanted(store, request)
        _claim_runs(launch, before, saved)
        start, last_saved = _start(request, saved)
        shards = ShardWriter(store, keys, launch.clock)
        with (
            ends_of(others, condition, task, streams, engine, request.device) as ends,
            harness_of(store, condition, task, request.device, crew.progress) as harness,
        ):
            train(
                _plan(request),
                start,
                engine,
                Batches(task, streams, condition.training.batch_size, crew, condition.training.masking),
                Probes(task, streams, crew, shards, condition.measure, ends, condition.polca, pasts, harness, effort),
                Saver(store, keys, crew, shards, writer, launch.environment.digest, parents, last_saved, launch.clock),
                tally,
                launch.stop,
            )
    return True


def _have_gone_on(engine: Engine, tally: Tally, state: State, saved: list[Saved], left_out: set[int]) -> bool:
    """Let a pack go on from its checkpoints; returns whether they are what was committed."""
    try:
        engine.load(state)
        tally.load(state)
        if isinstance(state, StoredRows):
            state.finish()
    except (Corrupt, NotFound) as error:
        log.warning("checkpoint at step %d left out: %s", saved[0].step, error)
        left_out.add(saved[0].step)
        return False
    return True


def _train_script(launch: _Launch, before: dict[str, list[Attempt]]) -> None:
    store, request, crew, clock = launch.store, launch.request, launch.crew, launch.clock
    (run,) = request.runs
    keys = PackKeys(request.pack_id)
    with private_folder() as folder:
        saved = restore(store, before[run.run_id], folder / "resume")
        if request.strict:
            _refuse_change(store, saved, launch.environment)
        check_still_wanted(store, request)
        _claim_runs(launch, before, saved)
        step = saved[0].step if saved else FRESH
        attempt, seeds = crew.members[0].attempt.attempt, run.seeds.seeds()
        assigned = Assignment(
            request.condition, seeds, run.run_id, attempt, step, request.device, request.rolling_every
        )
        parents = {run.run_id: _lineage(saved[0])} if saved else {}
        shards = ShardWriter(store, keys, clock)
        with Writer() as writer, running(store, assigned, folder) as script:
            saver = Saver(store, keys, crew, shards, writer, launch.environment.digest, parents, step, clock)
            compare = partial(witness, store, request.condition, run)
            follow(_plan(request), step, script, crew, shards, saver, launch.stop, compare, clock)


def _start(request: PackRequest, saved: list[Saved]) -> tuple[Start, int]:
    """Return where training begins, and the step of the newest checkpoint that counts as one of its own."""
    origin = request.runs[0].origin
    step = saved[0].step if saved else origin.step if origin else 0
    # The first state of a fork is its parent's, by reference; it is a checkpoint of its own only if it was changed.
    is_saved = bool(saved) or (origin is not None and not origin.is_saved_anew)
    return Start(step, is_first=not saved), step if is_saved else FRESH


def _plan(request: PackRequest) -> Plan:
    steps = request.condition.training.steps
    return Plan(
        steps,
        frozenset(steps_of(request.condition.probes, steps)),
        frozenset(steps_of(request.condition.milestones, steps)),
        request.rolling_every,
    )


def _beginnings(
    replays: Replays, request: PackRequest, task: Task, streams: list[Streams]
) -> tuple[dict[str, tuple[Link, ...]], State]:
    """Return the parents of what the runs begin with, and its state; both empty where they begin with their seeds."""
    parents: dict[str, tuple[Link, ...]] = {}
    rows = []
    for run, stream in zip(request.runs, streams, strict=True):
        if run.origin:
            row, links = first_state(replays, run.origin, request.condition, task, stream)
            rows.append(row)
            parents[run.run_id] = links
    return parents, join(rows) if rows else {}


def _check_proof(request: PackRequest, task: Task, engine: Engine) -> None:
    """Raise SeedError where what is about to train is not what was proven before the launch."""
    told = []
    weights = parameters_of(engine)
    for slot, (run, seen) in enumerate(
        zip(request.runs, prove(request.condition, task, request.runs).runs, strict=True)
    ):
        if run.proof is None:
            continue
        if run.origin is None:
            mine = {name: tensor[slot].detach().cpu().numpy() for name, tensor in weights.items()}
            seen = seen.model_copy(update={"init": weights_digest(mine)})
        differing = [name for name, value in run.proof.model_dump().items() if getattr(seen, name) != value]
        told += [f"run {run.run_id}: {name} here is not what it was at the proof of seeds" for name in differing]
    if told:
        raise SeedError(tuple(told))


def _restore(store: Store, attempts: dict[str, list[Attempt]], left_out: set[int]) -> tuple[list[Saved], State]:
    """Return the newest checkpoint that every run has, and its state; nothing where there is none.

    A checkpoint that cannot be read is left out, and the one before it is tried.
    """
    found = [checkpoints_of(store, list(of_run)) for of_run in attempts.values()]
    shared = set(found[0]).intersection(*found[1:]) - left_out
    for step in sorted(shared, reverse=True):
        saved = [of_run[step] for of_run in found]
        try:
            return saved, read_rows(store, saved)
        except (Corrupt, NotFound) as error:
            log.warning("checkpoint at step %d left out: %s", step, error)
    return [], {}


def _lineage(saved: Saved) -> tuple[Link, ...]:
    """Return the parents of what is trained on from this checkpoint."""
    return (saved.link,) if saved.kind == "milestone" else (saved.link, *saved.slice.parents)


def _refuse_change(store: Store, saved: list[Saved], environment: Environment) -> None:
    for part in saved:
        if part.manifest.extra["environment"] != environment.digest:
            before = get_record(store, PackKeys(part.pack_id).claim)["environment"]
            raise EnvironmentChanged(part.slice.run_id, part.step, environment.differences(before))


def _claim_runs(launch: _Launch, before: dict[str, list[Attempt]], saved: list[Saved]) -> None:
    store, request = launch.store, launch.request
    spec = condition_spec(request.condition)
    for slot, run in enumerate(request.runs):
        resumed = (saved[slot].step, saved[slot].pack_id) if saved else (FRESH, "")
        known = before[run.run_id]
        newest = known[-1] if known else None
        check_still_open(store, newest)
        own = run_spec(spec, run.seeds.seeds(), run.origin)
        attempt = claim(store, run.run_id, request.pack_id, resumed, own, after=newest.attempt if newest else 0)
        launch.crew.members.append(Member(slot, attempt, step=max(resumed[0], 0)))


@contextmanager
def _logging_to(store: Store, keys: PackKeys) -> Iterator[None]:
    """Let everything that workers log go to the pack's log, too."""
    with store.log(keys.log) as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
        try:
            yield
        finally:
            log.removeHandler(handler)
