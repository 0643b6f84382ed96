"""Checkpoints: the pack's tensors in one safetensors file, committed by a manifest; and the way back.

Every tensor has a leading run axis, so one run's slice is read without its neighbours, and slices from
several packs make up a new one. The manifest names each run's slice by its SHA-256 and by its parents, back to
step 0. No state of a random generator is stored, because every draw is keyed by seed, purpose and step.
Of a run whose moments lie on several processes each has saved its part (`parts.py`), which the manifest names, too.

Not here: when to save, and which to drop (`saver.py`).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from safetensors import safe_open

from jobs.claims import Attempt, counts
from jobs.digests import digest_of
from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.store import Manifest, Store, commit, committed, manifest_key, read_manifest
from workers.parts import named_digests
from workers.stored_slice import CheckedSlice, StoredRows, StoredSlice, readable

Kind = Literal["milestone", "rolling"]
State = Mapping[str, torch.Tensor]
log = logging.getLogger(__name__)

_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint8: "U8",
}
_HEADER_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class Link:
    """A checkpoint of a run, by its slice."""

    run_id: str
    step: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Slice:
    """One run's part of a checkpoint.

    sha256   of its tensors' names and bytes, in the order of their names
    parents  what it was trained on from: the checkpoints at which it was taken up again since the last milestone,
             newest first, and that milestone; of a fork's first, the parent's; none for step 0 of a fresh run
    """

    run_id: str
    attempt: int
    slot: int
    sha256: str
    parents: tuple[Link, ...]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Slice":
        """Return the slice that a manifest tells of; raises KeyError or TypeError for anything else."""
        parents = tuple(Link(**link) for link in fields["parents"])
        return cls(**{**fields, "parents": parents})


@dataclass(frozen=True, slots=True)
class Saved:
    """A committed checkpoint in which a run can be found."""

    step: int
    kind: Kind
    pack_id: str
    slice: Slice
    manifest: Manifest

    @property
    def link(self) -> Link:
        """Return the name of this slice for its children."""
        return Link(self.slice.run_id, self.step, self.slice.sha256)


def slice_digest(state: State, slot: int, parts: Sequence[Manifest] = ()) -> str:
    """Return the SHA-256 over one run's slice of every tensor, names and bytes in the order of the names.

    What was saved in `parts` counts by the digests in their manifests.
    """
    return digest_of(arrays_of(state, slot) | named_digests(part.extra["slices"][slot] for part in parts))


def arrays_of(state: State, slot: int) -> dict[str, NDArray[Any]]:
    """Return one run's slice of every tensor."""
    return {name: tensor[slot].detach().cpu().numpy() for name, tensor in state.items()}


def save(
    store: Store,
    keys: PackKeys,
    step: int,
    kind: Kind,
    state: State,
    slices: Sequence[Slice],
    environment: str,
    parts: Sequence[Manifest] = (),
) -> Manifest:
    """Commit the pack's state at `step` and return its manifest.

    `slices` are the runs in it that are alive, `environment` its fingerprint, `parts` what is durable of it already.
    """

    def write(path: Path) -> dict[str, Any]:
        write_tensors(path, state)
        told = {"step": step, "kind": kind, "environment": environment, "runs": [asdict(part) for part in slices]}
        return told | ({"parts": [_named(part) for part in parts]} if parts else {})

    return commit(store, keys.checkpoint(step), write)


def _named(part: Manifest) -> dict[str, Any]:
    return {"key": part.key, "sha256": part.sha256, "size_bytes": part.size_bytes}


def write_tensors(path: Path, state: State, header_of_file: Mapping[str, str] | None = None) -> None:
    """Write tensors as one safetensors file, streamed: nothing is copied, and a full disk is an OSError.

    The library's own writer copies all bytes while it holds the interpreter, so that training beside it stands
    still, and its error for a full disk is no OSError. The format is a length, a JSON header, and the bytes.
    """
    # Largest items first, then names: so every tensor lies aligned, as the library writes it.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    arrays, end = [], 0
    header: dict[str, Any] = {"__metadata__": dict(header_of_file)} if header_of_file else {}
    for name in names:
        tensor = state[name].detach().cpu().contiguous()
        data = tensor.reshape(-1).view(torch.uint8).numpy().data
        header[name] = {
            "dtype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + data.nbytes],
        }
        end += data.nbytes
        arrays.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for data in arrays:
            file.write(data)


