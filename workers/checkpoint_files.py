"""A folder of files as the state of a checkpoint, and the way back: for scripts, whose state nobody else can read.

Each file is a tensor of bytes [1, size] called `file.PATH`, so that a script's checkpoints have the form of all others:
one safetensors file, staged, hashed, committed by a manifest, one slice a run. Files are mapped, never read into memory
as a whole. What they are beside their path and their bytes (links, empty folders, times, permissions) is not kept.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from jobs.claims import Attempt
from jobs.errors import Corrupt, NotFound
from jobs.store import Store
from workers.checkpoint import Saved, checkpoints_of, log, slice_digest

FILE = "file."
_PART_BYTES = 1 << 26


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """Return the files below `folder`, each uint8 [1, size]; empty where there is none. They must not change."""
    return {f"{FILE}{path.relative_to(folder).as_posix()}": _bytes_of(path) for path in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(place) / name).is_file())


def _bytes_of(path: Path) -> torch.Tensor:
    if not path.stat().st_size:  # nothing can be mapped
        return torch.zeros(1, 0, dtype=torch.uint8)
    # Copy on write: torch takes no array that is read-only.
    return torch.from_numpy(np.memmap(path, np.uint8, mode="c"))[None]


def lay_out(store: Store, saved: Saved, folder: Path) -> None:
    """Write the files of a checkpoint into `folder`, which is empty or not there.

    Raises Corrupt where they are not what was committed, NotFound where the checkpoint is gone.
    """
    key, slot = saved.manifest.key, saved.slice.slot
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with safe_open(store.local(key), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                path = _place(folder, name, key)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as target:
                    for start in range(0, part.get_shape()[1], _PART_BYTES):
                        target.write(part[slot : slot + 1, start : start + _PART_BYTES].numpy().data)
    except (SafetensorError, ValueError, RuntimeError, IndexError) as error:
        raise Corrupt(key, f"cannot be read: {error}") from None
    if slice_digest(state_of(folder), 0) != saved.slice.sha256:
        raise Corrupt(key, f"the files of run {saved.slice.run_id} differ from its manifest")


def _place(folder: Path, name: str, key: str) -> Path:
    path = PurePosixPath(name.removeprefix(FILE))
    if not name.startswith(FILE) or path.is_absolute() or ".." in path.parts or not path.parts:
        raise Corrupt(key, f"holds {name!r}, which is no file of a script")
    return folder / path


def restore(store: Store, attempts: Sequence[Attempt], folder: Path) -> list[Saved]:
    """Lay the newest checkpoint of a run out in `folder` and return it; none, where there is none.

    One that cannot be read is left out, and the one before it is tried.
    """
    found = checkpoints_of(store, attempts)
    for step in sorted(found, reverse=True):
        try:
            lay_out(store, found[step], folder)
        except (Corrupt, NotFound) as error:
            log.warning("checkpoint at step %d left out: %s", step, error)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            return [found[step]]
    return []
