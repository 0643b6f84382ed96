"""Any step of any run: train from the nearest checkpoint to the step, in memory, and have the weights that were there.

The same loop, engine and draws as in a pack, for one run; bits do not depend on the pack, so the state is the one
that the pack had. A fork's first state is made here, too: the parent's with what is drawn anew, or between two of them.
"""

import fnmatch
import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from jobs.claims import FRESH
from jobs.errors import Corrupt, ModelError, NotFound, SeedbedError
from jobs.measures import steps_in
from jobs.origin import Origin
from jobs.records import METRICS
from jobs.schedule import steps_of
from jobs.seeds import Streams
from jobs.spec import AccelerateSpec, CommandSpec, Condition, ModuleSpec
from jobs.store import Store
from jobs.tasks.task import Task
from workers.batches import Batches
from workers.checkpoint import Kind, Link, Saved, State, checkpoints_of, join, read_slice, slice_digest
from workers.crew import Crew, Member
from workers.determinism import one_thread
from workers.effort import effort_of
from workers.engines import MODEL, Engine, Layered
from workers.engines.choice import engine_of, switch
from workers.fast_forward import KIND
from workers.harness import harness_of
from workers.low_rank import is_adapter, merged
from workers.models.whole import module_with, whole_of
from workers.parts import Cut, whole_digest
from workers.polca import Past
from workers.probes import Probes, Tally
from workers.progress import Progress
from workers.sharpness import TRUST
from workers.stored import StoredRun, load_task, stored_run
from workers.train import Plan, Start, train

log = logging.getLogger(__name__)
MOMENTS, BUFFER = ("adamw.first.", "adamw.second."), "buffer."


@dataclass(frozen=True, slots=True)
class Replayed:
    """A run's state at a step.

    state       every tensor [1, …]: weights (`model.…`), both moments, the tally
    started_at  the step of the checkpoint it was trained from; FRESH: from the seeds alone, or from the parent
    rows        what was measured after `started_at`, as rows of `metrics`
    cuts        what each process of the run holds of the moments; none where they are saved whole
    stored      the digest that the checkpoint at this step has, where the state is its
    """

    run: StoredRun
    step: int
    state: State
    started_at: int
    rows: tuple[dict[str, Any], ...]
    cuts: Sequence[Cut] = ()
    stored: str = ""

    @property
    def sha256(self) -> str:
        """Return the digest that a checkpoint's manifest would have for the run."""
        if self.stored:
            return self.stored
        return whole_digest(self.state, 0, self.cuts) if self.cuts else slice_digest(self.state, 0)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters by name, without the run axis."""
        named = {name.removeprefix(MODEL): self.state[name] for name in self.state if name.startswith(MODEL)}
        return {name: t[0] for name, t in merged(self.run.condition.training.low_rank, named).items()}

    @property
    def begun_from(self) -> Mapping[str, torch.Tensor]:
        """Return the state [1, …] as a fork takes it: where adapters were trained, they are in their matrices."""
        if self.run.condition.training.low_rank is None:
            return self.state
        return {f"{MODEL}{name}": tensor[None] for name, tensor in self.weights.items()}


@dataclass(slots=True)
class _Rows:
    """Keeps rows in memory, where a pack has shards."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, *row: Any) -> None:
        self.rows.append(dict(zip(METRICS.names, row, strict=True)))


class _Memory:
    """Keeps nothing of what a pack saves: the state at the end is asked for."""

    def save(self, step: int, kind: Kind, engine: Engine, tally: Tally) -> None:
        """Let it go by."""

    def flush_if_due(self) -> None:
        """Have nothing to write."""

    def wait(self) -> None:
        """Have nothing to wait for."""

    def finish(self) -> None:
        """Have nothing left."""


@dataclass(slots=True)
class Replays:
    """Runs at steps, each trained to once, however many others begin there or are compared with it.

    progress  is told of each step, if somebody asks it
    """

    store: Store
    progress: Progress = field(default_factory=Progress)
    _known: dict[tuple[str, int], Replayed] = field(default_factory=dict)

    def at(self, run_id: str, step: int) -> Replayed:
        """Return the run at `step`, as `replay` does; all who ask share its tensors, and none may write to them."""
        if (run_id, step) not in self._known:
            self._known[run_id, step] = _replayed(self, run_id, step, None)
        return self._known[run_id, step]


def replay(
    store: Store, run_id: str, step: int, start: int | None = None, progress: Progress | None = None
) -> Replayed:
    """Return the run's state at `step`, trained from the newest checkpoint at or before `step` (and `start`).

    `start=-1` trains from the seeds alone. A step before a fork is the parent's. `progress` is told of each step,
    if somebody asks it. Raises NotFound for a run or a step that there is not, Corrupt where no checkpoint can be read,
    SpecMismatch where the run is not what its id says, ModelError for one of a script (`replay_script.py`).
    """
    return _replayed(Replays(store, progress or Progress()), run_id, step, start)