def discard(store: Store, keys: PackKeys, step: int, parts: int = 0) -> None:
    """Remove a rolling checkpoint: first it stops counting, then its bytes go."""
    for key in (keys.checkpoint(step), *(keys.part(step, number, parts) for number in range(parts))):
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
                saved = read_saved(store, key)
            except (Corrupt, NotFound) as error:
                log.warning("checkpoint left out: %s", error)
                continue
            for one in saved:
                mine = (one.slice.run_id, one.slice.attempt) == (attempt.run_id, attempt.attempt)
                if mine and counts(one.step, attempt.attempt, attempts):
                    found[one.step] = one
    return found


def read_saved(store: Store, key: str) -> list[Saved]:
    """Return what the manifest of a checkpoint says, run by run; raises NotFound, Corrupt."""
    manifest = read_manifest(store, key)
    extra, pack_id = manifest.extra, key.split("/")[1]
    try:
        parts = [Slice.of(part) for part in extra["runs"]]
        return [Saved(int(extra["step"]), extra["kind"], pack_id, part, manifest) for part in parts]
    except (KeyError, TypeError) as error:
        raise Corrupt(manifest_key(key), f"is not the manifest of a checkpoint ({error})") from None


def part_keys(manifest: Manifest) -> list[str]:
    """Return the keys of a checkpoint's parts; raises Corrupt for parts of another pack or another step."""
    try:
        keys = [str(part["key"]) for part in manifest.extra.get("parts", ())]
    except (KeyError, TypeError) as error:
        raise Corrupt(manifest_key(manifest.key), f"names no parts ({error})") from None
    own = PackKeys(manifest.key.split("/")[1])
    if keys != [own.part(int(manifest.extra["step"]), number, len(keys)) for number in range(len(keys))]:
        raise Corrupt(manifest_key(manifest.key), "names parts of another checkpoint")
    return keys


def read_slice(store: Store, saved: Saved) -> State:
    """Return one run's tensors [1, …]; its neighbours' bytes are not read.

    Of a checkpoint in parts they are checked as a whole, and then read once more when they are asked for. Raises
    Corrupt where they are not what was committed, NotFound where a file is gone.
    """
    key, slot = saved.manifest.key, saved.slice.slot
    parts = part_keys(saved.manifest)
    if parts:
        stored = StoredSlice(store, key, parts, slot)
        stored.check(saved.slice.sha256)
        return stored
    path = store.local(key)
    with readable(key), safe_open(path, framework="pt") as file:
        row = {name: file.get_slice(name)[slot : slot + 1] for name in file.keys()}  # noqa: SIM118
    if any(len(part) != 1 for part in row.values()) or slice_digest(row, 0) != saved.slice.sha256:
        raise Corrupt(key, f"the slice of run {saved.slice.run_id} differs from its manifest")
    return row


def read_rows(store: Store, saved: Sequence[Saved]) -> State:
    """Return the state of a pack from one slice per run, in their order; raises as `read_slice` does.

    Of checkpoints in parts nothing is read yet (`StoredRows`).
    """
    if all(part_keys(one.manifest) for one in saved):
        return stored_rows(store, saved)
    return join([read_slice(store, one) for one in saved])


def stored_rows(store: Store, saved: Sequence[Saved]) -> StoredRows:
    """Return the state of a pack whose runs were saved in parts: each byte is read once, by who takes it up."""
    return StoredRows(
        [
            CheckedSlice(store, one.manifest.key, part_keys(one.manifest), one.slice.slot, one.slice.sha256)
            for one in saved
        ]
    )


def join(rows: Sequence[State]) -> State:
    """Return the state of a pack from one slice per run, in their order; of one run the slice itself."""
    if len(rows) == 1:
        return rows[0]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
