"""A pack that does not fit into memory says so, whatever the error looked like where it arose."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from jobs.errors import OutOfMemory
from jobs.pack import PackRequest

# The CPU allocator of PyTorch raises a plain RuntimeError; these are its words, and those of its libraries.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")


@contextmanager
def out_of_memory(request: PackRequest) -> Iterator[None]:
    """Turn the errors of an allocator into OutOfMemory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = str(error).strip().partition("\n")[0]
        raise OutOfMemory(f"{len(request.runs)} runs do not fit on {request.device}: {first}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error is an allocator's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _WORDS)
