"""The SHA-256 of named arrays: what a run's weights, a batch, or a held-out set are, in 64 digits."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def digest_of(named: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 over name, shape, type and bytes of each array, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(named):
        array = np.ascontiguousarray(named[name])
        digest.update(f"{name}{array.shape}{array.dtype.str};".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
