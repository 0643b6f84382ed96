"""Parts of a checkpoint: what each process of a sharded run holds of the moments, and what its file says of that.

A part is a safetensors file in the form of torch's distributed checkpoints (`torch.distributed.checkpoint`, as
`HuggingFaceStorageReader` reads it, on any number of processes), whose header says where in the whole its pieces lie.
DCP itself would pickle its plans between the processes, and its metadata; here the manifest of the checkpoint names
every part with its SHA-256, and without all of them there is no checkpoint.

A run's digest is then over what is saved whole and over one digest for each process's pieces, so that each process
hashes its own.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
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


def places_in(header: Mapping[str, str] | None) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return what a header says of each tensor: the offset of its piece, and the whole's shape.

    Raises KeyError, TypeError and ValueError for the header of another kind of file.
    """
    told = json.loads((header or {})[_SHARDING])
    return {name: (tuple(place[_OFFSETS][1:]), tuple(place[_WHOLE])) for name, place in told.items()}


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
