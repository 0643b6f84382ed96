"""A cluster whose packs end as a test says, and which leaves in the store what a real worker would."""

from collections.abc import Callable, Iterable, Sequence

from jobs.claims import FRESH, attempts_of, claim
from jobs.errors import ClusterError, StudyInterrupted
from jobs.identity import condition_spec, run_spec
from jobs.pack import PackOutcome, PackRun, RunOutcome, SeedDigests, SeedProof, get_request, put_outcome
from jobs.records import Status
from jobs.spec import Condition
from jobs.store import open_store
from orchestrator.clusters import News
from orchestrator.events import PackEnded, PackLost
from orchestrator.machine import ANYWHERE, Machine, Needs, Shape
from orchestrator.packing import AssumedTiming, Timing

Verdict = Callable[[str, int], Status | BaseException | None]


def finish(run_id: str, attempt: int) -> Status:
    """Let every run finish."""
    return Status.FINISHED


class FakeCluster:
    """Carries a pack out at `poll`, without training.

    verdict  (run, attempt) → how it ends: a status; an error that loses its pack; None: the pack's process dies
    earlier  the cluster as a head before this one saw it: what it launched, this one can adopt
    """

    def __init__(self, cpus: int = 2, verdict: Verdict = finish, earlier: "FakeCluster | None" = None) -> None:
        self.cpus, self.verdict, self.earlier = cpus, verdict, earlier
        self.launched: list[tuple[str, tuple[str, ...]]] = []
        self.waiting: list[tuple[str, str]] = []
        self.adopted: list[str] = []
        self.stopped: set[str] = set()
        self.closed = False

    def machine(self) -> Machine:
        return Machine(self.cpus, packs_at_once=self.cpus, device="cpu")

    def room(self) -> Machine:
        return self.machine()

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        pass

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        return [AssumedTiming(width, count, (2 + width) / count**0.5) for count in threads for width in (1, 4)]

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        scopes = {"init": condition.model_dump_json(include={"model"}), "data": "", "dropout": "", "evaluation": ""}
        digests = [
            SeedDigests(**{n: f"{scopes[n]}{seed}" for n, seed in run.seeds.model_dump().items()}) for run in runs
        ]
        return SeedProof(scopes=scopes, runs=tuple(digests))

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:
        request = get_request(open_store(store_url), pack_id)
        self.launched.append((pack_id, tuple(run.run_id for run in request.runs)))
        self.waiting.append((store_url, pack_id))

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:
        self.adopted.append(pack_id)
        if self.earlier and (store_url, pack_id) in self.earlier.waiting:
            self.earlier.waiting.remove((store_url, pack_id))
            self.waiting.append((store_url, pack_id))
        return (store_url, pack_id) in self.waiting

    def poll(self, timeout_s: float) -> list[News]:
        if not self.waiting:
            return []
        store_url, pack_id = self.waiting.pop(0)
        if pack_id in self.stopped:
            return [PackLost(pack_id, StudyInterrupted("asked to stop"))]
        store = open_store(store_url)
        request = get_request(store, pack_id)
        spec = condition_spec(request.condition)
        runs = []
        for run in request.runs:
            before = attempts_of(store, run.run_id)
            resolved = run_spec(spec, run.seeds.seeds(), run.origin)
            made = claim(store, run.run_id, pack_id, (FRESH, ""), resolved, after=len(before))
            runs.append((made, self.verdict(run.run_id, made.attempt)))
        for _, verdict in runs:
            if verdict is None:
                return [PackLost(pack_id, ClusterError("the pack's process ended"))]
            if isinstance(verdict, BaseException):
                return [PackLost(pack_id, verdict)]
        outcome = PackOutcome(pack_id=pack_id, runs=tuple(_outcomes(runs, request.condition.training.steps)))
        put_outcome(store, outcome)
        return [PackEnded(pack_id, outcome)]

    def stop(self, pack_id: str) -> None:
        self.stopped.add(pack_id)

    def kill(self, pack_id: str) -> None:
        self.waiting = [item for item in self.waiting if item[1] != pack_id]

    def close(self) -> None:
        self.closed = True


def _outcomes(runs: Iterable[tuple[object, object]], steps: int) -> Iterable[RunOutcome]:
    for made, verdict in runs:
        assert isinstance(verdict, Status)
        reason = "" if verdict is Status.FINISHED else str(verdict)
        yield RunOutcome(run_id=made.run_id, attempt=made.attempt, status=verdict, step=steps, reason=reason)  # type: ignore[attr-defined]
