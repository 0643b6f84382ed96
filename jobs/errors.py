"""Every error that Seedbed raises on purpose, as one tree.

    SeedbedError
    ├── StudyError            a study file, or what it asks for, is wrong: every fault at once
    │   ├── ImportRefused     a table from elsewhere, or the mapping of its columns, is wrong
    │   └── TextRefused       text, or a tokenizer, that cannot become a corpus
    ├── TaskError             a task raised, or returned what no task may return
    ├── ModelError            a model or an engine that cannot be built here, such as for want of a package
    ├── StoreError
    │   ├── AlreadyExists     put-if-absent lost: somebody else holds this key
    │   ├── NotFound          no such key
    │   ├── Corrupt           bytes that differ from what was committed
    │   ├── StoreFull         no space left where the store lies
    │   ├── StoreDenied       credentials that are missing or not enough
    │   ├── StoreUnreachable  a bucket that does not answer
    │   ├── ForeignStore      another format, or no store at all
    │   └── SpecMismatch      a stored spec that does not hash to the id it lies under
    ├── SeedError             seeds that do not do what the design says: clones, ignored seeds, collisions
    ├── EnvironmentChanged    a checkpoint of another environment, where that was to be refused
    ├── Superseded            a later attempt owns the run: this one must stop writing
    ├── RunEnded              an earlier attempt ended the run after all: there is nothing left to train
    ├── LeaseLost             another driver has the study
    ├── OutOfMemory           a pack does not fit into the memory of its device
    ├── ClusterError          the cluster cannot be reached or refuses the work
    │   ├── NodeLost          the machine under a pack is gone
    │   ├── PackSilent        a pack has stopped beating
    │   ├── PackStalled       a pack beats, and its loop stands still
    │   ├── RankLost          one of the processes that train a run together has ended
    │   └── ScriptLost        a script that had begun to train has ended before its time
    ├── QueryError            SQL, or a question, that cannot be answered
    ├── MirrorError           another tracker does not take what it is sent
    └── StudyInterrupted      stopped before the end: the same command goes on

Errors cross process borders by pickle (Ray does it), and an exception whose `__init__` takes other
arguments than it hands to `super()` fails on arrival. So each error hands over all its fields.
"""

from dataclasses import dataclass


class SeedbedError(Exception):
    """An error that a user can act on; the command line prints it without a traceback."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a study file.

    `line` counts from 1; 0 where the fault has no line of its own (a key that is missing altogether).
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class StudyError(SeedbedError):
    """A study that cannot be run; holds every fault that was found, not only the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        count = len(self.faults)
        head = "1 fault" if count == 1 else f"{count} faults"
        return "\n".join([f"{head} in the study; nothing was trained.", *(f"  {f}" for f in self.faults)])


class ImportRefused(StudyError):
    """A table that cannot be imported as it was mapped; holds every fault that was found. Nothing was stored."""

    def __str__(self) -> str:
        count = len(self.faults)
        head = "1 fault" if count == 1 else f"{count} faults"
        return "\n".join([f"{head} in the import; nothing was stored.", *(f"  {f}" for f in self.faults)])


class TextRefused(StudyError):
    """Text that cannot become a corpus as it was asked for; what was committed before stays."""

    def __str__(self) -> str:
        return "\n".join(["the corpus is not made.", *(f"  {fault}" for fault in self.faults)])


class TaskError(SeedbedError):
    """A task that raised or returned something impossible; names where, so that it can be looked up."""

    def __init__(self, task: str, run_id: str, step: int, message: str, log: str = "") -> None:
        super().__init__(task, run_id, step, message, log)
        self.task, self.run_id, self.step, self.message, self.log = task, run_id, step, message, log

    def __str__(self) -> str:
        where = f"task {self.task}"
        if self.run_id:
            where += f", run {self.run_id}, step {self.step}"
        tail = f"\nThe traceback is in {self.log}" if self.log else ""
        return f"{where}: {self.message}{tail}"


