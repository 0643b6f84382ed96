"""Durable files on a local disk: write, fsync, link, fsync the folder.

A rename or a link alone survives the death of the process, not the loss of power: the bytes and the folder
that names them must both reach the disk before anything may count on them.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import AlreadyExists, StoreError, StoreFull

_CHUNK_BYTES = 1 << 20


def write_synced(path: Path, data: bytes) -> None:
    """Write `data` to a new file and wait until the disk has it."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def fsync_folder(folder: Path) -> None:
    """Wait until the disk has the names in `folder`."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def put_link(staged: Path, target: Path, key: str) -> None:
    """Give the staged file its name, if nobody has it; raises AlreadyExists."""
    try:
        os.link(staged, target)
    except FileExistsError:
        raise AlreadyExists(key) from None
    staged.unlink()
    fsync_folder(target.parent)


def hash_file(path: Path, *, sync: bool) -> tuple[str, int]:
    """Return the SHA-256 and the size in bytes of a file; with `sync`, its bytes are on the disk first."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return digest.hexdigest(), size_bytes


@contextmanager
def storage_errors(key: str) -> Iterator[None]:
    """Turn the errors of the disk into the store's: a full disk is StoreFull, any other is StoreError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(key) from error
        raise StoreError(key, f"{error.strerror or error}") from error
