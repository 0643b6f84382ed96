"""Each process of a sharded run takes its own part of a checkpoint up again: it reads that part, once, and no other.

What it read counts by the digest of the bytes that it took: the first process compares all of them with the manifest
(`CheckedSlice`). Where parts do not lie as the processes do (another number of them, another engine), nothing is taken
here, and the first one reads all parts and tells them tensor by tensor.
"""

import json
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jobs.digests import RunningDigest
from jobs.errors import StoreError
from jobs.store import open_store
from workers.engines.layouts import Layout
from workers.engines.world import World
from workers.parts import places_in
from workers.stored_slice import CheckedSlice

_UNREADABLE = "00" * 32  # the digest of nothing


def told_of(stored: CheckedSlice) -> str:
    """Return what tells every process where its part is."""
    return json.dumps([stored.store.url, stored.parts, stored.slot])


def take_parts(told: str, layout: Layout, world: World) -> list[str]:
    """Let each process take up its part of the moments; returns the digest of each, or nothing where they do not fit.

    Every process has to call it.
    """
    store_url, parts, slot = json.loads(told)
    file = _fitting(store_url, parts, layout, world)
    if int(world.sum(torch.tensor(int(file is not None)))) < world.size:
        return []
    digests = world.gather(torch.tensor([list(bytes.fromhex(_taken(file, slot, layout)))], dtype=torch.uint8))
    return [bytes(row).hex() for row in digests.tolist()]


def _fitting(store_url: str, parts: list[str], layout: Layout, world: World) -> Any:
    """Return the open file of this process's part, if it says that it holds what lies here, where it lies."""
    if len(parts) != world.size:
        return None
    here = {name: (piece.offset, piece.whole) for name, piece in layout.pieces().items()}
    try:
        file: Any = safe_open(open_store(store_url).local(parts[world.rank]), framework="pt")
        return file if places_in(file.metadata()) == here else None
    except (StoreError, SafetensorError, OSError, ValueError, KeyError, TypeError):
        return None  # the first process finds it, too, and says what it is


def _taken(file: Any, slot: int, layout: Layout) -> str:
    """Write a part's values to where they belong; returns their digest."""
    digest = RunningDigest()
    try:
        for name in sorted(file.keys()):
            # A copy: the file is mapped, and what is hashed shall be what is used.
            values: Tensor = file.get_slice(name)[slot : slot + 1][0].clone()
            layout.fill(name, values)
            digest.add(name, values.reshape(-1).numpy())
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError):
        return _UNREADABLE
    return digest.hexdigest()
