"""What a step frees is kept for the next one, and a pack that does not fit into memory says so, whatever the error.

glibc gives the top of its heap back to the system at each large `free`: a pack of 16 runs at width 16 met 150 to 240
new pages a run and step, a pack of 4 at width 128 1,800. To keep them is worth 10 to 20 % of a step at width 16, and
4 % at 128.
"""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch

from jobs.errors import OutOfMemory
from jobs.pack import PackRequest

# The CPU allocator of PyTorch raises a plain RuntimeError; these are its words, and those of its libraries.
_WORDS = ("can't allocate memory", "not enough memory", "out of memory", "alloc_failed")

# Of <malloc.h>: from how many free bytes on the top of the heap goes back, and from which size on a tensor is mapped by
# itself and unmapped when it is freed. Larger ones stay apart, so that they leave no holes in the heap.
_M_TRIM_THRESHOLD, _MOST_KEPT = -1, (1 << 31) - 1
_M_MMAP_THRESHOLD, _MAPPED_APART = -3, 1 << 28


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Let this process keep what it frees meanwhile, and give all of it back at the end; nothing without glibc."""
    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, _MAPPED_APART)
        library.mallopt(_M_TRIM_THRESHOLD, _MOST_KEPT)
    try:
        yield
    finally:
        give_back()


def give_back() -> None:
    """Give what this process has freed back to the system; nothing without glibc."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


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
