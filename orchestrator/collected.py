"""The tables of a study: small ones in memory, `metrics` in files that are read as far as a question needs them.

As a mapping it is table by name, so whatever takes a dict of Arrow tables takes this too; then `metrics` is loaded
as a whole. Files are compared with their hashes before they are read for the first time: a part that was changed is
named and refused.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Corrupt
from jobs.parquet import dataset, read_coded, read_table, read_where
from jobs.records import METRICS, TABLES
from jobs.scratch import Scratch, drop
from jobs.store import Manifest, Store, open_store, verified
from orchestrator.parts import Part

Tables = Mapping[str, pa.Table]
T = TypeVar("T")
R = TypeVar("R")
_TOTALS = ("metric", "total")
_THREADS = 2  # a part takes some 400 MiB while it is made


class Map(Protocol):
    """How the parts of a collection are made: here one after another, on threads, or as tasks of a cluster."""

    def __call__(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterable[R]:
        """Return what the function gives for each task, in their order."""


def on_threads(function: Callable[[T], R], tasks: Sequence[T]) -> Iterable[R]:
    """Carry the tasks out on two threads of this process."""
    if len(tasks) < 2:
        yield from map(function, tasks)
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(function, tasks)


def watched(place: Map, watch: Callable[[int, int], None]) -> Map:
    """Return the same way of making parts, which tells how many of how many are made."""

    def tell(function: Callable[[T], R], tasks: Sequence[T]) -> Iterable[R]:
        watch(0, len(tasks))
        for number, result in enumerate(place(function, tasks), start=1):
            watch(number, len(tasks))
            yield result

    return tell


class Workspace:
    """A store in a temporary folder, for parts that are in no version of the tables; gone with its last user."""

    def __init__(self) -> None:
        self._scratch = Scratch("tables")
        self.store: Store = open_store(self._scratch.folder / "store", create=True)
        self._prefixes = 0

    def prefix(self) -> str:
        """Return a prefix that was not used before."""
        self._prefixes += 1
        return f"parts/{self._prefixes}/"


class Kept:
    """A file of a workspace; removed when nobody wants it any more."""

    def __init__(self, workspace: Workspace, key: str) -> None:
        self.workspace = workspace
        weakref.finalize(self, drop, workspace.store.local(key))


@dataclass(slots=True)
class Placed:
    """A part and where its file lies.

    keeps  whatever must live as long as the file is wanted
    """

    part: Part
    store: Store
    key: str
    keeps: object = None
    _path: Path | None = None

    @property
    def file(self) -> tuple[str, str, str, int]:
        """Return where the file is and what it is: store, key, SHA-256, size in bytes."""
        return self.store.url, self.key, self.part.sha256, self.part.size_bytes

    def path(self) -> Path:
        """Return the local file, compared with its hash once; raises Corrupt, NotFound."""
        if self._path is None or not self._path.exists():
            self._path = verified(self.store, Manifest(self.key, self.part.size_bytes, self.part.sha256, {}))
        return self._path

    def moved(self, store: Store, key: str) -> None:
        """Say that the same bytes are in a version of the tables now."""
        self.store, self.key, self.keeps, self._path = store, key, None, None

    def rows(self, metric: str, columns: Sequence[str]) -> pa.Table:
        """Return columns of the rows of one metric, `run_id` and `metric` as dictionaries; raises Corrupt."""
        return self._read(lambda path: read_where(path, "metric", metric, columns))

    def totals(self) -> pa.Table:
        """Return `metric`, as a dictionary, and `total` of all rows; raises Corrupt."""
        return self._read(lambda path: read_coded(path, _TOTALS, ("metric",)))

    def _read(self, read: Callable[[Path], pa.Table]) -> pa.Table:
        try:
            return read(self.path())
        except (pa.ArrowException, OSError) as error:
            raise Corrupt(self.key, f"cannot be read as Parquet: {error}") from None


@dataclass(slots=True)
class Collected(Mapping[str, pa.Table]):
    """The tables of one study at one moment.

    small   all tables but `metrics`
    parts   in the order of their conditions and numbers; only those with rows
    rolled  condition → digest of what its roll-up was made from
    """

    small: dict[str, pa.Table]
    parts: tuple[Placed, ...]
    rolled: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> pa.Table:
        return self._whole() if name == "metrics" else self.small[name]

    def __iter__(self) -> Iterator[str]:
        yield from ("metrics", *self.small)

    def __len__(self) -> int:
        return 1 + len(self.small)

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = None  # type: ignore[assignment]

    def _whole(self) -> pa.Table:
        tables = [read_table(placed.path(), METRICS) for placed in self.parts if placed.part.rows]
        return pa.concat_tables(tables) if tables else METRICS.empty_table()

    def metric(self, name: str, conditions: frozenset[str] | None = None) -> pa.Table:
        """Return the rows of one metric, of these conditions or of all, from the files that have any."""
        tables = [
            placed.rows(name, METRICS.names).cast(METRICS)
            for placed in self.parts
            if name in placed.part.metrics and (conditions is None or placed.part.condition_id in conditions)
        ]
        return pa.concat_tables(tables) if tables else METRICS.empty_table()

    def metrics(self) -> list[str]:
        """Return the names of all metrics, sorted."""
        return sorted({name for placed in self.parts for name in placed.part.metrics})

    def views(self) -> dict[str, Any]:
        """Return what SQL reads by name: the small tables, and `metrics` as a dataset that is not loaded."""
        paths = [placed.path() for placed in self.parts if placed.part.rows]
        return {**self.small, "metrics": dataset(paths, METRICS) if paths else METRICS.empty_table()}


def together(studies: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return by table what several studies have of it, each row once: runs differ by study, all else is of a run.

    studies: the views of each, as `Collected.views` gives them
    """
    found: dict[str, list[Any]] = {name: [] for name in TABLES}
    seen = pa.array([], pa.string())
    for views in studies:
        own = pc.unique(views["runs"]["run_id"].combine_chunks())
        double = own.filter(pc.is_in(own, seen))
        for name, view in views.items():
            if len(double) and name in ("metrics", "attempts", "checkpoints", "probes_of_seeds"):
                view = view.filter(~pc.field("run_id").isin(double))
            found[name].append(view)
        seen = pa.concat_arrays([seen, own])
    for name in ("onsets", "rollups", "audit"):
        found[name] = [_once(pa.concat_tables(found[name]))]
    return found


