"""The proof of seeds: what varies in the design differs between runs, and what is held is equal.

Before anything is trained, each run's seeds are seen to make something (`workers/seed_proof.py`). Here the digests
are compared, over all runs of the study and across conditions: within one scope (equal shapes; the same task and
batch size) a seed and its digest belong to each other, one to one. Two seeds with one digest are clones: a seed that
is ignored, or a collision. One seed with two digests is chance that nobody declared.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.errors import SeedError
from jobs.layout import proof_key
from jobs.numbered import newest, put_next
from jobs.pack import PackRun, SeedDigests, SeedProof, SeedsSpec
from jobs.records import FACTORS
from jobs.store import Store, get_record
from jobs.study import Run, Study
from orchestrator.clusters import Cluster

_MAKES = {
    "init": "initial weights",
    "data": "first batches",
    "dropout": "dropout masks",
    "evaluation": "held-out sets",
}
_MOST_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Proven:
    """One factor of one run: within `scope`, `seed` made what has this `digest`; empty where the task failed."""

    run_id: str
    factor: str
    scope: str
    seed: str
    digest: str


def prove_study(study: Study, store: Store, cluster: Cluster, todo: frozenset[str]) -> dict[str, SeedDigests]:
    """Prove the seeds of the study's runs, keep the proof in the store, and return the digests by run.

    Drawn are the runs in `todo`; all of them where the study has runs without a proof, as after an extension.
    Raises SeedError with every fault; then nothing may be trained.
    """
    known = read_proof(store, study.name)
    extended = any(run.id not in known for run in study.runs)
    found = dict(known)
    faults: list[str] = []
    for runs in _by_condition(run for run in study.runs if extended or run.id in todo):
        proof = cluster.prove(store.url, runs[0].point.condition, [pack_run(run) for run in runs])
        for run, rows in zip(runs, _rows(runs, proof), strict=True):
            faults += _changed(known.get(run.id, ()), rows)
            found[run.id] = rows
    mine = {run.id: found[run.id] for run in study.runs if run.id in found}
    faults += check(row for rows in mine.values() for row in rows)
    if faults:
        raise SeedError(tuple(faults[:_MOST_FAULTS]))
    if found != known:
        _put(store, study.name, found)
    return {run_id: SeedDigests(**{row.factor: row.digest for row in rows}) for run_id, rows in mine.items()}


def pack_run(run: Run, proof: SeedDigests | None = None) -> PackRun:
    """Return the run as it stands in the request of a pack."""
    return PackRun(run_id=run.id, seeds=SeedsSpec.of(run.seeds), origin=run.origin, proof=proof)


def check(rows: Iterable[Proven]) -> Iterator[str]:
    """Yield every fault: the factor, what it makes, and the pair of runs."""
    by_seed: dict[tuple[str, str, str], Proven] = {}
    by_digest: dict[tuple[str, str, str], Proven] = {}
    for row in sorted((row for row in rows if row.digest), key=lambda r: (r.factor, r.scope, r.run_id)):
        makes = _MAKES[row.factor]
        same_seed = by_seed.setdefault((row.factor, row.scope, row.seed), row)
        same_digest = by_digest.setdefault((row.factor, row.scope, row.digest), row)
        if same_seed.digest != row.digest:
            yield (
                f"{row.factor}: runs {same_seed.run_id} and {row.run_id} hold the {row.factor} seed at {row.seed}, "
                f"but have different {makes}"
            )
        elif same_digest.seed != row.seed:
            yield (
                f"{row.factor}: runs {same_digest.run_id} and {row.run_id} have the {row.factor} seeds "
                f"{same_digest.seed} and {row.seed}, but the same {makes}: the seed is ignored, or two seeds collide"
            )


def read_proof(store: Store, study: str) -> dict[str, tuple[Proven, ...]]:
    """Return the newest proof of the study by run; empty where there is none. Raises Corrupt."""
    key = partial(proof_key, study)
    number = newest(store, key)
    if not number:
        return {}
    body = get_record(store, key(number))
    found: dict[str, tuple[Proven, ...]] = {}
    for run_id, scopes, cells in body["runs"]:
        pairs = zip(FACTORS, body["scopes"][scopes], cells, strict=True)
        found[run_id] = tuple(Proven(run_id, factor, scope, *cell) for factor, scope, cell in pairs)
    return found


def _put(store: Store, study: str, proof: Mapping[str, tuple[Proven, ...]]) -> None:
    scopes = sorted({tuple(row.scope for row in rows) for rows in proof.values()})
    places = {scope: index for index, scope in enumerate(scopes)}
    runs: list[list[Any]] = [
        [run_id, places[tuple(row.scope for row in rows)], [[row.seed, row.digest] for row in rows]]
        for run_id, rows in sorted(proof.items())
    ]
    key, body = partial(proof_key, study), {"study": study, "scopes": [*map(list, scopes)], "runs": runs}
    put_next(store, key, lambda _: body, newest(store, key))


def _by_condition(runs: Iterable[Run]) -> list[list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.point.id, []).append(run)
    return [*found.values()]


def _rows(runs: Sequence[Run], proof: SeedProof) -> Iterator[tuple[Proven, ...]]:
    for run, digests in zip(runs, proof.runs, strict=True):
        seeds = _seeds_of(run)
        yield tuple(
            Proven(run.id, factor, proof.scopes[factor], seeds[factor], getattr(digests, factor)) for factor in FACTORS
        )


def _seeds_of(run: Run) -> dict[str, str]:
    """Return, by factor, the name of what decides its digest within a scope."""
    seeds = {name: str(seed) for name, seed in run.seeds.as_dict().items()}
    if run.origin:
        # A fork's weights are its parent's, and where some are drawn anew, its own seed's, too.
        start = f"{run.origin.run_id}@{run.origin.step}"
        if run.origin.toward:
            start += f"+{run.origin.toward.fraction:g}*{run.origin.toward.run_id}"
        is_drawn = run.origin.redrawn or run.point.condition.training.low_rank
        seeds["init"] = f"{start}+{seeds['init']}" if is_drawn else start
    return seeds


def _changed(before: Sequence[Proven], now: Sequence[Proven]) -> list[str]:
    return [
        f"{new.factor}: run {new.run_id} has other {_MAKES[new.factor]} than when it was proven first; "
        "were versions of numpy, torch or the task exchanged?"
        for old, new in zip(before, now, strict=False)
        if old.digest and new.digest and old.digest != new.digest
    ]
