"""Parts of a checkpoint: what each process of a sharded run holds of the moments, as files, and the way back.

A part is a safetensors file in the form of torch's distributed checkpoints (`torch.distributed.checkpoint`, as
`HuggingFaceStorageReader` reads it, on any number of processes), whose header says where in the whole its pieces lie.
DCP itself would pickle its plans between the processes, and its metadata; here the manifest of the checkpoint names
every part with its SHA-256, and without all of them there is no checkpoint.

A run's digest is then over what is saved whole and over one digest for each process's pieces, so that each process
hashes its own.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor

from jobs.digests import digest_of

PART = "part."  # before the number of a process, in the place of its pieces, where a slice is hashed
Array = NDArray[Any]
Cut = Mapping[str, tuple[int, int]]  # tensor → where the values that one process holds begin and end, counted flat
_SHARDING, _OFFSETS, _WHOLE = "DCP_SHARDING_INFO", "saved_offsets", "whole_shape"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one process holds of a tensor: rows of it, or a range of it counted flat.

    values  the piece; flat, or of the whole's shape but for the first axis
    offset  of its first value along each of its axes
    whole   the shape of the whole tensor
    """

    values: Tensor
    offset: tuple[int, ...]
    whole: tuple[int, ...]

    @property
    def cut(self) -> tuple[int, int]:
        """Return where it begins and ends in the whole, counted flat."""
        begin = self.offset[0] * math.prod(self.values.shape[1:])
        return begin, begin + self.values.numel()


Pieces = Mapping[str, Piece]


def header_of(pieces: Pieces) -> dict[str, str]:
    """Return what the header of a part says beside its tensors [run, …]: where the pieces lie, as DCP reads it."""
    places = {name: {_OFFSETS: [0, *piece.offset], _WHOLE: list(piece.whole)} for name, piece in sorted(pieces.items())}
    return {"format": "pt", "DCP_VERSION": "1.0", _SHARDING: json.dumps(places)}


def piece_digest(tensors: Mapping[str, Tensor], slot: int) -> str:
    """Return the SHA-256 over one run's pieces [run, …] of one process: names, and values counted flat."""
    return digest_of({name: tensor[slot].detach().cpu().reshape(-1).numpy() for name, tensor in tensors.items()})


def whole_digest(state: Mapping[str, Tensor], slot: int, cuts: Sequence[Cut]) -> str:
    """Return the digest of one run's slice of a state [run, …], of which the processes hold `cuts`."""
    cut = {name for each in cuts for name in each}
    arrays = {name: tensor[slot].detach().cpu().numpy() for name, tensor in state.items() if name not in cut}
    parts = [
        digest_of({n: state[n][slot].detach().cpu().reshape(-1)[a:b].numpy() for n, (a, b) in each.items()})
        for each in cuts
    ]
    return digest_of(arrays | named_digests(parts))


def named_digests(parts: Iterable[str]) -> dict[str, Array]:
    """Return the digests of all processes' pieces as arrays, in the place of the pieces."""
    return {f"{PART}{number}": np.frombuffer(bytes.fromhex(digest), np.uint8) for number, digest in enumerate(parts)}


class StoredSlice(Mapping[str, Tensor]):
    """One run's tensors [1, …] of a checkpoint in parts, each read and put together when it is asked for.

    No more than one of them is in memory, so that no process needs to hold a state that lies on several. Raises
    ValueError where pieces do not make up a tensor, and what safetensors raises.
    """

    def __init__(self, whole: Path, parts: Sequence[Path], slot: int) -> None:
        self._slot = slot
        self._whole, self._parts = _opened(whole), [_opened(part) for part in parts]
        self._places: dict[str, list[tuple[Any, tuple[int, ...]]]] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for file in self._parts:
            told = json.loads((file.metadata() or {}).get(_SHARDING, "{}"))
            for name in file.keys():  # noqa: SIM118
                self._places.setdefault(name, []).append((file, tuple(told[name][_OFFSETS][1:])))
                self._shapes[name] = tuple(told[name][_WHOLE])
        self._own = list(self._whole.keys())

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *self._places])

    def __len__(self) -> int:
        return len(self._own) + len(self._places)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._places:
            if name not in self._own:
                raise KeyError(name)
            return self._row(self._whole, name)
        shape = self._shapes[name]
        found = torch.empty(1, math.prod(shape))
        reached = 0
        for file, offset in sorted(self._places[name], key=lambda place: place[1]):
            values = self._row(file, name)[0]
            begin, end = Piece(values, offset, shape).cut
            if begin != reached or end > found.shape[1]:
                raise ValueError(f"the pieces of {name} do not make it up")
            found[0, begin:end] = values.reshape(-1)
            reached = end
        if reached != found.shape[1]:
            raise ValueError(f"the pieces of {name} do not make it up")
        return found.view(1, *shape)

    def _row(self, file: Any, name: str) -> Tensor:
        row: Tensor = file.get_slice(name)[self._slot : self._slot + 1]
        if len(row) != 1:
            raise ValueError(f"{name} has no run {self._slot}")
        return row

    def digest(self) -> str:
        """Return the run's digest, of what the files hold now; one tensor is in memory at a time."""
        parts = [
            digest_of(_Read({name: partial(self._flat, file, name) for name in file.keys()}))  # noqa: SIM118
            for file in self._parts
        ]
        own = {name: partial(self._array, name) for name in self._own}
        known = {name: partial(np.asarray, array) for name, array in named_digests(parts).items()}
        return digest_of(_Read(own | known))

    def _array(self, name: str) -> Array:
        return self._row(self._whole, name)[0].numpy()

    def _flat(self, file: Any, name: str) -> Array:
        return self._row(file, name)[0].reshape(-1).numpy()


def _opened(path: Path) -> Any:
    return safe_open(path, framework="pt")


class _Read(Mapping[str, Array]):
    """Arrays that are read when they are asked for, and not kept."""

    def __init__(self, made: Mapping[str, Callable[[], Array]]) -> None:
        self._made = made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)

    def __getitem__(self, name: str) -> Array:
        return self._made[name]()
