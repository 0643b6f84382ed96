"""Checkpoints: the pack's tensors in one safetensors file, committed by a manifest; and the way back.

Every tensor has a leading run axis, so one run's slice is read without its neighbours, and slices from
several packs make up a new one. The manifest names each run's slice by its SHA-256 and its parent, back to
step 0. No state of a random generator is stored, because every draw is keyed by seed, purpose and step.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save as serialised

from jobs.claims import Attempt, counts
from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.store import Manifest, Store, commit, committed, manifest_key, read_manifest, verified

Kind = Literal["milestone", "rolling"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slice:
    """One run's part of a checkpoint.

    sha256         of its tensors' names and bytes, in the order of their names
    parent_step    the step of the checkpoint that it was trained on from; -1 for the first of a run
    parent_sha256  that checkpoint's slice; empty for the first of a run
    """

    run_id: str
    attempt: int
    slot: int
    sha256: str
    parent_step: int
    parent_sha256: str


@dataclass(frozen=True, slots=True)
class Saved:
    """A committed checkpoint in which a run can be found."""

    step: int
    pack_id: str
    slice: Slice
    manifest: Manifest


def slice_digest(state: Mapping[str, torch.Tensor], slot: int) -> str:
    """Return the SHA-256 over one run's slice of every tensor, names and bytes in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        part = state[name][slot].detach().contiguous().cpu()
        digest.update(f"{name}{tuple(part.shape)}{part.dtype}".encode())
        digest.update(part.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(
    store: Store, keys: PackKeys, step: int, kind: Kind, state: Mapping[str, torch.Tensor], slices: Sequence[Slice]
) -> None:
    """Commit the pack's state at `step`; `slices` are the runs in it that are alive."""

    def write(path: Path) -> dict[str, Any]:
        # Written by Python and not by the library, whose own error for a full disk is no OSError.
        path.write_bytes(serialised({name: tensor.detach().contiguous().cpu() for name, tensor in state.items()}))
        return {"step": step, "kind": kind, "runs": [asdict(part) for part in slices]}

    commit(store, keys.checkpoint(step), write)


def discard(store: Store, keys: PackKeys, step: int) -> None:
    """Remove a rolling checkpoint: first it stops counting, then its bytes go."""
    key = keys.checkpoint(step)
    store.delete(manifest_key(key))
    store.delete(key)


def checkpoints_of(store: Store, attempts: Sequence[Attempt]) -> dict[int, Saved]:
    """Return by step the checkpoints from which the run with these attempts may go on.

    What a superseded attempt saved past the point where a later one resumed is not among them.
    """
    found: dict[int, Saved] = {}
    for attempt in attempts:
        for key in committed(store, PackKeys(attempt.pack_id).checkpoints):
            try:
                manifest = read_manifest(store, key)
            except (Corrupt, NotFound) as error:
                log.warning("checkpoint left out: %s", error)
                continue
            step = int(manifest.extra["step"])
            parts = [Slice(**part) for part in manifest.extra["runs"]]
            mine = [p for p in parts if (p.run_id, p.attempt) == (attempt.run_id, attempt.attempt)]
            if mine and counts(step, attempt.attempt, attempts):
                found[step] = Saved(step, attempt.pack_id, mine[0], manifest)
    return found


def load(store: Store, saved: Sequence[Saved]) -> dict[str, torch.Tensor]:
    """Return the state that is made of one slice per run, in the order of `saved`; every slice is verified.

    Raises Corrupt where a file or a slice is not what was committed.
    """
    paths = {part.manifest.key: verified(store, part.manifest) for part in saved}
    rows: list[dict[str, torch.Tensor]] = []
    for part in saved:
        with safe_open(paths[part.manifest.key], framework="pt") as file:
            slot = part.slice.slot
            rows.append({name: file.get_slice(name)[slot : slot + 1] for name in file.keys()})  # noqa: SIM118
        if slice_digest(rows[-1], 0) != part.slice.sha256:
            raise Corrupt(part.manifest.key, f"the slice of run {part.slice.run_id} differs from its manifest")
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
