"""Protocol buffers without their schema: the fields of one message, by number (protobuf.dev, encoding)."""

from collections.abc import Iterator
from struct import unpack_from

Value = int | bytes


def fields(message: bytes) -> Iterator[tuple[int, Value]]:
    """Yield (number, value): integers as they are, everything of fixed or given length as its bytes.

    Raises ValueError for bytes that are no message.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is none")
        if at + length > len(message):
            raise ValueError("a field is cut off")
        yield number, message[at : at + length]
        at += length


def messages(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the messages (or texts) in the field `number`."""
    for found, value in fields(message):
        if found == number and isinstance(value, bytes):
            yield value


def signed(value: Value) -> int:
    """Return an int64 field as a signed number; raises ValueError for bytes."""
    if isinstance(value, bytes):
        raise ValueError("a number was expected")
    return value - (1 << 64) if value >> 63 else value


def real(value: Value) -> float:
    """Return a float or double field; raises ValueError for anything else."""
    if not isinstance(value, bytes) or len(value) not in (4, 8):
        raise ValueError("a real number was expected")
    return float(unpack_from("<f" if len(value) == 4 else "<d", value)[0])


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise ValueError("a number is cut off")
        value |= (message[at] & 0x7F) << shift
        at += 1
        if not message[at - 1] & 0x80:
            return value, at
    raise ValueError("a number is longer than 64 bits")
