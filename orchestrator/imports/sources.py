"""Foreign tables as columns of one measurement a row; every fault of the file at once.

CSV, TSV, Parquet and JSON lines are read by pyarrow. An empty cell is missing and nothing is filled in.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jobs.errors import Fault, ImportRefused
from jobs.faults import near
from orchestrator.imports.mapping import Counted, MappingFile

KINDS = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")
_ROUNDING = 0.01  # a share may stand beside its counts with two digits
_FILE = "\0file"  # a column of our own; no file has one of this name


@dataclass(frozen=True, slots=True)
class Measurements:
    """Every value of a source, in the order of the file.

    keys   what tells runs apart: (factors, seeds by name, name), each once, in the order of their first row
    key    [row]: index into `keys`
    piece  [row]: the fragment that the source names; "" where it names none
    order  [row]: what pieces are ordered by; 0 where nothing is
    value  [row]: NaN and infinities as the source has them; empty cells are no rows
    correct, total  [row]: k of m items where they were counted, and value is k / m; -1 where not
    """

    keys: tuple["Key", ...]
    key: NDArray[np.int64]
    piece: NDArray[np.object_]
    order: NDArray[np.float64]
    step: NDArray[np.int64]
    metric: NDArray[np.object_]
    value: NDArray[np.float64]
    correct: NDArray[np.int64]
    total: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Key:
    """What tells one run from another in the source."""

    factors: tuple[tuple[str, Any], ...]
    seeds: tuple[tuple[str, int], ...]
    name: str


def read_table(paths: list[Path]) -> pa.Table:
    """Return the rows of files of one form one after the other; raises ImportRefused for what is no such file."""
    faults, tables = [], []
    for path in paths:
        try:
            table = _read(path)
            # Several files are several pieces, unless the mapping names a column of pieces.
            name = path.name if len(paths) > 1 else ""
            tables.append(table.append_column(_FILE, pa.array([name] * table.num_rows, pa.string())))
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            faults.append(Fault(str(path), 0, "", f"cannot be read: {error}"))
    if faults:
        raise ImportRefused(tuple(faults))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ImportRefused((Fault(str(paths[0]), 0, "", f"the files have different columns: {error}"),)) from None


def _read(path: Path) -> pa.Table:
    if path.suffix not in KINDS:
        raise OSError(f"a table is one of {', '.join(KINDS)}")
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix in (".jsonl", ".ndjson"):
        return pa.json.read_json(path)
    convert = pa.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
    return pa.csv.read_csv(
        path,
        parse_options=pa.csv.ParseOptions(delimiter="\t" if path.suffix == ".tsv" else ","),
        convert_options=convert,
    )


def measurements(table: pa.Table, source: MappingFile) -> Measurements:
    """Return the values of a table as its mapping says; raises ImportRefused with every fault of the columns."""
    mapping = source.mapping
    faults = [
        source.fault(key, f"the table has no column {column!r}{near(column, table.column_names)}")
        for key, column in mapping.columns().items()
        if column not in table.column_names
    ]
    if faults:
        raise ImportRefused(tuple(faults))
    if not table.num_rows:
        raise ImportRefused((source.fault("", "the table has no rows"),))
    rows = _rows_meant(table, source)
    table = table.take(pa.array(rows))
    reader = _Columns(table, source, [], rows)
    keys, code = reader.keys()
    step = reader.integers("step", mapping.step) if mapping.step else np.zeros(table.num_rows, np.int64)
    order = np.nan_to_num(reader.floats("order", mapping.order)) if mapping.order else np.zeros(table.num_rows)
    piece = reader.texts(mapping.fragment or _FILE)
    if mapping.metric:
        metrics = [reader.texts(mapping.metric)]
        parts = [_part(reader, "", mapping.value, (mapping.correct, mapping.total))]
    else:
        metrics = [np.full(table.num_rows, name, object) for name in mapping.metrics]
        parts = [
            _part(reader, f"metrics.{name}", None, (column.correct, column.total))
            if isinstance(column, Counted)
            else _part(reader, f"metrics.{name}", column, (None, None))
            for name, column in mapping.metrics.items()
        ]
    if reader.faults:
        raise ImportRefused(tuple(reader.faults))
    value, correct, total, there = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    times = len(parts)
    found = Measurements(
        keys,
        *(np.tile(column, times)[there] for column in (code, piece, order, step)),
        *(column[there] for column in (np.concatenate(metrics), value, correct, total)),
    )
    names = sorted(set(found.metric.tolist()))
    if mapping.success.metric not in names:
        said = f"no row measures {mapping.success.metric!r}{near(mapping.success.metric, names)}"
        raise ImportRefused((source.fault("success", said),))
    return found


def _rows_meant(table: pa.Table, source: MappingFile) -> NDArray[np.intp]:
    """Return the rows that the mapping's `where` means; raises ImportRefused for values that no row has."""
    meant, faults = np.ones(table.num_rows, bool), []
    for name, wanted in source.mapping.where.items():
        there = [value for value in table[name].unique().to_pylist() if value is not None]
        asked = wanted if isinstance(wanted, list) else [wanted]
        for value in asked:
            if value not in there:
                hint = near(str(value), map(str, there))
                faults.append(source.fault(f"where.{name}", f"no row has {value!r} in column {name!r}{hint}"))
        kept = pa.array([value for value in there if value in asked], table[name].type)
        meant &= np.asarray(pc.is_in(table[name], kept).to_numpy(), bool)
    if not faults and not meant.any():
        faults.append(source.fault("where", "no row has all of these values"))
    if faults:
        raise ImportRefused(tuple(faults))
    return np.flatnonzero(meant)


