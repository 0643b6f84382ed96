"""W&B's offline runs, without W&B: the history in *.wandb files as a long table.

Columns: run (its id), file, step, metric, value, and a column `config.NAME` for each plain value of its configuration.
The files are LevelDB logs: blocks of 32 KiB, records with a CRC-32 of their own seed, cut where a block ends. Their
messages are internal to W&B (written by 0.31); a field that is not known is passed over. A file that a kill cut off
ends at its last whole record. Exports as CSV or JSON lines are tables: `seedbed import table`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import Any
from zlib import crc32

import pyarrow as pa

from jobs.errors import Fault, ImportRefused
from orchestrator.imports.wire import fields, messages, signed

_BLOCK, _HEADER = 32 * 1024, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
# Numbers of fields in wandb_internal.proto.
_HISTORY, _RUN, _RUN_ID, _RUN_CONFIG = 2, 17, 1, 4
_ITEM, _STEP, _KEY, _NESTED, _JSON = 1, 2, 1, 2, 16


def offline_files(folder: Path) -> list[Path]:
    """Return the *.wandb files below `folder`, sorted; raises ImportRefused where there is none."""
    found = sorted(folder.rglob("*.wandb")) if folder.is_dir() else []
    if not found:
        raise ImportRefused((Fault(str(folder), 0, "", "is no folder with offline runs of W&B (*.wandb)"),))
    return found


def read_offline(folder: Path) -> pa.Table:
    """Return the history of all runs below `folder`; raises ImportRefused for damaged files, all of them at once."""
    rows: list[dict[str, Any]] = []
    faults = []
    for path in offline_files(folder):
        try:
            rows += _rows(path)
        except ValueError as error:
            faults.append(Fault(str(path), 0, "", f"is damaged: {error}"))
    if faults:
        raise ImportRefused(tuple(faults))
    names = sorted({name for row in rows for name in row})
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a LevelDB log with W&B's header; raises ValueError for wrong ones, not for a cut end."""
    if data[:4] != b":W&B":
        raise ValueError("it does not begin as a file of W&B does")
    at, parts = _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        check, length, kind = unpack_from("<IHB", data, at)
        body = data[at + _HEADER : at + _HEADER + length]
        if kind == 0 or len(body) < length:
            return
        if crc32(body, crc32(bytes([kind]))) != check:
            raise ValueError(f"the record at byte {at} has a wrong checksum")
        parts = body if kind in (_FULL, _FIRST) else parts + body
        if kind in (_FULL, _LAST):
            yield parts
        elif kind not in (_FIRST, _MIDDLE):
            raise ValueError(f"the record at byte {at} is of no known kind")
        at += _HEADER + length


def _rows(path: Path) -> list[dict[str, Any]]:
    own: dict[str, Any] = {"run": path.stem.removeprefix("run-"), "file": path.name}
    found: list[dict[str, Any]] = []
    for record in records(path.read_bytes()):
        for run in messages(record, _RUN):
            own["run"] = next((text.decode() for text in messages(run, _RUN_ID)), own["run"])
            for config in messages(run, _RUN_CONFIG):
                items = dict(map(_item, messages(config, 1)))
                own |= {f"config.{k}": v for k, v in items.items() if isinstance(v, str | int | float)}
        for history in messages(record, _HISTORY):
            items = dict(map(_item, messages(history, _ITEM)))
            step = items.get("_step", _step_of(history))
            found += [
                {"step": step, "metric": name, "value": number}
                for name, value in items.items()
                if not name.startswith("_") and (number := _real(value)) is not None
            ]
    return [own | row for row in found]


def _item(item: bytes) -> tuple[str, Any]:
    """Return key and value; a nested key as its parts with dots between."""
    key = next((text.decode() for text in messages(item, _KEY)), "")
    nested = [text.decode() for text in messages(item, _NESTED)]
    text = next((text.decode() for text in messages(item, _JSON)), "null")
    return key or ".".join(nested), json.loads(text)


def _step_of(history: bytes) -> int:
    for step in messages(history, _STEP):
        return next((signed(value) for number, value in fields(step) if number == 1), 0)
    return 0


def _real(value: Any) -> float | None:
    """Return a number, also one that W&B writes as text since JSON does not know it; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else None
