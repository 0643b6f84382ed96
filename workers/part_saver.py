"""Each process of a sharded run saves its part of a checkpoint: copied in the loop, committed beside it.

A part is committed like any file (stage → fsync → hash → put, then its manifest), and counts for nothing by itself: the
first process waits until all are there, and names them in the manifest of the checkpoint.
"""

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jobs.errors import NotFound
from jobs.layout import PackKeys
from jobs.store import Manifest, Store, commit, open_store, read_manifest
from workers.checkpoint import write_tensors
from workers.parts import Pieces, header_of, piece_digest

_LOOK_S = 0.05
Commit = Callable[[], Manifest]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the parts of a pack go: the store's address, and the pack."""

    store_url: str
    pack_id: str

    @classmethod
    def of(cls, text: str) -> "Place":
        """Return the place that was told by `text`."""
        return cls(*json.loads(text))

    @property
    def text(self) -> str:
        """Return what tells it to another process."""
        return json.dumps([self.store_url, self.pack_id])


@dataclass(frozen=True, slots=True)
class Taken:
    """A state that every process has copied, and that is not durable yet.

    commit  makes this process's part durable
    count   of the processes
    check   raises where another one can no longer make its part durable
    """

    commit: Commit
    count: int
    check: Callable[[], None]

    def committed(self, store: Store, keys: PackKeys, step: int) -> list[Manifest]:
        """Make this process's part durable, the first, wait for the others', and return all manifests."""
        own, pause = self.commit(), threading.Event()
        found = [own]
        for number in range(1, self.count):
            key = keys.part(step, number, self.count)
            while (manifest := _manifest(store, key)) is None:
                self.check()
                pause.wait(_LOOK_S)
            found.append(manifest)
        return found


@dataclass(slots=True)
class PartSaver:
    """What one process of `count` copies of its runs' states, and commits. One copy at a time: wait before the next."""

    number: int
    count: int
    _buffer: dict[str, Tensor] = field(default_factory=dict)

    def take(self, place: Place, step: int, runs: Sequence[Pieces]) -> Commit:
        """Copy the pieces of each run, and return what makes them durable."""
        for slot, pieces in enumerate(runs):
            for name, piece in pieces.items():
                if name not in self._buffer:
                    self._buffer[name] = torch.empty(len(runs), *piece.values.shape, dtype=piece.values.dtype)
                self._buffer[name][slot].copy_(piece.values)
        header = header_of(runs[0])

        def write(path: Path) -> dict[str, Any]:
            write_tensors(path, self._buffer, header)
            slices = [piece_digest(self._buffer, slot) for slot in range(len(runs))]
            return {"step": step, "number": self.number, "count": self.count, "slices": slices}

        key = PackKeys(place.pack_id).part(step, self.number, self.count)
        return lambda: commit(open_store(place.store_url), key, write)


def _manifest(store: Store, key: str) -> Manifest | None:
    try:
        return read_manifest(store, key)
    except NotFound:
        return None
