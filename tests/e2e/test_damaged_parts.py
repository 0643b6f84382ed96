"""A checkpoint in parts that was damaged: `verify` names the file, and no run goes on from it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.findings import Finding
from jobs.layout import PackKeys
from jobs.local_files import hash_file
from jobs.store import Store, committed, manifest_key, open_store, put_record, read_manifest
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command

pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    # What DeepSpeed itself uses of torch is on its way out there.
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
STUDY = """\
study: parted
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 1, width: 8, heads: 2, dropout: 0.1}
engine: ENGINE
optimizer: {learning_rate: 3e-3}
training: {steps: 12, batch_size: 8}
probes: {every: 6}
checkpoints: {milestones: [4], rolling: {every: 2}}
seeds: {design: paired, count: 1}
execution: {retries: 0}
"""
ENGINES = {"fsdp": "{processes: 2, sharding: fsdp}", "zero-2": "{name: deepspeed, stage: 2}"}
BEFORE, NEWEST = 6, 8  # the newest checkpoints of the run that was killed


@dataclass(frozen=True)
class Stores:
    """Two stores below a folder: `killed` of a run that was killed at step 9, `calm` of one that nobody touched."""

    folder: Path
    study: str
    end: object

    def store(self, name: str) -> Store:
        return open_store(self.folder / name / "store")


@pytest.fixture(scope="module", params=ENGINES)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    if "zero" in request.param:
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    folder, study = tmp_path_factory.mktemp("parted"), STUDY.replace("ENGINE", ENGINES[request.param])
    calm = final(one_command(folder / "calm" / "store", study, cpus=2))
    with killed_at(NEWEST + 1), suppress(Killed):
        one_command(folder / "killed" / "store", study, cpus=2)
    return Stores(folder, study, calm)


def found_in(store: Store, spans: int = 0) -> list[Finding]:
    return verify(store, Library(store).declared("parted"), spans=spans).findings


def pack_of(store: Store) -> PackKeys:
    (attempt,) = attempts_of(store, Library(store).declared("parted").runs[0].id)
    return PackKeys(attempt.pack_id)


def flip(store: Store, keys: PackKeys) -> None:
    place = store.local(keys.part(NEWEST, 1, 2))
    data = bytearray(place.read_bytes())
    data[-1] ^= 1
    place.write_bytes(data)


def lose(store: Store, keys: PackKeys) -> None:
    store.delete(keys.part(NEWEST, 1, 2))


def uncommit(store: Store, keys: PackKeys) -> None:
    store.delete(manifest_key(keys.part(NEWEST, 1, 2)))


def mix(store: Store, keys: PackKeys) -> None:
    """Put the bytes of another step in the place of a part."""
    data = store.get(keys.part(BEFORE, 1, 2))
    store.local(keys.part(NEWEST, 1, 2)).write_bytes(data)


def mix_with_care(store: Store, keys: PackKeys) -> None:
    """Put them there with a manifest that fits them."""
    mix(store, keys)
    key = keys.part(NEWEST, 1, 2)
    extra = read_manifest(store, keys.part(BEFORE, 1, 2)).extra | {"step": NEWEST}
    store.delete(manifest_key(key))
    sha256, size_bytes = hash_file(store.local(key), sync=False)
    put_record(store, manifest_key(key), {"key": key, "size_bytes": size_bytes, "sha256": sha256, "extra": extra})


def the_part(keys: PackKeys) -> str:
    return keys.part(NEWEST, 1, 2)


def its_manifest(keys: PackKeys) -> str:
    return manifest_key(keys.part(NEWEST, 1, 2))


def the_checkpoint(keys: PackKeys) -> str:
    return manifest_key(keys.checkpoint(NEWEST))


# A part without its manifest is still what the checkpoint's manifest says.
DAMAGES = [
    (flip, "corrupt", the_part, BEFORE),
    (lose, "missing", the_part, BEFORE),
    (uncommit, "missing", its_manifest, NEWEST),
    (mix, "corrupt", the_part, BEFORE),
    (mix_with_care, "corrupt", the_checkpoint, BEFORE),
]


def test_a_run_in_parts_that_is_sound_has_no_finding(stores: Stores) -> None:
    store = stores.store("calm")
    assert len(committed(store, pack_of(store).parts)) == 6, "two of each of three milestones: 0, 4, 12"
    assert found_in(store, spans=1) == []
    assert found_in(stores.store("killed")) == []


def test_the_command_names_the_part_that_is_damaged(stores: Stores, tmp_path: Path) -> None:
    shutil.copytree(stores.folder / "killed", tmp_path / "killed")
    store = open_store(tmp_path / "killed" / "store")
    flip(store, pack_of(store))
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", "verify", "parted", "--spans", "0"]
    told = subprocess.run(
        [*command, "--store", store.url, "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    findings = json.loads(told.stdout)["findings"]
    assert [(it["kind"], it["key"]) for it in findings] == [("corrupt", the_part(pack_of(store)))]


@pytest.mark.parametrize(("damage", "kind", "where", "step"), DAMAGES, ids=lambda it: getattr(it, "__name__", None))
def test_what_is_damaged_is_named_and_no_run_goes_on_from_wrong_bytes(
    stores: Stores,
    tmp_path: Path,
    damage: Callable[[Store, PackKeys], None],
    kind: str,
    where: Callable[[PackKeys], str],
    step: int,
) -> None:
    shutil.copytree(stores.folder / "killed", tmp_path / "killed")
    store = open_store(tmp_path / "killed" / "store")
    keys = pack_of(store)
    assert keys.checkpoint(NEWEST) in committed(store, keys.checkpoints)
    damage(store, keys)
    findings = found_in(store)
    assert [(finding.kind, finding.key) for finding in findings] == [(kind, where(keys))]
    assert (damage is not mix_with_care) or the_part(keys) in findings[0].detail
    tables = one_command(tmp_path / "killed" / "store", stores.study, cpus=2)
    assert final(tables) == stores.end
    attempts = attempts_of(store, Library(store).declared("parted").runs[0].id)
    assert [attempt.resumed_step for attempt in attempts] == [-1, step]
