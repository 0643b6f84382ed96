"""An import in the store: the source's hash, all its rows, and a study that everything reads like one of its own.

    imports/DIGEST/rows.parquet     every row, superseded ones too
    imports/DIGEST/source.json      where it came from, its SHA-256, the mapping, the runs, the findings
    studies/NAME.0001.json          the study, which names DIGEST

DIGEST is the hash of all that went in: the same import again changes nothing, and one that was cut off leaves nothing
that counts. Each piece of a run is an attempt; which rows count follows from where the next one begins.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import AlreadyExists, Fault, ImportRefused, NotFound
from jobs.identity import canonical_json, sha256
from jobs.local_files import hash_file
from jobs.parquet import read_table, write_table
from jobs.records import ATTEMPTS, AUDIT, CHECKPOINTS, METRICS, PROBES_OF_SEEDS, RUNS, Status
from jobs.store import Store, commit, get_record, manifest_key, put_record, read_manifest, verified
from orchestrator.declared import Declared, read_declared, register_imported
from orchestrator.imports.mapping import MappingFile
from orchestrator.imports.runs import NO_LIMIT, SEEDS, Imported, ImportedRun
from orchestrator.rollups import rollups_of

Tables = dict[str, pa.Table]


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was imported."""

    name: str
    sha256: str
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> "Source":
        """Return the name and hash of a file."""
        return cls(path.name, *hash_file(path, sync=False))


def store_import(store: Store, study: str, imported: Imported, mapping: MappingFile, sources: list[Source]) -> Declared:
    """Put an import into the store and return its study; raises ImportRefused for the name of a trained one."""
    _check_name(store, study)
    files = [[source.name, source.sha256, source.size_bytes] for source in sources]
    body = {
        "study": study,
        "sources": files,
        "mapping": mapping.text,
        "runs": [
            [run.id, run.condition_id, *(run.seeds[name] for name in SEEDS), str(run.status), run.reason, run.pieces]
            for run in imported.runs
        ],
        "findings": list(imported.findings),
    }
    digest = sha256(canonical_json(body))[:20]

    def write(path: Path) -> dict[str, Any]:
        write_table(imported.rows, path)
        return {"rows": imported.rows.num_rows}

    key = _rows_key(digest)
    if not store.exists(manifest_key(key)):
        store.delete(key)  # an import that was cut off between its rows and their manifest
        commit(store, key, write)
    with contextlib.suppress(AlreadyExists):
        put_record(store, _source_key(digest), body)
    return register_imported(store, _study_body(study, imported, mapping, files, digest))


def _check_name(store: Store, study: str) -> None:
    try:
        trained = not read_declared(store, study).imported
    except NotFound:
        return
    if trained:
        said = f"{study!r} is a study that was trained into this store; choose another name"
        raise ImportRefused((Fault("", 0, "", said),))


def _study_body(
    study: str, imported: Imported, mapping: MappingFile, files: list[list[Any]], digest: str
) -> dict[str, Any]:
    rule = mapping.mapping
    places = {condition.id: index for index, condition in enumerate(imported.conditions)}
    return {
        "study": study,
        "file": ", ".join(str(name) for name, *_ in files),
        "text": mapping.text,
        "question": rule.question,
        "paper": rule.paper,
        "scale": rule.scale,
        "success": rule.success.model_dump(mode="json"),
        "tasks": [],
        "imported": digest,
        "conditions": [
            {
                "id": condition.id,
                "label": condition.label,
                "factors": [[name, value] for name, value in condition.factors.items()],
                "planned_steps": condition.planned_steps,
            }
            for condition in imported.conditions
        ],
        "runs": [[run.id, places[run.condition_id], *(run.seeds[name] for name in SEEDS)] for run in imported.runs],
    }


def statuses(store: Store, declared: Declared) -> list[Status]:
    """Return how each run of an imported study ended; raises Corrupt, NotFound."""
    return [Status(run[6]) for run in get_record(store, _source_key(declared.imported))["runs"]]


