"""Bit flips, truncations and exchanged files: none is read as good, each is named, and the rest stays readable.

pyarrow with its defaults passes 197 of 200 single bit flips in a shard unnoticed; the SHA-256 in the manifest is what
finds them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.records import METRICS
from jobs.store import LocalStore, committed, get_record, manifest_key, open_store, read_manifest, verified
from orchestrator.collector import Collector
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import one_command
from workers.checkpoint import read_saved, read_slice

# Two packs, so that whole files of one pack can stand in the place of the other's.
STUDY = """\
study: small
task: {name: parity, bits: 4, subset: 2, test_size: 8}
model: {family: mlp, width: 4}
optimizer: {learning_rate: 1e-2}
training: {steps: 4, batch_size: 4}
probes: {every: 2}
checkpoints: {milestones: [2], rolling: {every: 1}}
seeds: {design: paired, count: 4}
execution: {pack_width: 2}
"""
TRIES = 10_000


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    folder = tmp_path_factory.mktemp("corrupt") / "store"
    one_command(folder, STUDY)
    return open_store(folder)


def kind_of(key: str) -> str:
    """Return which kind of file a key names: files are exchanged within their kind."""
    names = ("attempts/", "proofs/", "studies/")
    inner = key.rpartition("/")[2]
    return next((name for name in names if key.startswith(name)), inner.partition(".")[2])


def files(store: LocalStore) -> list[str]:
    """Return every file that has a hash: the records, and what is committed by a manifest."""
    return [
        k for k in store.keys("") if not k.startswith("tables/") and not k.endswith("log.txt") and k != "format.json"
    ]


def read(store: LocalStore, key: str) -> None:
    """Read the file as everything that uses it does; raises Corrupt or NotFound where it is not as committed."""
    if key.endswith(manifest_key("")):
        verified(store, read_manifest(store, key.removesuffix(manifest_key(""))))
    elif store.exists(manifest_key(key)):
        verified(store, read_manifest(store, key))
    else:
        get_record(store, key)


def damaged(data: bytes, others: list[bytes], generator: np.random.Generator) -> bytes:
    """Return what is left of a file: a bit flipped, its end cut off, or another file of its kind in its place."""
    way = generator.integers(3)
    if way == 0 or (way == 2 and not others):
        place = int(generator.integers(8 * len(data)))
        changed = bytearray(data)
        changed[place // 8] ^= 1 << place % 8
        return bytes(changed)
    return data[: generator.integers(len(data))] if way == 1 else others[generator.integers(len(others))]


def damages(store: LocalStore, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield (key, bytes in its place), drawn at random."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    content = {key: store.get(key) for key in files(store)}
    keys = sorted(content)
    kinds: dict[str, list[str]] = {}
    for key in keys:
        kinds.setdefault(kind_of(key), []).append(key)
    for _ in range(count):
        key = keys[generator.integers(len(keys))]
        others = [content[other] for other in kinds[kind_of(key)] if content[other] != content[key]]
        yield key, damaged(content[key], others, generator)


def test_nothing_damaged_is_read_as_good(store: LocalStore, every: int) -> None:
    tried: dict[str, int] = {}
    for key, bad in damages(store, TRIES // every, seed=1):
        good = store.get(key)
        place = Path(store.url) / key
        place.write_bytes(bad)
        try:
            with pytest.raises((Corrupt, NotFound)) as told:
                read(store, key)
            assert told.value.key.removesuffix(manifest_key("")) == key.removesuffix(manifest_key(""))
        finally:
            place.write_bytes(good)
        tried[kind_of(key)] = tried.get(kind_of(key), 0) + 1
    assert sum(tried.values()) == TRIES // every
    assert {"parquet", "parquet.manifest.json", "safetensors", "safetensors.manifest.json", "attempts/"} <= set(tried)
    for key in files(store):
        read(store, key)


def test_a_damaged_slice_of_a_checkpoint_is_no_weights(store: LocalStore, every: int) -> None:
    """What a resuming worker reads: the slice's own hash, without the file's."""
    keys = [key for key in files(store) if key.endswith(".safetensors")]
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(2)))
    for number in range(2_000 // every):
        key = keys[number % len(keys)]
        good, place = store.get(key), Path(store.url) / key
        parts = read_saved(store, key)
        before = [read_slice(store, part) for part in parts]
        place.write_bytes(damaged(good, [store.get(other) for other in keys if other != key], generator))
        refused = 0
        for part, mine in zip(parts, before, strict=True):
            try:
                found = read_slice(store, part)
            except Corrupt:
                refused += 1
            else:
                # A flipped bit in a neighbour's slice leaves this one readable, and as it was.
                assert all(torch.equal(found[name], mine[name]) for name in mine)
        place.write_bytes(good)
        assert refused or len(parts) > 1


def test_the_rest_stays_readable_and_each_finding_names_its_file(store: LocalStore, every: int) -> None:
    library = Library(store)
    declared = read_declared(store, "small")
    whole = library.collect("small")["metrics"]
    assert verify(store, declared, spans=0).findings == []
    for key, bad in damages(store, 100 // every, seed=3):
        if key.startswith("studies/"):
            continue  # without the study there is nothing to collect; `read_declared` refuses it
        good, place = store.get(key), Path(store.url) / key
        place.write_bytes(bad)
        try:
            findings = verify(store, declared, spans=0).findings
            named = {finding.key.removesuffix(manifest_key("")) for finding in findings}
            assert key.removesuffix(manifest_key("")) in named, key
            rows = Collector(store, declared).collect()["metrics"]  # from the shards, not from earlier tables
        finally:
            place.write_bytes(good)
        assert rows.schema == METRICS
        good_rows = set(map(str, whole.to_pylist()))
        assert set(map(str, rows.to_pylist())) <= good_rows
        is_needed = key.startswith(("attempts/",)) or "/shards/" in key
        assert (rows.num_rows == whole.num_rows) != is_needed, key


def test_a_pack_whose_shard_is_damaged_leaves_the_other_packs_rows(store: LocalStore) -> None:
    whole = Library(store).collect("small")
    packs = sorted(set(whole["attempts"]["pack_id"].to_pylist()))
    key = committed(store, PackKeys(packs[0]).shards)[0]
    good, place = store.get(key), Path(store.url) / key
    place.write_bytes(good[:-1])
    try:
        tables = Collector(store, read_declared(store, "small")).collect()
    finally:
        place.write_bytes(good)
    assert [(row["finding"], row["key"]) for row in tables["audit"].to_pylist()] == [("corrupt", key)]
    kept = set(map(str, tables["metrics"].to_pylist()))
    lost = {row["run_id"] for row in whole["metrics"].to_pylist() if str(row) not in kept}
    assert lost
    of_pack = {row["run_id"] for row in whole["attempts"].to_pylist() if row["pack_id"] == packs[0]}
    assert lost <= of_pack
