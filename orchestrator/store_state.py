"""What the store says of a study: where each of its runs stands.

The head keeps nothing of its own: a new head reads this and goes on. One listing of the attempts and one of
the packs tell most of it; a claim is read only where a run is to be resumed, and a checkpoint's manifest
only for those.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from jobs.claims import FRESH, Attempt, get_attempt
from jobs.errors import AlreadyExists, Corrupt, NotFound, SpecMismatch
from jobs.identity import run_id
from jobs.layout import PackKeys, attempt_key, parse_attempt_key
from jobs.pack import PackOutcome, RunOutcome, get_outcome, put_outcome
from jobs.records import Status
from jobs.store import Store, put_record, read_manifest


@dataclass(frozen=True, slots=True)
class Standing:
    """Where one run stands in the store.

    attempts      how many were claimed
    step          the last step of an ended run; else the checkpoint from which it goes on, or FRESH
    reason        why it failed or diverged; else empty
    pack_id       of the newest attempt of a run that is not done; else empty
    """

    run_id: str
    status: Status
    attempts: int
    step: int
    reason: str = ""
    pack_id: str = ""

    @property
    def is_done(self) -> bool:
        """Return whether the run is never trained again; a failed one is, by the next drive."""
        return self.status.is_final


@dataclass(frozen=True, slots=True)
class _Packs:
    """One listing of all packs: which said how they ended, and the steps of the checkpoints they have."""

    ended: list[str] = field(default_factory=list)
    checkpoints: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def listed(cls, keys: Iterable[str]) -> "_Packs":
        packs = cls()
        for key in keys:
            _, pack_id, *rest = key.split("/")
            if rest == ["outcome.json"]:
                packs.ended.append(pack_id)
            elif rest[0] == "checkpoints" and rest[-1].endswith(".safetensors.manifest.json"):
                packs.checkpoints.setdefault(pack_id, []).append(int(rest[-1].partition(".")[0]))
        return packs


def read_standings(store: Store, run_ids: Sequence[str]) -> dict[str, Standing]:
    """Return where each of the runs stands, in the order asked for.

    Raises SpecMismatch or Corrupt where the claim of a run that is to be trained on was changed.
    """
    attempts = _attempt_numbers(store, frozenset(run_ids))
    packs = _Packs.listed(store.keys("packs/"))
    outcomes: dict[tuple[str, int], RunOutcome] = {}
    if attempts:
        for pack_id in packs.ended:
            outcomes.update({(run.run_id, run.attempt): run for run in get_outcome(store, pack_id).runs})
    resume = _Resume(store, packs.checkpoints)
    standings = {}
    for run in run_ids:
        count = attempts.get(run, 0)
        said = outcomes.get((run, count))
        if said and said.status.is_final:
            standings[run] = Standing(run, said.status, count, said.step, said.reason)
        elif not count:
            standings[run] = Standing(run, Status.WAITING, 0, FRESH)
        else:
            status = said.status if said else Status.RUNNING
            step, pack_id = resume.step_of(run, count), resume.attempt(run, count).pack_id
            standings[run] = Standing(run, status, count, step, said.reason if said else "", pack_id)
    return standings


def resume_steps(store: Store, pack_id: str, run_ids: Sequence[str]) -> dict[str, int]:
    """Return the step from which each run of a lost pack can go on, or FRESH."""
    # Only the pack's own folder is listed, and those of earlier attempts as they are needed.
    resume = _Resume(store, _Packs.listed(store.keys(PackKeys(pack_id).folder)).checkpoints)
    return {run: resume.step_of(run, _last_attempt(store, run)) for run in run_ids}


def ends_of_others(store: Store, pack_id: str, run_ids: Sequence[str]) -> tuple[PackOutcome, dict[str, int]]:
    """Return how runs of this pack ended in other packs, as its own outcome, and the steps where the rest goes on."""
    standings = read_standings(store, run_ids)
    ended = tuple(
        RunOutcome(run_id=it.run_id, attempt=it.attempts, status=it.status, step=it.step, reason=it.reason)
        for it in standings.values()
        if it.is_done
    )
    return PackOutcome(pack_id=pack_id, runs=ended), {it.run_id: it.step for it in standings.values() if not it.is_done}


def record_loss(store: Store, pack_id: str, failed: Sequence[str], run_ids: Sequence[str], reason: str) -> None:
    """Write, in the place of a lost pack, how its runs ended: these failed for `reason`, the others go on.

    A failed run whose newest attempt is held by another pack, one that was given up before, failed there. Nothing
    happens where no attempt was claimed, or where a pack did say how it ended after all.
    """
    by_pack: dict[str, list[RunOutcome]] = {}
    for run in run_ids:
        number = _last_attempt(store, run)
        if not number:
            continue
        attempt = get_attempt(store, run, number)
        if attempt.pack_id != pack_id and run not in failed:
            continue
        status = Status.FAILED if run in failed else Status.RUNNING
        step = max(attempt.resumed_step, 0)
        outcome = RunOutcome(run_id=run, attempt=number, status=status, step=step, reason=reason)
        by_pack.setdefault(attempt.pack_id, []).append(outcome)
    for holder, runs in by_pack.items():
        with suppress(AlreadyExists):
            put_outcome(store, PackOutcome(pack_id=holder, runs=tuple(runs)))


def holding_pack(store: Store, run_id: str) -> str:
    """Return the pack that holds the newest attempt of a run; raises NotFound where there is none."""
    return get_attempt(store, run_id, _last_attempt(store, run_id)).pack_id


def give_up(store: Store, pack_id: str) -> None:
    """Say that nobody counts on this pack any more, before its runs are launched again; may be called again."""
    with suppress(AlreadyExists):
        put_record(store, PackKeys(pack_id).given_up, {})


def find_outcome(store: Store, pack_id: str) -> PackOutcome | None:
    """Return how the pack ended if it said so."""
    try:
        return get_outcome(store, pack_id)
    except NotFound:
        return None


@dataclass(frozen=True, slots=True)
class _Resume:
    """Finds the newest checkpoint of a run, reading each manifest once."""

    store: Store
    checkpoints: dict[str, list[int]]
    members: dict[tuple[str, int], frozenset[tuple[str, int]]] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)

    def attempt(self, run: str, number: int) -> Attempt:
        """Return the claim of an attempt, checked; it never changes, so it is read once."""
        if (run, number) not in self.attempts:
            attempt = get_attempt(self.store, run, number)
            check_spec(attempt, run)
            self.attempts[run, number] = attempt
        return self.attempts[run, number]

    def step_of(self, run: str, attempts: int) -> int:
        """Return the step of the newest checkpoint that counts for a run with that many attempts, or FRESH."""
        bound: int | None = None
        for number in range(attempts, 0, -1):
            attempt = self.attempt(run, number)
            for step in sorted(self._steps(attempt.pack_id), reverse=True):
                if (bound is None or step <= bound) and (run, number) in self._members(attempt.pack_id, step):
                    return step
            bound = attempt.resumed_step if bound is None else min(bound, attempt.resumed_step)
            if bound == FRESH:
                break
        return FRESH

    def _steps(self, pack_id: str) -> list[int]:
        if pack_id not in self.checkpoints:
            found = _Packs.listed(self.store.keys(PackKeys(pack_id).checkpoints))
            self.checkpoints[pack_id] = found.checkpoints.get(pack_id, [])
        return self.checkpoints[pack_id]

    def _members(self, pack_id: str, step: int) -> frozenset[tuple[str, int]]:
        """Return (run, attempt) of every run in the checkpoint; none where its manifest cannot be read."""
        if (pack_id, step) not in self.members:
            try:
                runs = read_manifest(self.store, PackKeys(pack_id).checkpoint(step)).extra["runs"]
                found = frozenset((str(part["run_id"]), int(part["attempt"])) for part in runs)
            except (Corrupt, NotFound):
                # The worker leaves it out, too, and the collector puts it on record.
                found = frozenset()
            self.members[pack_id, step] = found
        return self.members[pack_id, step]


def check_spec(attempt: Attempt, run: str) -> None:
    """Raise SpecMismatch unless the claim is of this run and its spec hashes to the run's id."""
    computed = run_id(attempt.spec)
    if attempt.run_id != run or computed != run:
        raise SpecMismatch(
            attempt_key(run, attempt.attempt), f"holds a spec with the id {computed}; the run is left as it is"
        )


def _attempt_numbers(store: Store, wanted: frozenset[str]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for key in store.keys("attempts/"):
        found = parse_attempt_key(key)
        if found and found[0] in wanted:
            newest[found[0]] = max(newest.get(found[0], 0), found[1])
    return newest


def _last_attempt(store: Store, run: str) -> int:
    """Return the number of the newest attempt by asking for one after the other: they have no gaps."""
    number = 0
    while store.exists(attempt_key(run, number + 1)):
        number += 1
    return number
