"""Quantiles over runs for every condition, metric and step: what a fan is drawn from without a look at the runs.

A row says of how many runs it is made, and how many of those finished and diverged in the end: a fan whose n shrinks
over the steps is a fan of survivors, and is seen to be one. Runs whose value is not a number are not among the n.
Quantiles are those of `numpy.quantile` (Hyndman & Fan 1996, type 7) to the last bit, and so DuckDB's quantile_cont.
The order of rows changes nothing: sums are taken over sorted values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.identity import canonical_json, sha256
from jobs.parquet import codes, read_where
from jobs.records import QUANTILES, ROLLUPS, Status
from jobs.store import Manifest, open_store, verified
from orchestrator.parts import step_codes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_RULE = 1  # of what a roll-up is made; another number makes all anew
_FEW_STEPS = 1 << 16  # numpy's stable sort of 16-bit numbers is a radix sort


@dataclass(frozen=True, slots=True)
class Group:
    """One condition as a roll-up names it.

    status  by run id
    """

    condition_id: str
    condition: str
    status: dict[str, str]


@dataclass(frozen=True, slots=True)
class RollTask:
    """What the roll-up of a condition is made from.

    metrics  their names, sorted
    files    (store, key, SHA-256, size in bytes) of its parts of the table `metrics`
    """

    group: Group
    metrics: tuple[str, ...]
    files: tuple[tuple[str, str, str, int], ...]

    @property
    def source(self) -> str:
        """Return the digest of everything that decides the roll-up."""
        hashes = [digest for _, _, digest, _ in self.files]
        status = sorted(self.group.status.items())
        decides = [_RULE, self.group.condition_id, self.group.condition, [list(pair) for pair in status], hashes]
        return sha256(canonical_json({"rollup": decides}))


def make_rollup(task: RollTask) -> pa.Table:
    """Return the roll-up of all metrics of a condition; raises Corrupt, NotFound."""
    paths = [verified(open_store(url), Manifest(key, size, digest, {})) for url, key, digest, size in task.files]
    made = []
    for metric in task.metrics:
        rows = [read_where(path, "metric", metric, ("run_id", "step", "value")) for path in paths]
        made.append(roll_up(task.group, metric, pa.concat_tables(rows)))
    return pa.concat_tables(made) if made else ROLLUPS.empty_table()


def groups_of(runs: pa.Table) -> list[Group]:
    """Return the conditions of a `runs` table by their ids, each with its runs' statuses."""
    found: dict[str, Group] = {}
    for row in runs.select(["condition_id", "condition", "run_id", "status"]).to_pylist():
        group = found.setdefault(row["condition_id"], Group(row["condition_id"], row["condition"], {}))
        group.status[row["run_id"]] = row["status"]
    return [found[key] for key in sorted(found)]


def rollups_of(runs: pa.Table, metrics: pa.Table) -> pa.Table:
    """Return the `rollups` of the tables `runs` and `metrics`, sorted by condition, metric and step."""
    made = [table for group in groups_of(runs) for table in _of_group(group, metrics)]
    return pa.concat_tables(made) if made else ROLLUPS.empty_table()


def _of_group(group: Group, metrics: pa.Table) -> Iterator[pa.Table]:
    mine = metrics.filter(pc.is_in(metrics["run_id"], pa.array(sorted(group.status), pa.string())))
    for metric in sorted(pc.unique(mine["metric"]).to_pylist()):
        yield roll_up(group, metric, mine.filter(pc.field("metric") == metric))


def roll_up(group: Group, metric: str, rows: pa.Table) -> pa.Table:
    """Return the roll-up of one metric of one condition, a row per step.

    rows: run_id, step and value, in any order, at most one for each run and step
    """
    ids = pa.array(sorted(group.status), pa.string())
    run = codes(rows["run_id"], ids)
    fates = np.array([group.status[run_id] for run_id in ids.to_pylist()], dtype=object)
    values = rows["value"].to_numpy()
    steps, code = step_codes(rows["step"])
    known = ~np.isnan(values)
    columns = _moments(values[known], code[known], len(steps))
    for status in (Status.FINISHED, Status.DIVERGED):
        ended = (fates == str(status))[run]
        columns[str(status)] = np.bincount(code[known & ended], minlength=len(steps))
    count = len(steps)
    names = {"condition_id": group.condition_id, "condition": group.condition, "metric": metric}
    whole: dict[str, Any] = {name: pa.repeat(pa.scalar(text), count) for name, text in names.items()}
    whole |= {"step": steps, "launched": np.full(count, len(group.status)), **columns}
    return pa.table([pa.array(whole[f.name], f.type, from_pandas=True) for f in ROLLUPS], schema=ROLLUPS)


def _moments(values: Floats, code: Integers, count: int) -> dict[str, Any]:
    """Return n, mean, sd, extremes and quantiles by step; NaN where a step has no value."""
    narrow = code.astype(np.uint16) if count <= _FEW_STEPS else code
    values = values[np.argsort(narrow, kind="stable")]
    n = np.bincount(code, minlength=count)
    seen = np.flatnonzero(n)
    sizes = n[seen]
    starts = np.cumsum(sizes) - sizes
    _sort_parts(values, starts, sizes)

    def spread(found: Floats) -> Floats:
        whole = np.full(count, np.nan)
        whole[seen] = found
        return whole

    if not len(seen):
        empty = np.full(count, np.nan)
        return {"n": n, "mean": empty, "sd": empty, "min": empty, "max": empty, **dict.fromkeys(QUANTILES, empty)}
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.add.reduceat(values, starts) / sizes
        squares = np.add.reduceat((values - np.repeat(mean, sizes)) ** 2, starts)
        deviation = np.sqrt(squares / (sizes - 1))
    quantiles = {name: spread(_quantile(values, starts, sizes, q)) for name, q in QUANTILES.items()}
    ends = {"min": spread(values[starts]), "max": spread(values[starts + sizes - 1])}
    return {"n": n, "mean": spread(mean), "sd": spread(deviation), **ends, **quantiles}


def _sort_parts(values: Floats, starts: Integers, sizes: Integers) -> None:
    """Sort each part in place; where all are of one size, as one matrix."""
    if len(sizes) and (sizes == sizes[0]).all():
        values.reshape(len(sizes), -1).sort(axis=1)
        return
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        values[start : start + size].sort()


def _quantile(values: Floats, starts: Integers, sizes: Integers, q: float) -> Floats:
    """Return the q-quantile of each sorted part, with the arithmetic of `numpy.quantile`."""
    place = q * (sizes - 1)
    below = np.floor(place).astype(np.int64)
    share = place - below
    low = values[starts + below]
    high = values[starts + np.minimum(below + 1, sizes - 1)]
    with np.errstate(invalid="ignore", over="ignore"):
        step = high - low
        # From the nearer end, as numpy does; but never from an infinite one, which would give no number.
        downwards = ((share >= 0.5) & ~np.isinf(high)) | np.isneginf(low)
        between = np.where(downwards, high - step * (1 - share), low + step * share)
    return np.asarray(np.where((low == high) | (share == 0), low, between), np.float64)