def _replayed(replays: Replays, run_id: str, step: int, start: int | None) -> Replayed:
    store = replays.store
    run = stored_run(store, run_id)
    if isinstance(run.condition.engine, CommandSpec):
        raise ModelError(f"run {run_id} is a script's: its state is the files of its checkpoints ({run_id}@STEP)")
    if run.origin and 0 <= step < run.origin.step:
        return _replayed(replays, run.origin.run_id, step, start)
    last = run.condition.training.steps
    if not 0 <= step <= last:
        raise NotFound(f"{run_id}@{step}", f"is no step of this run: it has 0 to {last}")
    found = _newest(store, run, min(step, step if start is None else start))
    if found and found[0].step == step:
        return Replayed(run, step, found[1], step, (), stored=found[0].slice.sha256)
    return _trained(replays, run, step, found)


def _trained(replays: Replays, run: StoredRun, step: int, found: tuple[Saved, State] | None) -> Replayed:
    task, streams = load_task(replays.store, run.condition.task), Streams(run.seeds)
    tally = Tally.empty(1)
    state: Mapping[str, torch.Tensor] = {}
    if found:
        state = found[1]
        tally.load(state)
    elif run.origin:
        state = first_state(replays, run.origin, run.condition, task, streams)[0]
    began = found[0].step if found else FRESH
    others = other_ends(replays, [run.origin], run.condition)
    switch(run.condition, 1, 1)
    with closing(engine_of(run.condition, task, [streams])) as engine:
        if state:
            engine.load(state)
        rows = _train_to(replays, step, run, task, engine, tally, began, others)
        return Replayed(run, step, engine.state() | tally.state(), began, tuple(rows), engine.cuts)


def _train_to(
    replays: Replays,
    step: int,
    run: StoredRun,
    task: Task,
    engine: Engine,
    tally: Tally,
    began: int,
    others: Mapping[str, torch.Tensor],
) -> list[dict[str, Any]]:
    crew = Crew("replay", [Member(0, run.attempts[-1], step=max(began, 0))], progress=replays.progress)
    streams, rows = [Streams(run.seeds)], _Rows()
    steps = run.condition.training.steps
    plan = Plan(step, frozenset(steps_of(run.condition.probes, steps)), frozenset(), rolling_every=steps + 1)
    start = Start(run.first_step if began == FRESH else began, is_first=began == FRESH)
    training = run.condition.training
    batches = Batches(task, streams, training.batch_size, crew, training.masking)
    pasts = pasts_of(replays.store, [run.origin], run.condition, task, replays.progress)
    with (
        ends_of(others, run.condition, task, streams, engine) as ends,
        harness_of(replays.store, run.condition, task, "cpu", replays.progress) as harness,
    ):
        condition, effort = run.condition, effort_of(run.condition, task, run.first_step)
        probes = Probes(task, streams, crew, rows, condition.measure, ends, condition.polca, pasts, harness, effort)
        train(plan, start, engine, batches, probes, _Memory(), tally, threading.Event())
    if crew.members[0].step < step:
        ended = crew.members[0]
        raise SeedbedError(f"run {run.run_id} is {ended.status} at step {ended.step}: {ended.reason}")
    return rows.rows


def _newest(store: Store, run: StoredRun, last: int) -> tuple[Saved, State] | None:
    """Return the newest readable checkpoint up to step `last`, with its slice; None where the seeds must do."""
    found = checkpoints_of(store, run.attempts)
    for step in sorted((step for step in found if step <= last), reverse=True):
        try:
            return found[step], read_slice(store, found[step])
        except (Corrupt, NotFound) as error:
            log.warning("checkpoint at step %d left out: %s", step, error)
    return None