def imported_tables(store: Store, declared: Declared) -> Tables:
    """Return the tables of an imported study, as the collector does of a trained one; raises Corrupt, NotFound."""
    body = get_record(store, _source_key(declared.imported))
    manifest = read_manifest(store, _rows_key(declared.imported))
    rows = read_table(verified(store, manifest), METRICS)
    runs = [
        ImportedRun(r[0], r[1], dict(zip(SEEDS, r[2:6], strict=True)), _with_limits(r[8]), Status(r[6]), r[7])
        for r in body["runs"]
    ]
    standing = _standing(rows, runs)
    table = _runs(declared, runs, standing)
    return {
        "runs": table,
        "metrics": standing,
        "rollups": rollups_of(table, standing),
        "attempts": _attempts(declared, runs),
        "checkpoints": CHECKPOINTS.empty_table(),
        "probes_of_seeds": PROBES_OF_SEEDS.empty_table(),
        "audit": pa.Table.from_pylist(
            [finding | {"key": _source_key(declared.imported)} for finding in body["findings"]], schema=AUDIT
        ).sort_by([(name, "ascending") for name in AUDIT.names]),
    }


def _with_limits(pieces: list[list[Any]]) -> tuple[tuple[str, int, int, int], ...]:
    """Return pieces with their limits; where none were kept, it is the first step of any later piece."""
    firsts = [piece[1] for piece in pieces]
    until = [min(firsts[place:], default=NO_LIMIT) for place in range(1, len(pieces) + 1)]
    return tuple((p[0], p[1], p[2], p[3] if len(p) > 3 else u) for p, u in zip(pieces, until, strict=True))


def _standing(rows: pa.Table, runs: list[ImportedRun]) -> pa.Table:
    """Return the rows of each piece up to where a later one begins."""
    ids = pa.array([run.id for run in runs], pa.string())
    most = max((len(run.pieces) for run in runs), default=0)
    limits = np.full((len(runs), most + 1), np.iinfo(np.int64).max)
    for place, run in enumerate(runs):
        for number, (*_, limit) in enumerate(run.pieces, start=1):
            if limit != NO_LIMIT:
                limits[place, number] = limit
    place = pc.index_in(rows["run_id"], ids).to_numpy()
    stands = rows["step"].to_numpy() < limits[place, rows["attempt"].to_numpy()]
    order = [(name, "ascending") for name in ("run_id", "step", "metric")]
    return rows.filter(pa.array(stands)).sort_by(order)


def _runs(declared: Declared, runs: list[ImportedRun], standing: pa.Table) -> pa.Table:
    last = standing.group_by("run_id").aggregate([("step", "max")])
    last_step = dict(zip(last["run_id"].to_pylist(), last["step_max"].to_pylist(), strict=True))
    conditions = {condition.id: condition for condition in declared.conditions}
    records = [
        {
            "study": declared.name,
            "run_id": run.id,
            "condition_id": run.condition_id,
            "condition": conditions[run.condition_id].label,
            "factors": canonical_json(conditions[run.condition_id].factors).decode(),
            **{f"seed_{name}": seed for name, seed in run.seeds.items()},
            "status": str(run.status),
            "reason": run.reason,
            "attempts": len(run.pieces),
            "last_step": last_step.get(run.id, -1),
            "planned_steps": conditions[run.condition_id].planned_steps,
            "parent_run": "",
            "toward_run": "",
            "first_step": 0,
            "mixed_environment": False,
        }
        for run in runs
    ]
    return pa.Table.from_pylist(records, schema=RUNS)


def _attempts(declared: Declared, runs: list[ImportedRun]) -> pa.Table:
    records = [
        {
            "run_id": run.id,
            "attempt": number,
            "pack_id": f"imports/{declared.imported}/{name}",
            "first_step": first,
            "resumed_pack": "",
            "environment": "",
            "status": str(run.status if number == len(run.pieces) else Status.RUNNING),
            "reason": run.reason if number == len(run.pieces) else f"ends at step {last}",
        }
        for run in runs
        for number, (name, first, last, _) in enumerate(run.pieces, start=1)
    ]
    return pa.Table.from_pylist(records, schema=ATTEMPTS)


def _rows_key(digest: str) -> str:
    return f"imports/{digest}/rows.parquet"


def _source_key(digest: str) -> str:
    return f"imports/{digest}/source.json"
