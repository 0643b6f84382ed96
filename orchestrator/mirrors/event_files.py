"""TensorBoard's event files, without TensorBoard: a folder a run, a file for each time that news were sent.

    model.width=8/seed_init=3/r1-05ec…/events.out.tfevents.000000000000.seedbed

The folders are what `seedbed import tensorboard` reads back: factors and seeds become columns. A file is named by its
first step, and is whole or not there, so that sending it again replaces it. Format: TFRecord framing with masked
CRC-32C around Event messages (tensorflow/core/util/event.proto, summary.proto).
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from struct import pack
from urllib.parse import quote

from jobs.errors import MirrorError
from jobs.local_files import fsync_folder, write_synced
from orchestrator.imports.tensorboard import masked_crc32c
from orchestrator.mirrors import MirroredRun

_NAME_BYTES = 150  # of a folder; a longer value is cut


class EventFiles:
    """The mirror of TensorBoard.

    clock  seconds since 1970: the time that an event carries, since rows have none
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self.folder, self.clock = folder, clock
        self._target = folder
        self._records: list[bytes] = []

    def begin(self, run: MirroredRun) -> None:
        """Begin a file for the steps from `run.first_step` on."""
        self._target = self.folder / _place(run) / f"events.out.tfevents.{run.first_step:012d}.seedbed"
        self._records = [_record(_real(1, self.clock()) + _bytes(3, b"brain.Event:2"))]

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add one event with a scalar for each metric."""
        scalars = (
            _bytes(1, _bytes(1, name.encode()) + _bytes(8, _double(value)) + _SCALAR) for name, value in values.items()
        )
        event = _real(1, self.clock()) + _varint(2 << 3) + _varint(step) + _bytes(5, b"".join(scalars))
        self._records.append(_record(event))

    def end(self, status: str) -> None:  # noqa: ARG002
        """Write the file; raises MirrorError where the disk does not take it."""
        staged = self._target.with_name(f".{self._target.name}.{os.getpid()}")
        try:
            if len(self._records) > 1:
                self._target.parent.mkdir(parents=True, exist_ok=True)
                staged.unlink(missing_ok=True)
                write_synced(staged, b"".join(self._records))
                staged.replace(self._target)
                fsync_folder(self._target.parent)
        except OSError as error:
            raise MirrorError(f"tensorboard: {self._target} cannot be written: {error.strerror}") from None
        self.abandon()

    def abandon(self) -> None:
        """Forget what was not written."""
        self._records = []

    def close(self) -> None:
        """Have nothing open."""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _bytes(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


# Metadata of a value: of the plugin `scalars`, and of the class of scalars; without it TensorBoard shows no tensor.
_SCALAR = _bytes(9, _bytes(1, _bytes(1, b"scalars")) + _varint(4 << 3) + _varint(1))


def _place(run: MirroredRun) -> Path:
    named = [*run.factors.items(), *((f"seed_{name}", number) for name, number in run.seeds.items())]
    return Path(*(f"{quote(name, safe='.')}={_value(value)}" for name, value in named), run.id)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return quote(text, safe=".+-")[:_NAME_BYTES]


def _double(value: float) -> bytes:
    """Return a TensorProto of one double: a `simple_value` would be a float, and equal numbers no longer equal."""
    return _varint(1 << 3) + _varint(2) + _bytes(2, b"") + _bytes(6, pack("<d", value))


def _record(event: bytes) -> bytes:
    length = pack("<Q", len(event))
    return length + pack("<I", masked_crc32c(length)) + event + pack("<I", masked_crc32c(event))


def _real(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + pack("<d", value)
