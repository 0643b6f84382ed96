"""Is the store what it says it is? Files against hashes, chains of parents, schedules, and spans trained again.

Nothing is repaired or changed. Every finding names the run, the step and the file. Spans are trained again from one
milestone to the next, in memory, and compared byte for byte: weights by their digest, rows by their values.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from jobs.claims import FRESH
from jobs.errors import Corrupt, NotFound, QueryError, SeedbedError
from jobs.findings import Finding
from jobs.layout import (
    KEPT_OF_STUDY,
    PackKeys,
    attempt_key,
    is_of_study,
    parse_attempt_key,
    study_key,
    task_key,
)
from jobs.local_files import hash_file
from jobs.records import Status
from jobs.store import Store, committed, get_record, manifest_key, read_manifest, verified
from orchestrator.collector import Collector, Tables
from orchestrator.declared import Declared
from orchestrator.seed_audit import check, read_proof
from orchestrator.tables import read_tables

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a run to be trained again: from the checkpoint at `start` (FRESH: from the seeds) to `end`."""

    run_id: str
    start: int
    end: int


@dataclass(slots=True)
class Verdict:
    """What was looked at, and what was found."""

    study: str
    files: int = 0
    checkpoints: int = 0
    runs: int = 0
    spans: list[Span] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


def _silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def verify(
    store: Store,
    declared: Declared,
    spans: int = 3,
    seed: int = 0,
    chosen: Sequence[Span] = (),
    progress: Progress = _silent,
) -> Verdict:
    """Return what does not fit in the study; empty findings mean that everything does.

    spans    how many random spans are trained again; `seed` decides which
    chosen   further spans, named
    """
    verdict = Verdict(declared.name)
    found = set(_corrupt_files(store, declared, verdict, progress))
    tables = Collector(store, declared).collect()
    found.update(_audit(tables))
    found.update(Finding("seeds", "", -1, "", fault) for fault in _seed_faults(store, declared))
    seen = _seen(declared, tables)
    milestones: list[Span] = []
    for place, run in enumerate(declared.runs):
        progress("chains and schedules", place, len(declared.runs))
        found.update(_run(store, run.id, seen[run.id], verdict, milestones))
    verdict.spans = [*chosen, *_drawn(milestones, spans, seed)]
    for place, span in enumerate(verdict.spans):
        progress("training spans again", place, len(verdict.spans))
        found.update(_again(store, span, tables))
    verdict.findings = sorted(found)
    return verdict


def _corrupt_files(store: Store, declared: Declared, verdict: Verdict, progress: Progress) -> Iterator[Finding]:
    keys = _files_of(store, declared)
    verdict.files = len(keys)
    try:
        read_tables(store, declared.name)
    except NotFound:
        pass  # never collected
    except Corrupt as error:
        yield Finding("corrupt", "", -1, error.key, error.message)
    for place, key in enumerate(keys):
        progress("files against their hashes", place, len(keys))
        try:
            _check_file(store, key)
        except Corrupt as error:
            yield Finding("corrupt", _run_of(key), -1, error.key, error.message)
        except NotFound as error:
            yield Finding("missing", _run_of(key), -1, error.key, error.message)


def _files_of(store: Store, declared: Declared) -> list[str]:
    """Return the keys of everything that was committed for the study; a file with a manifest by its manifest."""
    runs = {run.id for run in declared.runs}
    claims = [key for key in store.keys("attempts/") if (parse_attempt_key(key) or ("",))[0] in runs]
    packs = set()
    for key in claims:
        try:
            packs.add(str(get_record(store, key)["pack_id"]))
        except (Corrupt, KeyError):
            continue
    kept = (key for folder in KEPT_OF_STUDY for key in store.keys(f"{folder}/{declared.name}."))
    own = [study_key(declared.name, declared.revision), *(key for key in kept if is_of_study(key, declared.name))]
    tasks = [task_key(code) for code in declared.tasks]
    imported = store.keys(f"imports/{declared.imported}/") if declared.imported else []
    found = [*own, *tasks, *claims, *(key for key in imported if key.endswith(".json"))]
    for pack in sorted(packs):
        keys = PackKeys(pack)
        found += [key for key in (keys.request, keys.claim, keys.given_up, keys.outcome) if store.exists(key)]
        found += [
            manifest_key(key)
            for prefix in (keys.shards, keys.checkpoints, keys.parts)
            for key in committed(store, prefix)
        ]
    return found


def _check_file(store: Store, key: str) -> None:
    if key.startswith("tasks/"):
        if hash_file(store.local(key), sync=False)[0] != key.removeprefix("tasks/").removesuffix(".py"):
            raise Corrupt(key, "is not the source that its name is the hash of")
    elif key.endswith(manifest_key("")):
        manifest = read_manifest(store, key.removesuffix(manifest_key("")))
        verified(store, manifest)
        step = manifest.extra.get("step")
        if "/checkpoints/" in key and manifest.key != PackKeys(key.split("/")[1]).checkpoint(int(step or 0)):
            raise Corrupt(key, f"is the manifest of step {step}")
        for part in manifest.extra.get("parts", ()):
            if read_manifest(store, part["key"]).sha256 != part["sha256"]:
                raise Corrupt(key, f"names other bytes of {part['key']} than that has")
    else:
        get_record(store, key)


def _run_of(key: str) -> str:
    parsed = parse_attempt_key(key)
    return parsed[0] if parsed else ""


def _audit(tables: Tables) -> Iterator[Finding]:
    for row in tables["audit"].to_pylist():
        yield Finding(row["finding"], row["run_id"], row["step"], row["key"], row["detail"])
    for row in tables["runs"].filter(pc.field("mixed_environment")).to_pylist():
        yield Finding("mixed_environment", row["run_id"], -1, "", "was trained under several fingerprints")


