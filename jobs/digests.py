"""The SHA-256 of named arrays: what a run's weights, a batch, or a held-out set are, in 64 digits."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RunningDigest:
    """The digest of arrays that come one after another, in the order of their names, and need not be kept."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._last = ""

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Add an array; raises ValueError where its name does not come after the last one's."""
        if name <= self._last:
            raise ValueError(f"{name} comes after {self._last}")
        self._last = name
        array = np.ascontiguousarray(array)
        self._digest.update(f"{name}{array.shape}{array.dtype.str};".encode())
        self._digest.update(array.reshape(-1).view(np.uint8).data)

    def hexdigest(self) -> str:
        """Return the digest of all arrays so far."""
        return self._digest.hexdigest()


def digest_of(named: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over name, shape, type and bytes of each array, in the order of the names."""
    digest = RunningDigest()
    for name in sorted(named):
        digest.add(name, named[name])
    return digest.hexdigest()
