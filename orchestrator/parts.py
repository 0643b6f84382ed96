"""One part of the table `metrics`: verified shards → one sorted Parquet file, a pure function of what it is given.

A part holds the rows of up to 256 runs of one condition, in the order of their declaration, so that new seeds touch
no part that is whole. It is sorted by metric, run and step, one metric after another in row groups of its own. Equal
rows give equal bytes, whatever shards they came in. Parts are made side by side, on threads or as Ray tasks.

Not here: which parts there are (`collector.py`), where they lie in the store (`tables.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.errors import AlreadyExists, Corrupt, NotFound
from jobs.identity import canonical_json, sha256
from jobs.layout import pack_of
from jobs.local_files import hash_file, storage_errors
from jobs.parquet import codes, read_coded, write_groups
from jobs.records import METRICS
from jobs.store import Manifest, Store, open_store, verified

PART_RUNS = 256  # 10^3 steps × 10 metrics are 2.6 million rows: some 400 MiB while a part is made
_RULE = 1  # of what a part is made; another number makes all parts anew
_NEVER = -2
Column = NDArray[Any]
# Narrow where it can be: a part is bound by what passes through memory.
_NUMBERS: dict[str, type] = {
    "run": np.int32,
    "attempt": np.int32,
    "step": np.int64,
    "metric": np.int32,
    "value": np.float64,
    "correct": np.int64,
    "total": np.int64,
    "has_counts": np.uint8,
    "stands": np.bool_,
}


@dataclass(frozen=True, slots=True)
class PartTask:
    """What a part is made from.

    run_ids   declared, sorted
    shards    manifests by their keys, of every pack that holds an attempt of these runs
    standing  (run, attempt, pack, last step at which a row of that attempt counts)
    sink_url, sink_prefix   the store, and the prefix there, under which the file is put
    """

    store_url: str
    condition_id: str
    number: int
    run_ids: tuple[str, ...]
    shards: tuple[Manifest, ...]
    standing: tuple[tuple[str, int, str, int], ...]
    sink_url: str = ""
    sink_prefix: str = ""

    @property
    def source(self) -> str:
        """Return the digest of everything that decides the part's bytes."""
        shards = [[manifest.key, manifest.sha256] for manifest in self.shards]
        decides = [_RULE, self.condition_id, self.number, list(self.run_ids), shards, [list(s) for s in self.standing]]
        return sha256(canonical_json({"part": decides}))


@dataclass(frozen=True, slots=True)
class Part:
    """A part that was made; without rows there is no file.

    source      digest of what it was made from; empty where some of that could not be read
    last_steps  run → the last step with a row
    findings    rows of the table `audit`
    """

    condition_id: str
    number: int
    source: str
    rows: int = 0
    sha256: str = ""
    size_bytes: int = 0
    metrics: tuple[str, ...] = ()
    last_steps: dict[str, int] = field(default_factory=dict)
    findings: tuple[dict[str, Any], ...] = ()

    def key(self, prefix: str) -> str:
        """Return the key of its file where a collector keeps it until it is in a version of the tables."""
        return f"{prefix}{self.sha256}.parquet"


@dataclass(slots=True)
class _Rows:
    """Columns of all shards, one array for each; `run` and `metric` are places in sorted names."""

    columns: dict[str, Column]
    metrics: list[str]
    findings: list[dict[str, Any]]
    corrupt: bool


def make_part(task: PartTask) -> Part:
    """Return the part, its file put into the sink."""
    rows = _read(open_store(task.store_url), task)
    columns = rows.columns
    steps, step_code = step_codes(pa.array(columns["step"]))
    runs = len(task.run_ids)
    key = (columns["metric"].astype(np.int64) * runs + columns["run"]) * len(steps) + step_code
    order, dropped = _standing_order(key, columns, len(rows.metrics) * runs * len(steps))
    findings = [*rows.findings, *_compared(key, order, dropped, rows, task.run_ids)]
    source = "" if rows.corrupt else task.source
    part = Part(task.condition_id, task.number, source, findings=tuple(findings))
    return _put(part, rows, order, task) if len(order) else part


def _put(part: Part, rows: _Rows, order: Column, task: PartTask) -> Part:
    sink = open_store(task.sink_url)
    with sink.scratch(".parquet") as staged:
        with storage_errors("tables"):
            write_groups(_groups(rows, order, task.run_ids), METRICS, staged)
            digest, size_bytes = hash_file(staged, sync=True)
        last = np.full(len(task.run_ids), -1)
        np.maximum.at(last, rows.columns["run"][order], rows.columns["step"][order])
        seen, _ = _used(rows.columns["metric"][order], len(rows.metrics))
        made = Part(
            part.condition_id,
            part.number,
            part.source,
            rows=len(order),
            sha256=digest,
            size_bytes=size_bytes,
            metrics=tuple(rows.metrics[code] for code in seen),
            last_steps={r: int(s) for r, s in zip(task.run_ids, last, strict=True) if s >= 0},
            findings=part.findings,
        )
        put_by_hash(sink, made.key(task.sink_prefix), staged, digest)
    return made


