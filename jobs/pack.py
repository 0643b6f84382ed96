"""The contract of a pack: what the head asks a worker to do, and what the worker says at its end.

A pack is runs of one condition that train together in one process on one device. Both messages are records
in the store: a worker needs nothing but the store's address and the pack's id.
"""

from jobs.errors import SpecMismatch
from jobs.identity import canonical_json, condition_spec, run_id, run_spec
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.seeds import Seeds
from jobs.spec import Condition, Count, Spec
from jobs.store import Store, get_record, put_record


class SeedsSpec(Spec):
    """The four seeds of a run, as they stand in a record."""

    init: int
    data: int
    dropout: int
    evaluation: int

    def seeds(self) -> Seeds:
        """Return them as seeds."""
        return Seeds(self.init, self.data, self.dropout, self.evaluation)


class PackRun(Spec):
    """One run of a pack."""

    run_id: str
    seeds: SeedsSpec


class PackRequest(Spec):
    """What a worker shall train.

    threads        CPU threads of the process; they change the speed and no number
    rolling_every  steps between rolling checkpoints
    """

    pack_id: str
    condition: Condition
    runs: tuple[PackRun, ...]
    rolling_every: Count
    threads: Count
    device: str

    def check_ids(self) -> None:
        """Raise SpecMismatch unless each run's id is the hash of its spec."""
        spec = condition_spec(self.condition)
        for run in self.runs:
            computed = run_id(run_spec(spec, run.seeds.seeds()))
            if computed != run.run_id:
                raise SpecMismatch(run.run_id, f"its spec in pack {self.pack_id} has the id {computed}")


class RunOutcome(Spec):
    """How one run of a pack ended, and at which step."""

    run_id: str
    attempt: int
    status: Status
    step: int
    reason: str = ""


class PackOutcome(Spec):
    """How a pack ended, run by run."""

    pack_id: str
    runs: tuple[RunOutcome, ...]


def put_request(store: Store, request: PackRequest) -> None:
    """Write the request under its pack's name; raises AlreadyExists where that launch was made before."""
    put_record(store, PackKeys(request.pack_id).request, request.model_dump(mode="json"))


def get_request(store: Store, pack_id: str) -> PackRequest:
    """Return the request of a pack, checked; raises NotFound, Corrupt, SpecMismatch."""
    request = PackRequest.model_validate_json(canonical_json(get_record(store, PackKeys(pack_id).request)))
    request.check_ids()
    return request


def put_outcome(store: Store, outcome: PackOutcome) -> None:
    """Write how the pack ended; raises AlreadyExists where that was said before."""
    put_record(store, PackKeys(outcome.pack_id).outcome, outcome.model_dump(mode="json"))


def get_outcome(store: Store, pack_id: str) -> PackOutcome:
    """Return how the pack ended; raises NotFound, Corrupt."""
    return PackOutcome.model_validate_json(canonical_json(get_record(store, PackKeys(pack_id).outcome)))
