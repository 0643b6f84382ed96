"""TensorBoard's event files, without TensorBoard: the scalars of a folder as a long table.

Columns: run (the folder of the event file, relative), file, step, metric (the tag), value, wall_time; and one column
for each `name=value` in the run's folders, so that `width=8/seed=3` gives width and seed. A file that was cut off in
the middle of a record, as by a kill, ends at its last whole one; a record with a wrong checksum is an error.
Format: TFRecord framing with masked CRC-32C around Event messages (tensorflow/core/util/event.proto).
"""

from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import Any

import pyarrow as pa

from jobs.errors import Fault, ImportRefused
from orchestrator.imports.wire import fields, messages, real, signed

_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = (_byte >> 1) ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


def masked_crc32c(data: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of `data` as TFRecord masks it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def event_files(folder: Path) -> list[Path]:
    """Return the event files below `folder`, sorted; raises ImportRefused where there is none."""
    found = sorted(folder.rglob("*tfevents*")) if folder.is_dir() else []
    if not found:
        raise ImportRefused((Fault(str(folder), 0, "", "is no folder with TensorBoard's event files (*tfevents*)"),))
    return found


def read_events(folder: Path) -> pa.Table:
    """Return all scalars below `folder`; raises ImportRefused for files that are damaged, all of them at once."""
    rows: list[dict[str, Any]] = []
    faults = []
    for path in event_files(folder):
        run = path.parent.relative_to(folder)
        named = dict(part.split("=", 1) for part in run.parts if "=" in part)
        own = {name: _number(text) for name, text in named.items()} | {"run": run.as_posix(), "file": path.name}
        try:
            rows += [own | scalar for record in records(path.read_bytes()) for scalar in _scalars(record)]
        except ValueError as error:
            faults.append(Fault(str(path), 0, "", f"is damaged: {error}"))
    if faults:
        raise ImportRefused(tuple(faults))
    names = sorted({name for row in rows for name in row})
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of a TFRecord file; raises ValueError for one whose checksum is wrong."""
    at = 0
    while at + 12 <= len(data):
        length, check = unpack_from("<QI", data, at)
        if masked_crc32c(data[at : at + 8]) != check:
            raise ValueError(f"the record at byte {at} has a wrong checksum")
        if at + 16 + length > len(data):
            return
        body = data[at + 12 : at + 12 + length]
        if masked_crc32c(body) != unpack_from("<I", data, at + 12 + length)[0]:
            raise ValueError(f"the record at byte {at} has a wrong checksum")
        yield body
        at += 16 + length


def _scalars(event: bytes) -> Iterator[dict[str, Any]]:
    step, wall_time, summary = 0, 0.0, b""
    for number, value in fields(event):
        if number == 1:
            wall_time = real(value)
        elif number == 2:
            step = signed(value)
        elif number == 5 and isinstance(value, bytes):
            summary = value
    for part in messages(summary, 1):
        tag, found = "", None
        for number, value in fields(part):
            if number == 1 and isinstance(value, bytes):
                tag = value.decode()
            elif number == 2:
                found = real(value)
            elif number == 8 and isinstance(value, bytes):
                found = _tensor(value)
        if found is not None:
            yield {"step": step, "metric": tag, "value": found, "wall_time": wall_time}


def _tensor(message: bytes) -> float | None:
    """Return the one number of a float or double TensorProto, as TF 2 logs scalars; None for any other tensor."""
    kind = next((value for number, value in fields(message) if number == 1), None)
    size = {1: 4, 2: 8}.get(kind) if isinstance(kind, int) else None
    for number, value in fields(message):
        if size and number in (4, 5, 6) and isinstance(value, bytes) and len(value) == size:
            return real(value)
    return None


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
