"""Measurements from elsewhere → the runs of a study: their lineages, their ends, and what does not fit.

Ids are hashes of what tells a run apart (factors, seeds, name, number of its lineage) and of nothing else, so importing
a longer table again keeps them.
"""

from dataclasses import dataclass
from math import isinf
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.identity import canonical_json, sha256
from jobs.records import METRICS, Status
from orchestrator.imports.lineages import Lineage, lineages
from orchestrator.imports.mapping import Mapping
from orchestrator.imports.sources import Key, Measurements
from orchestrator.text import amount

SEEDS = ("init", "data", "dropout", "evaluation")
NOT_KNOWN = -1
NO_LIMIT = -1
Finding = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """One run: what it is, its pieces, and how it ended.

    pieces  (name, first step, last step, the step from which on another counts in its place or NO_LIMIT)
    """

    id: str
    condition_id: str
    seeds: dict[str, int]
    pieces: tuple[tuple[str, int, int, int], ...]
    status: Status
    reason: str


@dataclass(frozen=True, slots=True)
class ImportedCondition:
    """A condition: factors, label, and the step at which its runs are finished."""

    id: str
    label: str
    factors: dict[str, Any]
    planned_steps: int


@dataclass(frozen=True, slots=True)
class Imported:
    """Everything of one import; rows are all rows, superseded ones too, as METRICS."""

    conditions: tuple[ImportedCondition, ...]
    runs: tuple[ImportedRun, ...]
    rows: pa.Table
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A lineage of a key, and where and why it is known to have diverged."""

    key: Key
    number: int
    of: int
    lineage: Lineage
    diverged: str


def assemble(rows: Measurements, mapping: Mapping) -> Imported:
    """Return the runs of a source, in the order of their ids."""
    finite = np.isfinite(rows.value)
    found: list[_Found] = []
    findings: list[Finding] = []
    by_key = np.argsort(rows.key, kind="stable")
    bounds = np.searchsorted(rows.key[by_key], np.arange(len(rows.keys) + 1))
    for index, key in enumerate(rows.keys):
        mine = by_key[bounds[index] : bounds[index + 1]]
        wrong = mine[~finite[mine]]
        if len(wrong):
            findings.append(_not_finite(key, rows, wrong, mapping))
        whole = lineages(rows, mine[finite[mine]], mapping.tolerance, mapping.same_run)
        said = _divergence(rows, wrong) if mapping.not_finite == "diverged" else ""
        found += [_Found(key, n + 1, len(whole), lineage, said) for n, lineage in enumerate(whole)]
        if not whole:
            findings.append(_finding("", -1, "empty", f"{_label(key)}: no value is a number; there is no such run"))
    conditions = _conditions(found, mapping)
    runs = []
    tables = [METRICS.empty_table()]
    for one in found:
        condition = conditions[_factors(one.key)]
        run = _run(one, condition)
        runs.append(run)
        tables.append(_rows(run.id, one.lineage))
        findings += _findings(run.id, one, mapping.tolerance)
    return Imported(
        conditions=tuple(conditions.values()),
        runs=tuple(sorted(runs, key=lambda run: run.id)),
        rows=pa.concat_tables(tables).sort_by(
            [(name, "ascending") for name in ("run_id", "step", "metric", "attempt")]
        ),
        findings=tuple(sorted(findings, key=lambda f: (f["run_id"], f["step"], f["finding"], f["detail"]))),
    )


def _conditions(found: list[_Found], mapping: Mapping) -> dict[bytes, ImportedCondition]:
    """Return the conditions by their factors, numbers in their order, texts in theirs."""
    last: dict[bytes, int] = {}
    first: dict[bytes, Key] = {}
    for one in found:
        name = _factors(one.key)
        first.setdefault(name, one.key)
        last[name] = max(last.get(name, 0), _last(one.lineage))
    ordered = sorted(first, key=lambda name: [_rank(value) for _, value in first[name].factors])
    return {
        name: ImportedCondition(
            id="ci-" + sha256(name)[:20],
            label=" ".join(f"{factor}={value}" for factor, value in first[name].factors) or "all",
            factors=dict(first[name].factors),
            planned_steps=last[name] if mapping.planned_steps is None else mapping.planned_steps,
        )
        for name in ordered
    }


def _run(one: _Found, condition: ImportedCondition) -> ImportedRun:
    seeds = dict.fromkeys(SEEDS, NOT_KNOWN) | dict(one.key.seeds)
    identity = {"factors": condition.factors, "seeds": dict(one.key.seeds), "name": one.key.name, "lineage": one.number}
    last = _last(one.lineage)
    status, reason = Status.FINISHED, ""
    if one.diverged:
        status, reason = Status.DIVERGED, one.diverged
    elif last < condition.planned_steps:
        status, reason = Status.FAILED, f"the source ends at step {last} of {condition.planned_steps}"
    pieces = tuple(
        (piece.name, piece.first, piece.last, NO_LIMIT if isinf(limit) else int(limit))
        for piece, limit in ((piece, one.lineage.limit(index)) for index, piece in enumerate(one.lineage.pieces))
    )
    return ImportedRun("ri-" + sha256(canonical_json(identity))[:20], condition.id, seeds, pieces, status, reason)


def _rows(run_id: str, lineage: Lineage) -> pa.Table:
    cells = [
        (number, cell[1], cell[0], value, *piece.counts.get(cell, (None, None)))
        for number, piece in enumerate(lineage.pieces, start=1)
        for cell, value in piece.cells.items()
    ]
    columns = [[run_id] * len(cells), *zip(*cells, strict=True)]
    return pa.table(dict(zip(METRICS.names, columns, strict=True)), schema=METRICS)


def _findings(run_id: str, one: _Found, tolerance: float) -> list[Finding]:
    """Return what is odd about a run: another under its key, rows that stood there twice, pieces that differ."""
    found = []
    if one.of > 1:
        pieces = ", ".join(piece.name or "unnamed" for piece in one.lineage.pieces)
        said = f"{_label(one.key)}: {one.of} different runs have this key; this is number {one.number} ({pieces})"
        found.append(_finding(run_id, -1, "lineages", said))
    dropped = sum(piece.dropped for piece in one.lineage.pieces)
    if dropped:
        found.append(_finding(run_id, -1, "duplicates", f"{dropped} rows stood there again, word for word"))
    for (metric, step), number, said_, stands in one.lineage.disagreements(tolerance):
        name = one.lineage.pieces[number - 1].name or "unnamed"
        text = f"{metric}: piece {number} ({name}) has {said_!r}, and {stands!r} stands"
        found.append(_finding(run_id, step, "disagreement", text))
    return found


def _not_finite(key: Key, rows: Measurements, wrong: np.ndarray[Any, Any], mapping: Mapping) -> Finding:
    first = int(rows.step[wrong].min())
    said = f"{_label(key)}: {len(wrong)} values are not finite, the first at step {first}: read as {mapping.not_finite}"
    return _finding("", first, "not_finite", said)


def _divergence(rows: Measurements, wrong: np.ndarray[Any, Any]) -> str:
    if not len(wrong):
        return ""
    first = wrong[np.argmin(rows.step[wrong])]
    return f"{rows.metric[first]} is {rows.value[first]} at step {int(rows.step[first])}"


def _finding(run_id: str, step: int, kind: str, detail: str) -> Finding:
    return {"run_id": run_id, "step": step, "finding": kind, "key": "", "detail": detail}


def _last(lineage: Lineage) -> int:
    return max(step for _, step in lineage.standing())


def _factors(key: Key) -> bytes:
    return canonical_json(dict(key.factors))


def _label(key: Key) -> str:
    seeds = [(f"seed.{name}", seed) for name, seed in key.seeds]
    if len({seed for _, seed in seeds}) == 1 and len(seeds) == len(SEEDS):
        seeds = [("seed", seeds[0][1])]
    parts = [*key.factors, *seeds, *([("run", key.name)] if key.name else [])]
    return " ".join(f"{name}={value}" for name, value in parts)


def _rank(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts numbers before texts, and texts that begin with a number (14m, 1b) by its size."""
    if isinstance(value, int | float):
        return 0, float(value), ""
    text, size = str(value), amount(str(value))
    return (2, 0.0, text) if size is None else (1, size, text)
