"""Checkpoints in parts: one digest however they are read, each byte once, DCP's own reader, and what does not fit."""

from pathlib import Path

import pytest
import torch

from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.store import Manifest, Store, manifest_key, open_store
from workers.checkpoint import Slice, discard, read_saved, read_slice, save, slice_digest, stored_rows
from workers.part_saver import PartSaver, Place, Taken
from workers.parts import Cut, Piece, whole_digest

KEYS, STEP, RUNS = PackKeys("p"), 3, 2
SHAPES = {"adamw.first.a": (5, 2), "adamw.second.a": (5, 2), "adamw.first.b": (3,)}


def whole(seed: int = 0) -> dict[str, torch.Tensor]:
    """Return a state of two runs: what is saved whole, and what lies in parts."""
    drawn = torch.Generator().manual_seed(seed)
    state = {name: torch.randn(RUNS, *shape, generator=drawn) for name, shape in SHAPES.items()}
    return state | {"model.a": torch.randn(RUNS, 5, 2, generator=drawn), "tally.steps": torch.tensor([3, 3])}


def pieces(state: dict[str, torch.Tensor], slot: int, flat: bool) -> list[dict[str, Piece]]:
    """Return three processes' pieces: rows of the tensors, or ranges of them; the last process has nothing of `b`."""
    found: list[dict[str, Piece]] = []
    for number in range(3):
        mine = {}
        for name, shape in SHAPES.items():
            rows = [(0, 2), (2, 4), (4, 5)][number] if len(shape) == 2 else [(0, 2), (2, 3), (3, 3)][number]
            begin, end = ([(0, 3), (3, 9), (9, 10)][number] if len(shape) == 2 else rows) if flat else rows
            values = state[name][slot].reshape(-1) if flat else state[name][slot]
            if begin < end:
                offset = (begin,) if flat or len(shape) == 1 else (begin, 0)
                mine[name] = Piece(values[begin:end], offset, shape)
        found.append(mine)
    return found


def cuts(flat: bool) -> list[Cut]:
    return [{name: piece.cut for name, piece in mine.items()} for mine in pieces(whole(), 0, flat)]


def saved(store: Store, flat: bool, seed: int = 0, step: int = STEP) -> Manifest:
    """Commit a checkpoint of two runs as three processes do it."""
    state = whole(seed)
    own = {name: tensor for name, tensor in state.items() if name not in SHAPES}
    of_runs = [pieces(state, slot, flat) for slot in range(RUNS)]
    jobs = [
        PartSaver(number, 3).take(Place(store.url, "p"), step, [run[number] for run in of_runs]) for number in range(3)
    ]
    for job in jobs[1:]:
        job()
    parts = Taken(jobs[0], 3, lambda: None).committed(store, KEYS, step)
    slices = [Slice(f"r{slot}", 1, slot, slice_digest(own, slot, parts), ()) for slot in range(RUNS)]
    return save(store, KEYS, step, "rolling", own, slices, "e", parts)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store", create=True)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "ranges"])
def test_what_was_saved_in_parts_is_read_whole(store: Store, flat: bool) -> None:
    found = read_saved(store, saved(store, flat).key)
    for slot, one in enumerate(found):
        row = read_slice(store, one)
        assert sorted(row) == sorted(whole())
        assert all(torch.equal(row[name][0], tensor[slot]) for name, tensor in whole().items())
        assert one.slice.sha256 == whole_digest(whole(), slot, cuts(flat)) != whole_digest(whole(1), slot, cuts(flat))


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_dcp_reads_the_parts_on_another_number_of_processes(store: Store) -> None:
    """Torch's own reader, which knows nothing of ours, has rows 1 to 3 of tensors that lie in rows 0, 2 and 4."""
    from torch.distributed.checkpoint import HuggingFaceStorageReader, load

    saved(store, flat=False)
    folder = store.local(KEYS.part(STEP, 0, 3)).parent
    into = {name: torch.zeros(RUNS, *shape) for name, shape in SHAPES.items()}
    load(into, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert all(torch.equal(into[name], whole()[name]) for name in SHAPES)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "ranges"])
def test_what_goes_on_reads_each_tensor_once(store: Store, flat: bool, reads: dict[tuple[str, str], int]) -> None:
    found = read_saved(store, saved(store, flat).key)
    (one,) = stored_rows(store, found[1:]).rows
    for name in sorted(SHAPES):
        assert torch.equal(one[name][0], whole()[name][1])
    with pytest.raises(Corrupt, match="was read before"):
        one["adamw.first.a"]
    one.finish()  # what nobody asked for is a part of the digest, too
    names = {name for _, name in reads}
    assert names == set(whole())
    assert set(reads.values()) == {1}
    both = stored_rows(store, found)
    assert all(torch.equal(both[name], whole()[name]) for name in sorted(both))


def test_what_goes_on_is_compared_with_what_was_committed(store: Store, tmp_path: Path) -> None:
    one = read_saved(store, saved(store, flat=True).key)[1]
    other = open_store(tmp_path / "other", create=True)
    saved(other, flat=True, seed=1)
    for key in (KEYS.part(STEP, 2, 3), KEYS.checkpoint(STEP)):
        place = store.local(key)
        right = place.read_bytes()
        for wrong in (right[:-1] + bytes([right[-1] ^ 1]), other.local(key).read_bytes()):
            place.write_bytes(wrong)
            rows = stored_rows(store, [one])
            assert all(rows[name].shape[1:] == tensor.shape[1:] for name, tensor in sorted(whole().items()))
            with pytest.raises(Corrupt, match="differs from its manifest") as told:
                rows.finish()
            assert told.value.key == key
        place.write_bytes(right)
    stored_rows(store, [one]).finish()


def test_no_part_is_missing_and_none_is_of_another_time(store: Store, tmp_path: Path) -> None:
    now = read_saved(store, saved(store, flat=True).key)[1]
    place = store.local(KEYS.part(STEP, 1, 3))
    right = place.read_bytes()
    other = open_store(tmp_path / "other", create=True)
    saved(other, flat=True, seed=1)
    place.write_bytes(other.local(KEYS.part(STEP, 1, 3)).read_bytes())
    with pytest.raises(Corrupt, match="differs from its manifest"):
        read_slice(store, now)
    place.write_bytes(right[: len(right) // 2])
    with pytest.raises(Corrupt, match="cannot be read"):
        read_slice(store, now)
    place.write_bytes(right)
    assert read_slice(store, now)
    place.write_bytes(store.local(KEYS.part(STEP, 2, 3)).read_bytes())
    with pytest.raises(Corrupt):
        read_slice(store, now)
    store.delete(KEYS.part(STEP, 1, 3))
    with pytest.raises(NotFound):
        read_slice(store, now)


def test_parts_alone_are_no_checkpoint_and_go_with_theirs(store: Store) -> None:
    state = whole()
    job = PartSaver(0, 3).take(
        Place(store.url, "p"), STEP, [pieces(state, slot, flat=False)[0] for slot in range(RUNS)]
    )

    def lost() -> None:
        raise NotFound("a process that saves no more")

    with pytest.raises(NotFound, match="saves no more"):
        Taken(job, 3, lost).committed(store, KEYS, STEP)
    assert store.exists(manifest_key(KEYS.part(STEP, 0, 3)))
    assert store.keys(KEYS.checkpoints) == []
    saved(store, flat=False, step=STEP + 1)
    discard(store, KEYS, STEP + 1, 3)
    assert store.keys(KEYS.checkpoints) == []
    assert [key for key in store.keys(KEYS.parts) if f"{STEP + 1:012d}" in key] == []
