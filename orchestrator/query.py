"""Read-only SQL over the tables of a study, in DuckDB.

The views are `runs` (with one column more for each factor, such as "model.width"), `metrics`, `attempts`,
`checkpoints`, `probes_of_seeds`, `onsets`, `rollups`
and `audit`. Nothing outside them can be reached: no files, no network,
no extensions, no settings; and a statement is exactly one SELECT. Rows of `metrics` are read from their files as far
as the statement asks for them.
"""

import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.errors import QueryError
from orchestrator.collected import views_of

if TYPE_CHECKING:
    import duckdb

TIMEOUT_S = 60.0
_MEMORY = "4GB"


def sql(
    tables: Mapping[str, Any],
    text: str,
    timeout_s: float = TIMEOUT_S,
    memory: str = _MEMORY,
    most_rows: int | None = None,
) -> pa.Table:
    """Return the answer of one SELECT over the tables, or its first `most_rows` rows.

    tables: by name an Arrow table, a dataset, or a list of those, which is read as one table
    Raises QueryError with what DuckDB says of it, also where it needs more time or `memory` than it may.
    """
    import duckdb  # 20 MB, which a server that asks other processes does without

    connection = _locked_down(tables, memory)
    timer = threading.Timer(timeout_s, connection.interrupt)
    try:
        statements = connection.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise QueryError("a query is exactly one SELECT statement")
        timer.start()
        if most_rows is None:
            return connection.sql(text).to_arrow_table()
        return _first_rows(connection.sql(text).to_arrow_reader(), most_rows)
    except duckdb.InterruptException:
        raise QueryError(f"the query took longer than {timeout_s:g} s and was stopped") from None
    except duckdb.Error as error:
        raise QueryError(str(error)) from None
    finally:
        timer.cancel()
        connection.close()


def runs_with_factors(runs: pa.Table) -> pa.Table:
    """Return the runs with one column per factor; a factor that a condition does not have is null.

    A factor whose values are not all numbers, or not all booleans, is text (strings as they are, others as JSON).
    """
    factors = [json.loads(text) for text in runs["factors"].to_pylist()]
    for name in sorted({name for row in factors for name in row}):
        values = [row.get(name) for row in factors]
        runs = runs.append_column(name, _column(values))
    return runs


def _column(values: list[Any]) -> pa.Array:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {bool} or kinds <= {int} or kinds <= {int, float}:
        floats = [float(v) if v is not None and float in kinds else v for v in values]
        return pa.array(floats)
    return pa.array([v if v is None or isinstance(v, str) else json.dumps(v) for v in values])


def _first_rows(reader: pa.RecordBatchReader, most_rows: int) -> pa.Table:
    batches: list[pa.RecordBatch] = []
    for batch in reader:
        batches.append(batch)
        if sum(map(len, batches)) >= most_rows:
            break
    return pa.Table.from_batches(batches, reader.schema).slice(0, most_rows)


def _locked_down(tables: Mapping[str, Any], memory: str) -> "duckdb.DuckDBPyConnection":
    import duckdb

    settings: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }
    connection = duckdb.connect(":memory:", config=settings)
    for name, found in views_of(tables).items():
        _register(connection, name, found if isinstance(found, list) else [found])
    for setting in (
        "temp_directory=''",  # nothing is written, not even what does not fit into memory
        "enable_external_access=false",
        "python_enable_replacements=false",
        f"memory_limit='{memory}'",
        "lock_configuration=true",  # last: after it nothing can be set
    ):
        connection.execute(f"SET {setting}")
    return connection


def _register(connection: "duckdb.DuckDBPyConnection", name: str, found: list[Any]) -> None:
    if name == "runs":
        connection.register(name, runs_with_factors(pa.concat_tables(found)))
    elif len(found) == 1:
        connection.register(name, found[0])
    else:
        names = [f"{name} of study {number}" for number in range(len(found))]
        for each, table in zip(names, found, strict=True):
            connection.register(each, table)
        # The names are ours: a word of this file, and a number.
        union = " UNION ALL ".join(f'SELECT * FROM "{each}"' for each in names)  # noqa: S608
        connection.execute(f'CREATE VIEW "{name}" AS {union}')
