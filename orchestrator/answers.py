"""Tables on their way out: JSON, CSV whose cells no spreadsheet takes for formulas, and Parquet."""

import io
import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import csv

from jobs.errors import QueryError
from orchestrator.estimates.estimate import plain

KINDS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
}
_FORMULA = r"^[=+\-@\t\r]"


def columns_of(table: pa.Table) -> dict[str, Any]:
    """Return the table as columns of JSON values; what is not finite is null, what JSON does not know is text."""
    return {
        "columns": table.column_names,
        "rows": table.num_rows,
        "data": [[_value(v) for v in column.to_pylist()] for column in table.columns],
    }


def _value(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return plain(value)
    if isinstance(value, Decimal):  # what DuckDB's sum of integers is
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, list):
        return [_value(item) for item in value]
    return {str(key): _value(item) for key, item in value.items()} if isinstance(value, dict) else str(value)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Return the table as rows of JSON values."""
    return [{name: _value(value) for name, value in row.items()} for row in table.to_pylist()]


def csv_of(table: pa.Table) -> bytes:
    """Return the table as CSV, lists in it as JSON; a text that begins as a formula does gets an apostrophe (OWASP)."""
    safe = [_without_formulas(column) for column in table.columns]
    names = [_safe_name(name) for name in table.column_names]
    sink = io.BytesIO()
    csv.write_csv(pa.table(safe, names=names), sink)
    return sink.getvalue()


def _without_formulas(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        texts = [None if v is None else json.dumps(_value(v), ensure_ascii=False) for v in column.to_pylist()]
        column = pa.chunked_array([pa.array(texts, pa.string())])
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    return pc.replace_substring_regex(column, rf"({_FORMULA})", r"'\1")


def _safe_name(name: str) -> str:
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t", "\r") else name


def parquet_of(table: pa.Table) -> bytes:
    """Return the table as a Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def file_of(table: pa.Table, kind: str) -> bytes:
    """Return the table as CSV or Parquet; raises QueryError for another kind."""
    if kind == "csv":
        return csv_of(table)
    if kind == "parquet":
        return parquet_of(table)
    raise QueryError(f"an answer goes out as json, csv or parquet, not as {kind}")