def put_by_hash(sink: Store, key: str, staged: Any, digest: str) -> None:
    """Put a file whose name is its hash; one that is there already is as good, if it is whole."""
    try:
        sink.put_file(key, staged)
    except AlreadyExists:
        if hash_file(sink.local(key), sync=False)[0] != digest:
            raise Corrupt(key, "is not the file that its name is the hash of") from None


def _read(store: Store, task: PartTask) -> _Rows:
    """Return the rows of these runs in all shards; a shard that cannot be read is a finding."""
    wanted = pa.array(task.run_ids, pa.string())
    limits = _limits(task)
    names: dict[str, int] = {}
    most = sum(int(manifest.extra["rows"]) for manifest in task.shards)
    whole: dict[str, Column] = {name: np.empty(most, kind) for name, kind in _NUMBERS.items()}
    filled, findings, corrupt = 0, [], False
    for manifest in task.shards:
        try:
            table = read_shard(store, manifest)
        except (Corrupt, NotFound) as error:
            findings.append({"run_id": "", "step": -1, "finding": "corrupt", "key": error.key, "detail": error.message})
            corrupt = True
            continue
        mine = _columns(table, wanted, limits.get(pack_of(manifest.key)), names)
        count = len(mine["run"])
        for name, column in mine.items():
            whole[name][filled : filled + count] = column
        filled += count
    columns = {name: column[:filled] for name, column in whole.items()}
    metrics = sorted(names)
    place = np.array([metrics.index(name) for name in names], np.int32)
    columns["metric"] = place[columns["metric"]] if len(place) else columns["metric"]
    return _Rows(columns, metrics, findings, corrupt)


def read_shard(store: Store, manifest: Manifest) -> pa.Table:
    """Return the rows of a shard, text as dictionaries; raises Corrupt, NotFound."""
    try:
        table = read_coded(verified(store, manifest), METRICS.names, ("run_id", "metric"))
        for name in ("attempt", "step", "value", "correct", "total"):
            place = table.schema.get_field_index(name)
            table = table.set_column(place, name, table[name].cast(METRICS.field(name).type))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise Corrupt(manifest.key, f"cannot be read as Parquet: {error}") from None
    if table.num_rows != manifest.extra["rows"]:
        raise Corrupt(manifest.key, f"has {table.num_rows} rows, was committed with {manifest.extra['rows']}")
    return table


def _limits(task: PartTask) -> dict[str, NDArray[np.int64]]:
    """Return by pack [run, attempt]: the last step at which such a row in a shard of that pack counts."""
    place = {run_id: index for index, run_id in enumerate(task.run_ids)}
    most = max((attempt for _, attempt, _, _ in task.standing), default=0)
    found: dict[str, NDArray[np.int64]] = {}
    for run_id, attempt, pack, limit in task.standing:
        of_pack = found.setdefault(pack, np.full((len(place), most + 2), np.int64(_NEVER)))
        of_pack[place[run_id], attempt] = limit
    return found


def _columns(table: pa.Table, wanted: pa.Array, limits: Any, names: dict[str, int]) -> dict[str, Column]:
    run = codes(table["run_id"], wanted)
    for name in (name for chunk in table["metric"].chunks for name in chunk.dictionary.to_pylist()):
        names.setdefault(name, len(names))
    whole = {
        "run": run,
        "attempt": table["attempt"].to_numpy(),
        "step": table["step"].to_numpy(),
        "metric": codes(table["metric"], pa.array(list(names), pa.string())),
        "value": table["value"].to_numpy(),
        "correct": pc.fill_null(table["correct"], 0).to_numpy(),
        "total": pc.fill_null(table["total"], 0).to_numpy(),
        "has_counts": _bits(table["correct"]) + 2 * _bits(table["total"]),
    }
    if run.size and run.min() < 0:
        mine = np.flatnonzero(run >= 0)
        whole = {name: column[mine] for name, column in whole.items()}
    if limits is None:
        return whole | {"stands": np.zeros(len(whole["run"]), bool)}
    number = np.clip(whole["attempt"], 0, limits.shape[1] - 1)
    return whole | {"stands": whole["step"] <= limits[whole["run"], number]}