def _seed_faults(store: Store, declared: Declared) -> list[str]:
    try:
        proof = read_proof(store, declared.name)
    except Corrupt:
        return []  # told as a corrupt file
    return list(check(row for run in declared.runs for row in proof.get(run.id, ())))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the tables say of one run."""

    finished: bool
    init: str
    steps: frozenset[int]


def _seen(declared: Declared, tables: Tables) -> dict[str, _Seen]:
    runs, proofs = tables["runs"], tables["probes_of_seeds"].filter(pc.field("factor") == "init")
    finished = {
        r for r, s in zip(*(runs[n].to_pylist() for n in ("run_id", "status")), strict=True) if s == Status.FINISHED
    }
    init = dict(zip(proofs["run_id"].to_pylist(), proofs["digest"].to_pylist(), strict=True))
    steps: dict[str, set[int]] = {}
    for run_id, step in zip(*(tables["metrics"][n].to_pylist() for n in ("run_id", "step")), strict=True):
        steps.setdefault(run_id, set()).add(step)
    return {
        run.id: _Seen(run.id in finished, init.get(run.id, ""), frozenset(steps.get(run.id, ())))
        for run in declared.runs
    }


def _run(store: Store, run_id: str, seen: _Seen, verdict: Verdict, milestones: list[Span]) -> Iterator[Finding]:
    """Yield what is wrong with one run's checkpoints and steps, and note the spans between its milestones."""
    from workers.checkpoint import checkpoints_of  # imports torch, which takes seconds
    from workers.lineage import beginning, chain, planned_milestones, planned_probes
    from workers.stored import stored_run

    try:
        stored = stored_run(store, run_id)
    except NotFound:
        return  # declared, never started
    except SeedbedError as error:
        yield Finding("corrupt", run_id, -1, attempt_key(run_id, 1), str(error))
        return
    verdict.runs += 1
    saved = checkpoints_of(store, stored.attempts)
    verdict.checkpoints += len(saved)
    planned, probed = planned_milestones(stored), planned_probes(stored)
    if seen.finished and not stored.is_script:
        for step in sorted(set(planned) - set(saved)):
            yield Finding("missing", run_id, step, "", "has no checkpoint at a step of its schedule of milestones")
        for step in sorted(set(probed) - seen.steps):
            yield Finding("missing", run_id, step, "", "has no rows at a step of its schedule of probes")
    for step in sorted(seen.steps - set(probed)) if not stored.is_script else ():
        yield Finding("extra", run_id, step, "", "has rows at a step that is not in its schedule of probes")
    for step, one in sorted(saved.items()):
        if one.kind == "milestone" and step not in planned:
            yield Finding(
                "extra", run_id, step, one.manifest.key, "is a milestone at a step that is not in its schedule"
            )
        yield from chain(store, stored, one, saved, planned)
    yield from beginning(store, stored, saved, seen.init)
    present = [step for step in planned if step in saved]
    milestones += [Span(run_id, start, end) for start, end in zip([FRESH, *present], present, strict=False)]


def _drawn(milestones: Sequence[Span], count: int, seed: int) -> list[Span]:
    if not milestones:
        return []
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    places = generator.choice(len(milestones), size=min(count, len(milestones)), replace=False)
    return [milestones[place] for place in sorted(places.tolist())]


def _again(store: Store, span: Span, tables: Tables) -> Iterator[Finding]:
    """Yield where training a span again gives other weights or other rows."""
    from workers.checkpoint import checkpoints_of
    from workers.determinism import fingerprint
    from workers.replay import replay
    from workers.replay_script import rows_again
    from workers.stored import stored_run

    weights = ""
    try:
        run = stored_run(store, span.run_id)
        if run.is_script:
            began, rows = rows_again(store, span.run_id, span.end, span.start)
        else:
            again = replay(store, span.run_id, span.end, span.start)
            began, rows, weights = again.started_at, [*again.rows], again.sha256
    except SeedbedError as error:
        yield Finding("span", span.run_id, span.end, "", f"cannot be trained again: {error}")
        return
    saved = checkpoints_of(store, run.attempts).get(span.end)
    note = ""
    if saved is not None and saved.manifest.extra["environment"] != fingerprint("cpu").digest:
        note = " (it was trained under another fingerprint than this process has)"
    if saved is not None and weights and saved.slice.sha256 != weights:
        detail = f"trained again from step {began} it has other weights{note}"
        yield Finding("span", span.run_id, span.end, saved.manifest.key, detail)
    first = run.first_step if began == FRESH else began + 1
    there = tables["metrics"].filter(
        (pc.field("run_id") == span.run_id) & (pc.field("step") >= first) & (pc.field("step") <= span.end)
    )
    ours, theirs = _measured(rows), _measured(there.to_pylist())
    for step, metric in sorted(set(ours) | set(theirs)):
        if ours.get((step, metric)) != theirs.get((step, metric)):
            detail = (
                f"{metric}: the store has {theirs.get((step, metric))}, trained again {ours.get((step, metric))}{note}"
            )
            yield Finding("span", span.run_id, step, "", detail)


def _measured(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[int, str], tuple[Any, ...]]:
    return {(row["step"], row["metric"]): (row["value"], row["correct"], row["total"]) for row in rows}


def parse_span(text: str) -> Span:
    """Return the span of `RUN@START-END`; raises QueryError."""
    run_id, at, steps = text.partition("@")
    start, dash, end = steps.partition("-")
    if not (run_id and at and dash and start.isdigit() and end.isdigit() and int(start) < int(end)):
        raise QueryError(f"a span is RUN@START-END, such as r1-05ec…@0-500, not {text!r}")
    return Span(run_id, int(start), int(end))
