"""What the store says of a run: its spec, its attempts, its task. Nothing else is needed to train it again."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs import tasks
from jobs.claims import Attempt, attempts_of
from jobs.errors import Corrupt, NotFound, SpecMismatch
from jobs.identity import parse_run_spec, run_id, sha256
from jobs.layout import attempt_key, file_key, task_key
from jobs.origin import Origin
from jobs.seeds import Seeds
from jobs.spec import CommandSpec, Condition, TaskSpec
from jobs.store import Store
from jobs.tasks.task import Task
from jobs.text.stored import told_address


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that was claimed at least once; `attempts` oldest first."""

    run_id: str
    condition: Condition
    seeds: Seeds
    origin: Origin | None
    attempts: tuple[Attempt, ...]

    @property
    def is_script(self) -> bool:
        """Return whether a script of the user's trained it, at steps of its own."""
        return isinstance(self.condition.engine, CommandSpec)

    @property
    def first_step(self) -> int:
        """Return the step at which the run's own training begins."""
        return self.origin.step if self.origin else 0


def stored_run(store: Store, run: str) -> StoredRun:
    """Return the run with this id; raises NotFound, Corrupt, or SpecMismatch where its spec is another's."""
    attempts = attempts_of(store, run)
    if not attempts:
        raise NotFound(run, "is no run of this store, or was never started")
    for attempt in attempts:
        if attempt.run_id != run or run_id(attempt.spec) != run:
            raise SpecMismatch(attempt_key(run, attempt.attempt), f"holds a spec with the id {run_id(attempt.spec)}")
    condition, seeds, origin = parse_run_spec(attempts[-1].spec)
    return StoredRun(run, condition, seeds, origin, tuple(attempts))


def stored_file(store: Store, digest: str) -> bytes:
    """Return the file that went along with a study, by its digest; raises NotFound, Corrupt."""
    data = store.get(file_key(digest))
    if f"sha256:{sha256(data)}" != digest:
        raise Corrupt(file_key(digest), "is not the file that its name is the hash of")
    return data


def load_task(store: Store, spec: TaskSpec) -> Task:
    """Return the task of a spec: built in, or a user's own from the copy of its source in the store."""
    if spec.code.startswith("sha256:"):
        path = store.local(task_key(spec.code))
        name = f"{path.name}:{spec.name.rpartition(':')[2]}"
        if tasks.code(name, path.parent) != spec.code:
            raise Corrupt(task_key(spec.code), "the source of the task is not what the spec names")
        return tasks.build(name, spec.parameters, path.parent, partial(told_address, store))
    if tasks.code(spec.name, Path()) != spec.code:
        raise SpecMismatch(spec.name, f"is {tasks.code(spec.name, Path())} here and {spec.code} in the run's spec")
    return tasks.build(spec.name, spec.parameters, Path(), partial(told_address, store))