def _once(table: pa.Table) -> pa.Table:
    return table.group_by(table.column_names, use_threads=False).aggregate([]).select(table.column_names)


def views_of(tables: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a query is shown of these tables by name: of collected ones their files, read as they are needed."""
    return tables.views() if isinstance(tables, Collected) else tables


def rows_of(tables: Tables, metric: str) -> pa.Table:
    """Return the rows of one metric; from collected tables no other is read."""
    if isinstance(tables, Collected):
        return tables.metric(metric)
    return tables["metrics"].filter(pc.field("metric") == metric)


def items_of(tables: Tables) -> set[str]:
    """Return the metrics that are single items: each of their rows 1 of 1 or 0 of 1. Two columns are read, once."""
    if isinstance(tables, Collected):
        found: Iterable[pa.Table] = (placed.totals() for placed in tables.parts if placed.part.rows)
    else:
        found = [tables["metrics"].select(_TOTALS)]
    measures = set()
    for table in found:
        single = pc.equal(table["total"], 1).fill_null(False)
        measures.update(pc.unique(table["metric"].filter(pc.invert(single))).to_pylist())
    return set(metric_names(tables)) - measures


def metric_names(tables: Tables) -> list[str]:
    """Return the names of all metrics of these tables, sorted."""
    if isinstance(tables, Collected):
        return tables.metrics()
    return sorted(pc.unique(tables["metrics"]["metric"]).to_pylist())
