"""One run's tensors of a checkpoint in parts: each is read, and put together, when it is asked for.

No more than one of them is in memory, so that no process needs to hold a state that lies on several. A file is opened
when something of it is asked for.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jobs.digests import RunningDigest
from jobs.errors import Corrupt, NotFound
from jobs.store import Store, read_manifest
from workers.parts import PART, Piece, named_digests, places_in

_WHOLE = -1  # in the place of a part's number: the file of what is saved whole


@contextmanager
def readable(key: str) -> Iterator[None]:
    """Make Corrupt of what is raised where a file is not what it was, or of another kind."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise Corrupt(key, f"cannot be read: {error}") from None


class StoredSlice(Mapping[str, Tensor]):
    """The tensors [1, …] of one run.

    Raises Corrupt where files are not what they were, or pieces do not make up a tensor, NotFound where a file is gone.

    key    of what is saved whole
    parts  keys of what each process saved
    """

    def __init__(self, store: Store, key: str, parts: Sequence[str], slot: int) -> None:
        self.store, self.key, self.parts, self.slot = store, key, tuple(parts), slot
        self._files: dict[int, Any] = {}

    def __iter__(self) -> Iterator[str]:
        return iter([*self._names(_WHOLE), *self._places])

    def __len__(self) -> int:
        return len(self._names(_WHOLE)) + len(self._places)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._names(_WHOLE):
            return self._row(_WHOLE, name)
        pieces = sorted(self._places[name], key=lambda place: place[1])
        shape = pieces[0][2]
        found = torch.empty(1, math.prod(shape))
        reached = 0
        for number, offset, _ in pieces:
            values = self._row(number, name)[0]
            begin, end = Piece(values, offset, shape).cut
            if begin != reached or end > found.shape[1]:
                raise Corrupt(self.parts[number], f"the pieces of {name} do not make it up")
            found[0, begin:end] = values.reshape(-1)
            reached = end
        if reached != found.shape[1]:
            raise Corrupt(self.key, f"the pieces of {name} do not make it up")
        return found.view(1, *shape)

    @cached_property
    def _places(self) -> dict[str, list[tuple[int, tuple[int, ...], tuple[int, ...]]]]:
        """Return tensor → number of the part, offset and whole shape of each piece; opens all parts."""
        found: dict[str, list[tuple[int, tuple[int, ...], tuple[int, ...]]]] = {}
        for number, key in enumerate(self.parts):
            with readable(key):
                told = places_in(self._file(number).metadata())
                for name in self._names(number):
                    found.setdefault(name, []).append((number, *told[name]))
        return found

    def _key(self, number: int) -> str:
        return self.key if number == _WHOLE else self.parts[number]

    def _file(self, number: int) -> Any:
        if number not in self._files:
            path = self.store.local(self._key(number))
            with readable(self._key(number)):
                self._files[number] = safe_open(path, framework="pt")
        return self._files[number]

    def _names(self, number: int) -> list[str]:
        return sorted(self._file(number).keys())

    def _row(self, number: int, name: str) -> Tensor:
        with readable(self._key(number)):
            row: Tensor = self._file(number).get_slice(name)[self.slot : self.slot + 1]
            if len(row) != 1:
                raise ValueError(f"{name} has no run {self.slot}")
        return row

    def check(self, sha256: str) -> None:
        """Raise Corrupt, with the file to blame, unless what the files hold now has this digest; reads all of them."""
        CheckedSlice(self.store, self.key, self.parts, self.slot, sha256).finish()


class CheckedSlice(StoredSlice):
    """A slice of which each byte is read once: what was handed out counts when `finish` has compared its digest.

    Tensors are asked for once each, those of a file in the order of their names.
    """

    def __init__(self, store: Store, key: str, parts: Sequence[str], slot: int, sha256: str) -> None:
        super().__init__(store, key, parts, slot)
        self._sha256 = sha256
        self._left: dict[int, deque[str]] = {}
        self._digests: dict[int, RunningDigest] = {}
        self._of_parts: tuple[str, ...] | None = None
        self._has_parts = False

    def took(self, digests: Sequence[str]) -> None:
        """Hear that each process has read its own part, and what digest that has."""
        self._of_parts = tuple(digests)

    def finish(self) -> None:
        """Read what nobody asked for; raises Corrupt where the whole is not what was committed."""
        self._hash_parts()
        self._hash(_WHOLE)
        if self._digests[_WHOLE].hexdigest() != self._sha256:
            raise Corrupt(self._to_blame(), "differs from its manifest")

    def _row(self, number: int, name: str) -> Tensor:
        if number == _WHOLE and name > PART:
            self._hash_parts()
        found = self._hash(number, name)
        if found is None:
            raise Corrupt(self._key(number), f"{name} was read before")
        return found

    def _hash(self, number: int, last: str | None = None) -> Tensor | None:
        """Read on in a file up to a tensor, or to its end; returns that tensor, unless it was read before."""
        digest = self._digests.setdefault(number, RunningDigest())
        left = self._left.setdefault(number, deque(self._names(number)))
        found = None
        while left and (last is None or left[0] <= last):
            name = left.popleft()
            # A copy: the file is mapped, and what is hashed shall be what is used.
            row = super()._row(number, name).clone()
            values = row[0].numpy()
            digest.add(name, values if number == _WHOLE else values.reshape(-1))
            found = row if name == last else None
        return found

    def _hash_parts(self) -> None:
        """Let the digests of all parts into that of the whole, between the names that come before and after them."""
        if self._has_parts:
            return
        self._has_parts = True
        self._hash(_WHOLE, PART)
        if self._of_parts is None:
            for number in range(len(self.parts)):
                self._hash(number)
            self._of_parts = tuple(self._digests[number].hexdigest() for number in range(len(self.parts)))
        for name, array in sorted(named_digests(self._of_parts).items()):
            self._digests[_WHOLE].add(name, array)

    def _to_blame(self) -> str:
        """Return the key of the part that is not what its own manifest says, or of what is saved whole."""
        for key, digest in zip(self.parts, self._of_parts or (), strict=True):
            with suppress(NotFound, Corrupt, KeyError, IndexError, TypeError):
                if read_manifest(self.store, key).extra["slices"][self.slot] != digest:
                    return key
        return self.key


class StoredRows(Mapping[str, Tensor]):
    """The tensors [run, …] of a pack whose runs go on from checkpoints in parts."""

    def __init__(self, rows: Sequence[CheckedSlice]) -> None:
        self.rows = tuple(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows[0])

    def __len__(self) -> int:
        return len(self.rows[0])

    def __getitem__(self, name: str) -> Tensor:
        found = [row[name] for row in self.rows]
        return found[0] if len(found) == 1 else torch.cat(found)

    def finish(self) -> None:
        """Raise Corrupt where a run's slice is not what was committed."""
        for row in self.rows:
            row.finish()