def _part(
    reader: "_Columns", key: str, column: str | None, counts: tuple[str | None, str | int | None]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return value, correct, total [row], and whether the row measures anything."""
    rows = reader.table.num_rows
    at = f"{key}." if key else ""
    value = reader.floats(key or "value", column) if column else np.full(rows, np.nan)
    there = ~reader.is_null(column) if column else np.zeros(rows, bool)
    if counts[0] is None or counts[1] is None:
        return value, np.full(rows, -1), np.full(rows, -1), there
    correct = reader.counts(f"{at}correct", counts[0])
    total = reader.counts(f"{at}total", counts[1]) if isinstance(counts[1], str) else np.full(rows, counts[1])
    counted = correct >= 0
    if isinstance(counts[1], str):
        reader.refuse(f"{at}total", counted != (total >= 0), "only one of correct and total is filled")
    reader.refuse(f"{at}correct", counted & ((correct > total) | (total < 1)), "correct is not 0 to total of 1 or more")
    share = correct / np.maximum(total, 1)
    off = counted & there & ~(np.abs(value - share) <= _ROUNDING)
    reader.refuse(key or "value", off, "the value is not correct / total")
    return np.where(counted, share, value), correct, np.where(counted, total, -1), there | counted


@dataclass(slots=True)
class _Columns:
    """Columns as numpy arrays; what does not fit is a fault with its row, whose number in the file is in `rows`."""

    table: pa.Table
    source: MappingFile
    faults: list[Fault]
    rows: NDArray[np.intp]

    def is_null(self, column: str) -> NDArray[np.bool_]:
        return np.asarray(self.table[column].is_null().to_numpy(), bool)

    def texts(self, column: str) -> NDArray[np.object_]:
        values = self.table[column].cast(pa.string(), safe=False)
        return np.asarray(pc.fill_null(values, "").to_numpy(zero_copy_only=False), object)

    def floats(self, key: str, column: str) -> NDArray[np.float64]:
        """Return numbers, NaN where a cell is empty."""
        values = self._cast(key, column, pa.float64())
        return np.full(self.table.num_rows, np.nan) if values is None else np.asarray(values.to_numpy(), float)

    def counts(self, key: str, column: str) -> NDArray[np.int64]:
        """Return whole numbers, -1 where a cell is empty; a negative one is a fault."""
        values = self._cast(key, column, pa.int64())
        if values is None:
            return np.full(self.table.num_rows, -1)
        self.refuse(key, pc.fill_null(values, 0).to_numpy() < 0, "a count is negative")
        return np.asarray(pc.fill_null(values, -1).to_numpy(), np.int64)

    def refuse(self, key: str, wrong: NDArray[np.bool_], says: str) -> None:
        """Make the first row that is wrong a fault."""
        if wrong.any():
            self.faults.append(self.source.fault(key, f"{says} in row {int(self.rows[np.argmax(wrong)]) + 1}"))

    def integers(self, key: str, column: str) -> NDArray[np.int64]:
        """Return whole numbers; an empty cell is a fault."""
        values = self._cast(key, column, pa.int64())
        if values is None:
            return np.zeros(self.table.num_rows, np.int64)
        self.refuse(key, np.asarray(values.is_null().to_numpy(), bool), f"column {column!r} is empty")
        return np.asarray(pc.fill_null(values, 0).to_numpy(), np.int64)

    def _cast(self, key: str, column: str, kind: pa.DataType) -> pa.ChunkedArray | None:
        try:
            return self.table[column].cast(kind)
        except pa.ArrowException as error:
            self.faults.append(self.source.fault(key, f"column {column!r} does not hold numbers of this kind: {error}"))
            return None

    def keys(self) -> tuple[tuple[Key, ...], NDArray[np.int64]]:
        mapping = self.source.mapping
        seeds = {name: column for name, column in mapping.seed_columns().items() if column is not None}
        columns = [*mapping.factors.values(), *([mapping.run] if mapping.run else [])]
        parts = [self.table[column].cast(_hashable(self.table[column].type)).to_pylist() for column in columns]
        numbers = [self.integers("seed" if mapping.seed else f"seeds.{n}", c).tolist() for n, c in seeds.items()]
        place: dict[tuple[Any, ...], int] = {}
        code = [place.setdefault(row, len(place)) for row in zip(*parts, *numbers, strict=True)]
        width = len(mapping.factors)
        found = []
        for row in place:
            factors = tuple(zip(mapping.factors, row[:width], strict=True))
            name = str(row[width]) if mapping.run else ""
            found.append(Key(factors, tuple(zip(seeds, row[len(columns) :], strict=True)), name))
        return tuple(found), np.array(code, np.int64)


def _hashable(kind: pa.DataType) -> pa.DataType:
    """Return the type in which factors are kept: what JSON knows."""
    simple = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return kind if simple else pa.string()
