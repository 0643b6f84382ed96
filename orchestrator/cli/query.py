"""`seedbed query`: one SELECT over the tables of a store."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.answers import csv_of, parquet_of, rows_of
from orchestrator.cli.options import DEFAULT_STORE, StoreFolder
from orchestrator.cli.show import console, print_json
from orchestrator.library import Library

_MOST_ROWS = 200


class Format(StrEnum):
    """How the answer is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    PARQUET = "parquet"


def command(
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT statement.")],
    store: StoreFolder = DEFAULT_STORE,
    study: Annotated[str, typer.Option(help="Only this study; else all of the store.")] = "",
    format_: Annotated[Format, typer.Option("--format", "-f", help="How to write the answer.")] = Format.TABLE,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A file instead of the terminal.")] = None,
) -> None:
    """Ask the tables runs, metrics, attempts, checkpoints and audit, in DuckDB's SQL; read only.

    `runs` has a column for each factor, such as "model.width".

    [bold]Example:[/bold] seedbed query --store results "SELECT condition, avg(value) FROM metrics JOIN runs USING
    (run_id) WHERE metric = 'heldout.accuracy' AND step = planned_steps GROUP BY ALL"
    """
    answer = Library(open_store(store)).sql(sql, study)
    chosen = Format.JSON if as_json else format_
    if out is not None:
        _write(answer, chosen, out)
    elif chosen is Format.JSON:
        print_json(rows_of(answer))
    elif chosen is Format.CSV:
        sys.stdout.buffer.write(csv_of(answer))
    elif chosen is Format.PARQUET:
        raise QueryError("Parquet is not for a terminal: give a file with --out")
    else:
        _print(answer)


def _write(answer: pa.Table, chosen: Format, out: Path) -> None:
    if chosen is Format.TABLE and out.suffix.removeprefix(".") in (Format.CSV, Format.JSON, Format.PARQUET):
        chosen = Format(out.suffix.removeprefix("."))
    try:
        if chosen is Format.PARQUET:
            out.write_bytes(parquet_of(answer))
        elif chosen is Format.JSON:
            import json

            out.write_text(json.dumps(rows_of(answer), ensure_ascii=False), encoding="utf-8")
        else:
            out.write_bytes(csv_of(answer))
    except OSError as error:
        raise QueryError(f"{out} cannot be written: {error.strerror}") from None


def _print(answer: pa.Table) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in answer.column_names:
        table.add_column(escape(name))
    for row in answer.slice(0, _MOST_ROWS).to_pylist():
        table.add_row(*(escape("" if value is None else str(value)) for value in row.values()))
    if answer.num_rows > _MOST_ROWS:
        table.caption = f"the first {_MOST_ROWS} of {answer.num_rows:,} rows; --out FILE writes all"
    console.print(table)
