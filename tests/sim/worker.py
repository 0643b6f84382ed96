"""A worker as the control plane sees it: the real claims, beats and outcomes, and training that is a formula.

A generator: between two yields other processes may act, and here it may be killed, stopped, or stand still for a
minute and go on. What it yields is how long the next thing takes, in seconds.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from jobs.beats import Clock, Pulse
from jobs.claims import FRESH, Attempt, attempts_of, claim, counts
from jobs.errors import SeedbedError, StudyInterrupted, Superseded
from jobs.identity import condition_spec, run_spec
from jobs.layout import PackKeys, attempt_key
from jobs.lease import check_still_wanted
from jobs.pack import PackOutcome, RunOutcome, check_still_open, get_request, put_outcome
from jobs.records import Status
from jobs.requests import Wanted
from jobs.store import Manifest, Store, committed, manifest_key, put_record, read_manifest
from workers.progress import Progress, Signs

CHECKPOINT_EVERY = 2


def value(run_id: str, step: int) -> str:
    """Return what every attempt of a run measures at a step."""
    return f"{run_id[-4:]}@{step}"


@dataclass
class Worker:
    """One process. `diverging` runs diverge at step 3, `poison` runs kill it as soon as they train."""

    store: Store
    pack_id: str
    node: int
    diverging: frozenset[str]
    poison: frozenset[str]
    clock: Clock
    pulse: Pulse = field(init=False)
    progress: Progress = field(init=False)
    signs: Signs = field(init=False)
    attempts: list[Attempt] = field(default_factory=list)
    members: tuple[str, ...] = ()
    stop: bool = False
    wanted: Wanted | None = None
    shards: int = 0

    def __post_init__(self) -> None:
        self.pulse, self.progress = Pulse(self.store, self.pack_id), Progress(self.clock)
        self.signs = Signs(self.pulse, self.progress)

    def ask_whether_wanted(self) -> None:
        """Stop, as the heart of a real pack lets it, where the store says that nobody wants it."""
        if self.wanted is not None and not self.wanted():
            self.stop = True

    @property
    def is_training(self) -> bool:
        """Return whether its loop has begun."""
        return len(self.attempts) == len(self.members) > 0

    def life(self) -> Iterator[float]:
        """Carry the pack out; raises what a real pack raises, and Died where it kills its process."""
        keys = PackKeys(self.pack_id)
        request = get_request(self.store, self.pack_id)
        self.members = tuple(run.run_id for run in request.runs)
        check_still_wanted(self.store, request)
        yield 0.5
        put_record(self.store, keys.claim, {"environment": {}})
        self.wanted = Wanted(self.store, request)
        self.signs.beat(0)
        yield 0.3
        before = {run.run_id: attempts_of(self.store, run.run_id) for run in request.runs}
        yield 0.2
        step, packs = _newest(self.store, before)
        yield 0.2
        check_still_wanted(self.store, request)
        spec = condition_spec(request.condition)
        for run in request.runs:
            yield 0.1
            own, known = run_spec(spec, run.seeds.seeds(), run.origin), before[run.run_id]
            check_still_open(self.store, known[-1] if known else None)
            resumed = (step, packs[run.run_id]) if step != FRESH else (FRESH, "")
            self.attempts.append(claim(self.store, run.run_id, self.pack_id, resumed, own, after=len(known)))
        if any(run.run_id in self.poison for run in request.runs):
            raise Died
        runs = {attempt.run_id: Status.RUNNING for attempt in self.attempts}
        if step == FRESH:
            step = 0
            yield from self._commit(0, runs)
        while step < request.condition.training.steps:
            if self.stop:
                self._checkpoint(step, runs)
                raise StudyInterrupted("asked to")
            self.progress.begin("a step")
            yield 1.0
            step += 1
            for run_id in runs:
                if run_id in self.diverging and step == 3:
                    runs[run_id] = Status.DIVERGED
            yield from self._commit(step, runs)
        yield 0.1
        put_outcome(self.store, self._outcome(step, runs))
        yield 0.1
        self.pulse.end()

    def _commit(self, step: int, runs: dict[str, Status]) -> Iterator[float]:
        rows = [
            [a.run_id, a.attempt, step, value(a.run_id, step)]
            for a in self.attempts
            if runs[a.run_id] is Status.RUNNING
        ]
        self.progress.begin("a checkpoint")
        self.shards += 1
        self._put(PackKeys(self.pack_id).shard(self.shards), {"rows": rows})
        yield 0.1
        if step % CHECKPOINT_EVERY == 0:
            self._checkpoint(step, runs)
            yield 0.1

    def _checkpoint(self, step: int, runs: dict[str, Status]) -> None:
        alive = [attempt for attempt in self.attempts if runs[attempt.run_id] is Status.RUNNING]
        for attempt in alive:
            if self.store.exists(attempt_key(attempt.run_id, attempt.attempt + 1)):
                raise Superseded(attempt.run_id, attempt.attempt)
        key = PackKeys(self.pack_id).checkpoint(step)
        if not self.store.exists(manifest_key(key)):
            self._put(key, {"step": step, "runs": [{"run_id": a.run_id, "attempt": a.attempt} for a in alive]})

    def _put(self, key: str, extra: dict[str, object]) -> None:
        put_record(self.store, manifest_key(key), asdict(Manifest(key, 0, "", extra)))

    def _outcome(self, step: int, runs: dict[str, Status]) -> PackOutcome:
        ends = []
        for attempt in self.attempts:
            status = runs[attempt.run_id]
            status, end = (Status.FINISHED, step) if status is Status.RUNNING else (status, 3)
            ends.append(RunOutcome(run_id=attempt.run_id, attempt=attempt.attempt, status=status, step=end))
        return PackOutcome(pack_id=self.pack_id, runs=tuple(ends))


class Died(SeedbedError):
    """The process is gone, without a word."""


def _newest(store: Store, attempts: dict[str, list[Attempt]]) -> tuple[int, dict[str, str]]:
    """Return the newest step at which every run has a checkpoint that counts, and the pack that made each."""
    found: list[dict[int, str]] = []
    for run_id, of_run in attempts.items():
        mine: dict[int, str] = {}
        for attempt in of_run:
            for key in committed(store, PackKeys(attempt.pack_id).checkpoints):
                extra = read_manifest(store, key).extra
                members = [(part["run_id"], part["attempt"]) for part in extra["runs"]]
                if (run_id, attempt.attempt) in members and counts(extra["step"], attempt.attempt, of_run):
                    mine[extra["step"]] = attempt.pack_id
        found.append(mine)
    shared = set(found[0]).intersection(*found[1:])
    if not shared:
        return FRESH, {}
    step = max(shared)
    return step, {run_id: mine[step] for run_id, mine in zip(attempts, found, strict=True)}