def first_state(
    replays: Replays, origin: Origin, condition: Condition, task: Task, streams: Streams
) -> tuple[dict[str, torch.Tensor], tuple[Link, ...]]:
    """Return the state [1, …] in which a fork begins, without tally, and the parents' checkpoints it stems from.

    The last of those is the parent by which the fork is named. Where a parent has no checkpoint at that step it is
    trained to it, in memory. Raises NotFound where a parent was never started, or has parameters of other names or
    shapes.
    """
    parents = [replays.at(run_id, origin.step) for run_id in origin.parents]
    with closing(engine_of(_on_one_process(condition), task, [streams])) as engine:
        fresh = engine.state()
    begins = MOMENTS if origin.moments == "zero" else ()
    own = [name for name in fresh if _is_own(name) or name.startswith(begins)]  # as they are: of no parent
    asked = fresh.keys() - set(own)
    begun = [{name: tensor for name, tensor in one.begun_from.items() if name in asked} for one in parents]
    states = [found | {name: fresh[name].clone() for name in own} for found in begun]
    for parent, found in zip(parents, states, strict=True):
        if {n: t.shape for n, t in found.items()} != {n: t.shape for n, t in fresh.items()}:
            raise NotFound(f"{parent.run.run_id}@{origin.step}", "has not the parameters that its fork needs")
    state = states[0]
    if origin.toward:
        for name in state:
            if name.startswith(MODEL) and name not in own:
                state[name] = between(state[name], states[1][name], origin.toward.fraction)
    for name in state.keys() & asked:
        kind = next(kind for kind in (MODEL, *MOMENTS, BUFFER) if name.startswith(kind))
        redrawn = is_redrawn(name.removeprefix(kind), origin)
        if redrawn or (kind in MOMENTS and origin.moments == "zero"):
            state[name] = fresh[name].clone()  # fresh moments are zero
    for name in (name for name in own if name.startswith(TRUST)):
        state[name] = state[MODEL + name.removeprefix(TRUST)].clone()
    return state, tuple(Link(parent.run.run_id, origin.step, parent.sha256) for parent in reversed(parents))


def _is_own(name: str) -> bool:
    """Return whether a tensor of a run's state is never its parent's."""
    return is_adapter(name) or name.startswith((KIND, TRUST))


def _on_one_process(condition: Condition) -> Condition:
    """Return what draws the same first weights under the same names, and starts nothing beside this process."""
    if isinstance(condition.engine, ModuleSpec):
        return condition.model_copy(update={"engine": AccelerateSpec()})
    return condition


def other_ends(replays: Replays, origins: Sequence[Origin | None], condition: Condition) -> dict[str, torch.Tensor]:
    """Return the state of the other ends of the lines on which runs lie, if they are compared with those; else none."""
    toward = [(origin.toward.run_id, origin.step) for origin in origins if origin and origin.toward]
    if "similarity" not in condition.measure or len(toward) < len(origins):
        return {}
    return dict(join([replays.at(run_id, step).begun_from for run_id, step in toward]))


@contextmanager
def ends_of(
    others: Mapping[str, torch.Tensor],
    condition: Condition,
    task: Task,
    streams: Sequence[Streams],
    engine: Engine,
    device: str = "cpu",
) -> Iterator[tuple[Layered, Layered] | None]:
    """Yield `engine` and one that holds the state of the other ends of its runs' lines, where there are some."""
    if not others:
        yield None
        return
    with closing(engine_of(condition, task, streams, device)) as other:
        lacking = {n: t for n, t in other.state().items() if _is_own(n) or n.startswith(MOMENTS)}  # what no layer shows
        other.load(lacking | {name: others[name] for name in other.state().keys() - lacking.keys()})
        yield engine, other


def pasts_of(
    store: Store, origins: Sequence[Origin | None], condition: Condition, task: Task, progress: Progress
) -> list[Past]:
    """Return what is known of the runs from which these begin, one for each, if they are looked at."""
    if condition.polca is None and not steps_in(condition.measure):
        return []
    return [_past_of(store, origin, condition, task, progress) for origin in origins if origin]


def _past_of(store: Store, origin: Origin, condition: Condition, task: Task, progress: Progress) -> Past:
    def weights(step: int) -> Mapping[str, torch.Tensor]:
        with one_thread():  # which puts back what training there sets for itself
            return replay(store, origin.run_id, step, progress=progress).weights

    def module() -> torch.nn.Module:
        return whole_of(condition, len(task.vocabulary), task.length, 0).model

    return Past(weights, module, origin.step)


def between(one: torch.Tensor, other: torch.Tensor, fraction: float) -> torch.Tensor:
    """Return the point on the straight line from `one` to `other`; the ends are the ends, bit for bit."""
    if fraction in (0.0, 1.0):
        return (one if fraction == 0.0 else other).clone()
    return ((1 - fraction) * one.double() + fraction * other.double()).to(one.dtype)


def is_redrawn(parameter: str, origin: Origin) -> bool:
    """Return whether a parameter of a fork is drawn anew: its name, or a module it lies in, fits a pattern."""
    parts = parameter.split(".")
    names = [".".join(parts[: count + 1]) for count in range(len(parts))]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in origin.redrawn)


def plain_module(replayed: Replayed, task: Task) -> torch.nn.Module:
    """Return the run's model as an ordinary torch module with its weights."""
    return module_with(replayed.run.condition, replayed.weights, len(task.vocabulary), task.length)
