"""Carrying out one pack: claim it, claim its runs, restore, train, say how it ended.

    python -m workers STORE PACK       one pack, without Ray

A pack needs the store's address and its own id, and nothing else: the request lies in the store.
"""

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from jobs import tasks
from jobs.claims import FRESH, Attempt, attempts_of, claim
from jobs.errors import Corrupt, NotFound, SeedbedError
from jobs.identity import condition_spec, run_spec
from jobs.layout import PackKeys, task_key
from jobs.local_files import storage_errors
from jobs.pack import PackOutcome, PackRequest, get_request, put_outcome
from jobs.schedule import steps_of
from jobs.seeds import Streams
from jobs.spec import TaskSpec
from jobs.store import LocalStore, Store, open_store, put_record
from jobs.tasks.task import Task
from workers.batches import Batches
from workers.checkpoint import Saved, checkpoints_of, load
from workers.crew import Crew, Member
from workers.determinism import fingerprint, make_deterministic
from workers.engines.packed import PackedEngine
from workers.probes import Probes, Tally
from workers.shards import ShardWriter
from workers.train import Plan, Saver, train

log = logging.getLogger("workers")


def run_pack(
    store_url: str, pack_id: str, stop: threading.Event | None = None, clock: Callable[[], float] = time.monotonic
) -> PackOutcome:
    """Train the pack `pack_id` of the store and return how it ended, which the store then holds too.

    Raises AlreadyExists where another process carries out this launch, StudyInterrupted after `stop` was set
    (a checkpoint is saved first), Superseded where a later attempt has taken over, StoreError and Corrupt
    where the store fails.
    """
    store = open_store(store_url)
    keys = PackKeys(pack_id)
    request = get_request(store, pack_id)
    with _logging_to(store, keys):
        try:
            make_deterministic(request.threads, len(request.runs))
            environment = fingerprint(request.device)
            put_record(
                store, keys.claim, {"host": socket.gethostname(), "pid": os.getpid(), "environment": environment}
            )
            outcome = _train(store, keys, request, stop or threading.Event(), clock)
        except SeedbedError:
            log.exception("pack %s stopped", pack_id)
            raise
        put_outcome(store, outcome)
        log.info("pack %s ended: %s", pack_id, json.dumps([str(run.status) for run in outcome.runs]))
    return outcome


def _train(
    store: Store, keys: PackKeys, request: PackRequest, stop: threading.Event, clock: Callable[[], float]
) -> PackOutcome:
    task = load_task(store, request.condition.task)
    before = {run.run_id: attempts_of(store, run.run_id) for run in request.runs}
    saved, state = _restore(store, before)
    crew = _claim_runs(store, request, before, saved)
    streams = [Streams(run.seeds.seeds()) for run in request.runs]
    condition = request.condition
    engine = PackedEngine(condition, len(task.vocabulary), task.length, streams, request.device, task.first_answer)
    tally = Tally.empty(len(streams))
    if state:
        tally.load(state)
        engine.load({name: tensor for name, tensor in state.items() if not name.startswith("tally.")})
    shards = ShardWriter(store, keys, clock)
    first_step = saved[0].step if saved else FRESH
    parents = {part.slice.run_id: (part.step, part.slice.sha256) for part in saved}
    steps = condition.training.steps
    plan = Plan(
        steps,
        frozenset(steps_of(condition.probes, steps)),
        frozenset(steps_of(condition.milestones, steps)),
        request.rolling_every,
    )
    train(
        plan,
        first_step,
        engine,
        Batches(task, streams, condition.training.batch_size, crew),
        Probes(task, streams, crew, shards),
        Saver(store, keys, crew, shards, parents, last_saved=first_step),
        tally,
        stop,
    )
    return crew.outcome()


def load_task(store: Store, spec: TaskSpec) -> Task:
    """Return the task of a spec: built in, or a user's own from the copy of its source in the store."""
    if spec.code.startswith("sha256:"):
        path = store.local(task_key(spec.code))
        name = f"{path.name}:{spec.name.rpartition(':')[2]}"
        if tasks.code(name, path.parent) != spec.code:
            raise Corrupt(task_key(spec.code), "the source of the task is not what the spec names")
        return tasks.build(name, spec.parameters, path.parent)
    return tasks.build(spec.name, spec.parameters, store.local("format.json").parent)


def _restore(store: Store, attempts: dict[str, list[Attempt]]) -> tuple[list[Saved], dict[str, torch.Tensor]]:
    """Return the newest checkpoint that every run has, and its state; nothing where there is none.

    A checkpoint that fails its hash is left out, and the one before it is tried.
    """
    found = [checkpoints_of(store, list(of_run)) for of_run in attempts.values()]
    shared = set(found[0]).intersection(*found[1:])
    for step in sorted(shared, reverse=True):
        saved = [of_run[step] for of_run in found]
        try:
            return saved, load(store, saved)
        except (Corrupt, NotFound) as error:
            log.warning("checkpoint at step %d left out: %s", step, error)
    return [], {}


def _claim_runs(store: Store, request: PackRequest, before: dict[str, list[Attempt]], saved: list[Saved]) -> Crew:
    crew = Crew(request.pack_id)
    spec = condition_spec(request.condition)
    for slot, run in enumerate(request.runs):
        resumed = (saved[slot].step, saved[slot].pack_id) if saved else (FRESH, "")
        known = before[run.run_id]
        last = known[-1].attempt if known else 0
        attempt = claim(store, run.run_id, request.pack_id, resumed, run_spec(spec, run.seeds.seeds()), after=last)
        crew.members.append(Member(slot, attempt, step=max(resumed[0], 0)))
    return crew


@contextmanager
def _logging_to(store: LocalStore, keys: PackKeys) -> Iterator[None]:
    """Let everything that workers log go to the pack's log, too."""
    path = store.root / keys.log
    with storage_errors(keys.log):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        with suppress(OSError):  # what a full disk does to the log must not hide what it did to the store
            handler.close()
