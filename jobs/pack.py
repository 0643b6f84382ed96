"""The contract of a pack: what the head asks a worker to do, and what the worker says at its end.

A pack is runs of one condition that train together in one process on one device. Both messages are records
in the store: a worker needs nothing but the store's address and the pack's id.
"""

from jobs.claims import Attempt
from jobs.errors import NotFound, RunEnded, SpecMismatch
from jobs.identity import canonical_json, condition_spec, run_id, run_spec
from jobs.layout import PackKeys
from jobs.origin import Origin
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

    @classmethod
    def of(cls, seeds: Seeds) -> "SeedsSpec":
        """Return the seeds as they stand in a record."""
        return cls(**seeds.as_dict())

    def seeds(self) -> Seeds:
        """Return them as seeds."""
        return Seeds(self.init, self.data, self.dropout, self.evaluation)


class SeedDigests(Spec):
    """What one run's seeds make: digests of initial weights, first batches, dropout masks and held-out sets."""

    init: str
    data: str
    dropout: str
    evaluation: str


class SeedProof(Spec):
    """The digests of runs of one condition, in the order asked for.

    scopes  by factor: what else decides its digest; runs of one scope differ in it by their seeds alone
    """

    scopes: dict[str, str]
    runs: tuple[SeedDigests, ...]


class PackRun(Spec):
    """One run of a pack.

    origin  where it begins, if not from nothing
    proof   what its seeds were seen to make before it was launched
    """

    run_id: str
    seeds: SeedsSpec
    origin: Origin | None = None
    proof: SeedDigests | None = None


class PackRequest(Spec):
    """What a worker shall train.

    threads        CPU threads of the process; they change the speed and no number
    rolling_every  steps between rolling checkpoints
    strict         whether to refuse to go on from a checkpoint of another environment
    study, epoch   the driver that asks, if one does: a later driver makes a request that nobody has begun void
    """

    pack_id: str
    condition: Condition
    runs: tuple[PackRun, ...]
    rolling_every: Count
    threads: Count
    device: str
    strict: bool = False
    study: str = ""
    epoch: int = 0

    def check_ids(self) -> None:
        """Raise SpecMismatch unless each run's id is the hash of its spec."""
        spec = condition_spec(self.condition)
        for run in self.runs:
            computed = run_id(run_spec(spec, run.seeds.seeds(), run.origin))
            if computed != run.run_id:
                raise SpecMismatch(run.run_id, f"its spec in pack {self.pack_id} has the id {computed}")


class RunOutcome(Spec):
    """How one run of a pack ended, and at which step."""

    run_id: str
    attempt: int
    status: Status
    step: int
    reason: str = ""


class Saves(Spec):
    """What saving checkpoints took: how many files, their bytes, and the seconds until each was durable.

    The seconds are the writer's, which trains nothing: training waits only for the copy before them.
    """

    count: int = 0
    seconds: float = 0.0
    size_bytes: int = 0

    def __add__(self, other: "Saves") -> "Saves":
        """Return both together."""
        return Saves(
            count=self.count + other.count,
            seconds=self.seconds + other.seconds,
            size_bytes=self.size_bytes + other.size_bytes,
        )


class PackOutcome(Spec):
    """How a pack ended, run by run, and what its checkpoints took."""

    pack_id: str
    runs: tuple[RunOutcome, ...]
    saves: Saves = Saves()


def put_request(store: Store, request: PackRequest) -> None:
    """Write the request under its pack's name; raises AlreadyExists where that launch was made before."""
    put_record(store, PackKeys(request.pack_id).request, request.model_dump(mode="json"))


def get_request(store: Store, pack_id: str) -> PackRequest:
    """Return the request of a pack, checked; raises NotFound, Corrupt, SpecMismatch."""
    request = PackRequest.model_validate_json(canonical_json(get_record(store, PackKeys(pack_id).request)))
    request.check_ids()
    return request


def check_still_open(store: Store, newest: Attempt | None) -> None:
    """Raise RunEnded where the newest attempt of a run has ended it for good.

    Called right before the next attempt is claimed: a pack that was thought lost may have ended after all, and whoever
    reads that counts the run as done, while a claim after it would open the run again.
    """
    if newest is None:
        return
    try:
        outcome = get_outcome(store, newest.pack_id)
    except NotFound:
        return
    if any(
        run.run_id == newest.run_id and run.attempt == newest.attempt and run.status.is_final for run in outcome.runs
    ):
        raise RunEnded(newest.run_id, newest.attempt)


def put_outcome(store: Store, outcome: PackOutcome) -> None:
    """Write how the pack ended; raises AlreadyExists where that was said before."""
    put_record(store, PackKeys(outcome.pack_id).outcome, outcome.model_dump(mode="json"))


def get_outcome(store: Store, pack_id: str) -> PackOutcome:
    """Return how the pack ended; raises NotFound, Corrupt."""
    return PackOutcome.model_validate_json(canonical_json(get_record(store, PackKeys(pack_id).outcome)))
