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
        print_json(_plain(answer))
    elif chosen is Format.CSV:
        _write_csv(answer, sys.stdout.buffer)
    elif chosen is Format.PARQUET:
        raise QueryError("Parquet is not for a terminal: give a file with --out")
    else:
        _print(answer)


def _write(answer: pa.Table, chosen: Format, out: Path) -> None:
    if chosen is Format.TABLE and out.suffix.removeprefix(".") in (Format.CSV, Format.JSON, Format.PARQUET):
        chosen = Format(out.suffix.removeprefix("."))
    try:
        if chosen is Format.PARQUET:
            import pyarrow.parquet as pq

            pq.write_table(answer, out)
        elif chosen is Format.JSON:
            import json

            out.write_text(json.dumps(_plain(answer), ensure_ascii=False), encoding="utf-8")
        else:
            with out.open("wb") as file:
                _write_csv(answer, file)
    except OSError as error:
        raise QueryError(f"{out} cannot be written: {error.strerror}") from None


def _write_csv(answer: pa.Table, sink: object) -> None:
    from pyarrow import csv

    csv.write_csv(answer, sink)


def _plain(answer: pa.Table) -> list[dict[str, object]]:
    """Return rows of JSON values: what JSON does not know (NaN, dates) becomes null or text."""

    def plain(value: object) -> object:
        if isinstance(value, float):
            return value if value == value and abs(value) != float("inf") else None
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, list):
            return [plain(item) for item in value]
        return {key: plain(item) for key, item in value.items()} if isinstance(value, dict) else str(value)

    return [{key: plain(value) for key, value in row.items()} for row in answer.to_pylist()]


def _print(answer: pa.Table) -> None:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in answer.column_names:
        table.add_column(escape(name))
    for row in answer.slice(0, _MOST_ROWS).to_pylist():
        table.add_row(*(escape("" if value is None else str(value)) for value in row.values()))
    if answer.num_rows > _MOST_ROWS:
        table.caption = f"the first {_MOST_ROWS} of {answer.num_rows:,} rows; --out FILE writes all"
    console.print(table)