class StoreError(SeedbedError):
    """Something is wrong with the store or with what lies in it."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key, self.message = key, message

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


class AlreadyExists(StoreError):
    """The key is taken. Nothing was written."""

    def __init__(self, key: str, message: str = "exists already") -> None:
        super().__init__(key, message)


class NotFound(StoreError):
    """The store holds nothing under the key."""

    def __init__(self, key: str, message: str = "is not in the store") -> None:
        super().__init__(key, message)


class Corrupt(StoreError):
    """The bytes under the key are not the bytes that were committed."""


class StoreFull(StoreError):
    """The disk of the store is full; what was committed before stays readable."""

    def __init__(self, key: str, message: str = "no space left on the disk of the store") -> None:
        super().__init__(key, message)

    def __str__(self) -> str:
        return (
            f"{self.message} (while writing {self.key}). Nothing that was committed is lost: "
            "free some space and run the same command again."
        )


class StoreDenied(StoreError):
    """The bucket refuses these credentials, or there are none."""


class StoreUnreachable(StoreError):
    """The bucket does not answer, after every retry; what was committed before is not touched."""


class ForeignStore(StoreError):
    """The folder holds another format of the store, or things that are not a store."""


class SpecMismatch(StoreError):
    """A stored spec does not hash to its id: it was changed, or two specs collide. Never overwritten."""


class SeedError(SeedbedError):
    """Seeds that do not do what the design says; holds every fault that was found. Nothing was trained."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        shown = [f"  {fault}" for fault in self.faults[:20]]
        more = [f"  … and {len(self.faults) - 20} more"] if len(self.faults) > 20 else []
        return "\n".join(["the seeds do not do what the design says; nothing was trained.", *shown, *more])


class EnvironmentChanged(SeedbedError):
    """A checkpoint was made under another fingerprint than this process has, and that was to be refused."""

    def __init__(self, run_id: str, step: int, differences: str) -> None:
        super().__init__(run_id, step, differences)
        self.run_id, self.step, self.differences = run_id, step, differences

    def __str__(self) -> str:
        return (
            f"run {self.run_id} would go on from step {self.step} in another environment: {self.differences}. "
            "Without --strict-environment it goes on and is marked."
        )


class Superseded(SeedbedError):
    """A later attempt has claimed the run; whatever this one still writes is not counted."""

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(run_id, attempt)
        self.run_id, self.attempt = run_id, attempt

    def __str__(self) -> str:
        return f"run {self.run_id}: attempt {self.attempt} was superseded by a later one"


class RunEnded(SeedbedError):
    """An earlier attempt has ended the run after all; a later one would leave it open."""

    def __init__(self, run_id: str, attempt: int) -> None:
        super().__init__(run_id, attempt)
        self.run_id, self.attempt = run_id, attempt

    def __str__(self) -> str:
        return f"run {self.run_id}: attempt {self.attempt} has ended it; it is not trained again"


class ClusterError(SeedbedError):
    """The cluster cannot be reached, or refuses what was asked of it."""


class NodeLost(ClusterError):
    """The machine on which a pack trained is gone, or was taken away; its runs are not to blame."""


class PackSilent(ClusterError):
    """A pack has not beaten for so long that it counts as gone: a hang, a cut network, a stopped process."""


class PackStalled(ClusterError):
    """A pack beats, but what its loop does has not ended for implausibly long: a deadlock, perhaps its own."""


class RankLost(ClusterError):
    """One of several processes that train a run together has ended; the run goes on from its last checkpoint."""


class ScriptLost(ClusterError):
    """A script was killed, or ended with an error after it had begun; the run goes on from its last checkpoint."""


class ModelError(SeedbedError):
    """A model or an engine that cannot be built here: no such configuration, or a package that is missing."""


class OutOfMemory(SeedbedError):
    """A pack does not fit into the memory of its device; half of it may."""


class LeaseLost(SeedbedError):
    """Another driver has the study; whatever this one still wanted to launch it must not."""

    def __init__(self, study: str, epoch: int) -> None:
        super().__init__(study, epoch)
        self.study, self.epoch = study, epoch

    def __str__(self) -> str:
        return f"study {self.study}: driver {self.epoch} was replaced by a later one, which goes on with the study"


class QueryError(SeedbedError):
    """A question that cannot be answered as it was put."""


class MirrorError(SeedbedError):
    """Another tracker does not take what it is sent; the store has it, and it can be sent later."""


class StudyInterrupted(SeedbedError):
    """The study was stopped before its end; the same command goes on from the last checkpoint."""
