"""The process in which a user's SQL runs: python -m orchestrator.dashboard.sandbox_process.

It reads questions from its input and writes answers to its output, both as a length and that many bytes. Before the
first one it gives up what it does not need: writing any file, memory beyond its limit, its environment.
"""

import json
import os
import resource
import struct
import sys
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from jobs.errors import QueryError
from jobs.parquet import dataset
from jobs.records import TABLES
from orchestrator.collected import together
from orchestrator.query import sql

MOST_ANSWER_BYTES = 64 * 1024**2


def main() -> None:
    """Answer until the input ends."""
    memory_bytes = int(sys.argv[1])
    for what, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, memory_bytes + 3 * 1024**3),  # libraries, and threads with their arenas
        (resource.RLIMIT_NOFILE, 256),
    ):
        resource.setrlimit(what, (most, most))
    os.environ.clear()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    send(sink, b"ready")
    while (question := receive(source)) is not None:
        head, body = _answer(json.loads(question), memory_bytes)
        # What a query allocated in vain is not given back: the next one gets a fresh process.
        head["last"] = "Out of Memory" in head.get("error", "")
        send(sink, json.dumps(head).encode())
        send(sink, body)
        if head["last"]:
            return


def _answer(question: dict[str, Any], memory_bytes: int) -> tuple[dict[str, Any], bytes]:
    try:
        tables = _tables(question["studies"])
        answer = sql(
            tables, question["text"], question["timeout_s"], f"{memory_bytes // 1024**2}MiB", question["most_rows"]
        )
    except QueryError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": "the query needed more memory than it may have"}, b""
    if answer.nbytes > MOST_ANSWER_BYTES:
        return {"error": f"the answer has more than {MOST_ANSWER_BYTES // 1024**2} MiB: ask for less"}, b""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_table(answer)
    return {}, sink.getvalue().to_pybytes()


def _tables(studies: list[dict[str, list[str]]]) -> dict[str, Any]:
    """Return what DuckDB reads by name; rows that two studies share are there once."""
    views = [{name: _view(name, paths) for name, paths in study.items()} for study in studies]
    if len(views) == 1:
        return views[0]
    estimates = [view.pop("estimates") for view in views if "estimates" in view]
    return together(views) | ({"estimates": estimates} if estimates else {})


def _view(name: str, paths: list[str]) -> Any:
    """Return tables in Arrow files, mapped; in Parquet files, read as far as the query asks for them."""
    if not paths:
        return TABLES[name].empty_table()
    if paths[0].endswith(".parquet"):
        return dataset([Path(path) for path in paths], TABLES[name])
    return pa.concat_tables([pa.ipc.open_file(pa.memory_map(path)).read_all() for path in paths])


def send(sink: IO[bytes] | None, data: bytes) -> None:
    """Write the length of `data` and `data`."""
    if sink is None:
        raise BrokenPipeError
    sink.write(struct.pack("<Q", len(data)) + data)
    sink.flush()


def receive(source: IO[bytes] | None) -> bytes | None:
    """Return what `send` wrote on the other side, or None where it has ended."""
    if source is None:
        return None
    head = source.read(8)
    if len(head) < 8:
        return None
    length = struct.unpack("<Q", head)[0]
    data = source.read(length)
    return data if len(data) == length else None


if __name__ == "__main__":
    main()