def _bits(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    if column.null_count == 0:
        return np.ones(len(column), np.uint8)
    return np.asarray(column.is_valid().to_numpy(), np.uint8)


def _standing_order(key: Column, columns: dict[str, Column], cells: int) -> tuple[Column, Column]:
    """Return the rows that stand, sorted by key, at most one for each; and those that do not."""
    stands = np.flatnonzero(columns["stands"])
    mine = key if len(stands) == len(key) else key[stands]
    if cells <= 4 * len(mine) + 1024:
        # Nearly every cell of the grid is measured: put each row where it belongs, which is a sort in linear time.
        place = np.full(cells, -1)
        place[mine] = np.arange(len(mine))
        order = place[place >= 0]
        if len(order) == len(mine):
            return stands[order], np.flatnonzero(~columns["stands"])
    order = np.lexsort((-columns["attempt"][stands], mine))
    ordered = mine[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]
    return stands[order[first]], np.concatenate([np.flatnonzero(~columns["stands"]), stands[order[~first]]])


def _compared(
    key: Column, order: Column, dropped: Column, rows: _Rows, run_ids: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """Yield a finding for each row that is left out and differs from the one that stands, or repeats it."""
    if not len(dropped) or not len(order):
        return
    place = np.minimum(np.searchsorted(key[order], key[dropped]), len(order) - 1)
    other = order[place]
    met = key[other] == key[dropped]
    dropped, other = dropped[met], other[met]
    columns = rows.columns
    same = (columns["value"][dropped] == columns["value"][other]) | (
        np.isnan(columns["value"][dropped]) & np.isnan(columns["value"][other])
    )
    for name in ("correct", "total", "has_counts"):
        same &= columns[name][dropped] == columns[name][other]
    twice = same & (columns["attempt"][dropped] == columns["attempt"][other])
    for left, stays, repeated in zip(dropped[~same | twice], other[~same | twice], twice[~same | twice], strict=True):
        yield _finding(columns, rows.metrics, int(left), int(stays), run_ids, repeated=bool(repeated))


def _finding(
    columns: dict[str, Column], metrics: list[str], left: int, stays: int, run_ids: tuple[str, ...], *, repeated: bool
) -> dict[str, Any]:
    metric = metrics[columns["metric"][left]]

    def says(row: int) -> str:
        counted = columns["has_counts"][row] == 3
        counts = f" ({columns['correct'][row]} of {columns['total'][row]})" if counted else ""
        return f"{float(columns['value'][row])!r}{counts}"

    detail = f"{metric}: attempt {columns['attempt'][left]} measured {says(left)}, attempt {columns['attempt'][stays]} "
    detail = f"{metric}: attempt {columns['attempt'][left]} measured it twice" if repeated else detail + says(stays)
    finding = "duplicate" if repeated else "disagreement"
    return {
        "run_id": run_ids[columns["run"][left]],
        "step": int(columns["step"][left]),
        "finding": finding,
        "key": "",
        "detail": detail,
    }


def _groups(rows: _Rows, order: Column, run_ids: tuple[str, ...]) -> Iterator[pa.Table]:
    """Yield the rows of one metric after another, sorted by run and step."""
    columns = rows.columns
    code = columns["metric"][order]
    ends = np.cumsum(np.bincount(code, minlength=len(rows.metrics)))
    for metric, end in enumerate(ends.tolist()):
        mine = order[ends[metric - 1] if metric else 0 : end]
        if not len(mine):
            continue
        seen, run = _used(columns["run"][mine], len(run_ids))
        has = columns["has_counts"][mine]
        names = pa.array([run_ids[place] for place in seen], pa.string())
        zeros = pa.array(np.zeros(len(mine), np.int32))
        arrays = [
            pa.DictionaryArray.from_arrays(pa.array(run.astype(np.int32)), names),
            pa.array(columns["attempt"][mine]),
            pa.array(columns["step"][mine]),
            pa.DictionaryArray.from_arrays(zeros, pa.array([rows.metrics[metric]])),
            pa.array(columns["value"][mine]),
            pa.array(columns["correct"][mine], mask=has & 1 == 0),
            pa.array(columns["total"][mine], mask=has & 2 == 0),
        ]
        yield pa.table(arrays, names=METRICS.names)


def step_codes(steps: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct steps, ascending, and for each row the place of its step among them."""
    distinct = np.sort(pc.unique(steps).to_numpy())
    places = pc.index_in(steps, pa.array(distinct, pa.int64())).to_numpy()
    return distinct, np.asarray(places, np.int64)


def _used(code: Column, count: int) -> tuple[Column, Column]:
    """Return the codes that occur, and each row's place among them."""
    seen = np.flatnonzero(np.bincount(code, minlength=count))
    place = np.zeros(count, np.int64)
    place[seen] = np.arange(len(seen))
    return seen, place[code]
