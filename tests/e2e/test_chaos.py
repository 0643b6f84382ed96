"""Faults on a real Ray of several nodes: the bytes at the end are those of a calm run, no row lost and none doubled.

CI strikes once with each set of faults; `make chaos` as often as SEEDBED_CHAOS_FAULTS says. Figures are printed, and
no time is asserted: what must hold is what the store says.
"""

import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jobs.store import Store, open_store
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.scheduler import drive
from tests.e2e.chaos import PACE, Chaos, as_lines, figures, read_study, same_bytes, write_study
from tests.raylets import Raylets, raylets
from tests.s3 import CREDENTIALS, make_bucket, relay

ALONE_S = 630.0
FAULTS = int(os.environ.get("SEEDBED_CHAOS_FAULTS", "50"))
ON_DISK = Counter(worker=18, pause=2, hang=1, raylet=3, node=3, gcs=2, driver=3, disk=2)
IN_BUCKET = Counter({"worker": 6, "driver": 1, "cut": 3, "lost": 3, "503": 3})
ROUND = ON_DISK.total() + IN_BUCKET.total()
ROUNDS = -(-FAULTS // ROUND)
SINGLY = Counter(worker=6, hang=2, raylet=2, node=3, gcs=2, driver=3)
DISK_BYTES = 64 << 20

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1200)]


@dataclass
class Place:
    """Where the studies train: a Ray, the file that paces them, and a bucket behind a relay that may misbehave."""

    rays: Raylets
    pace: Path
    endpoint: str
    relayed: list[str]


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, list[float]]]:
    """Collect what was measured in all rounds, and print it."""
    found = figures()
    yield found
    print("\n" + "\n".join(as_lines(found)))  # noqa: T201


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the store of the same study without a fault."""
    folder = tmp_path_factory.mktemp("calm")
    made, store = read_study(write_study(folder)), open_store(folder / "store", create=True)
    register(store, made, "chaos.yaml")
    inline = InlineCluster(cpus=1)
    drive(made, store, inline, calibrate=False)
    inline.close()
    return store


@pytest.fixture(scope="module")
def place(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    pace, relayed = tmp_path_factory.mktemp("pace") / "pace", ["pass"]
    pace.write_text("0")

    def decide(method: str, path: str, number: int) -> str:
        # A cut loses everything; replies and errors are lost or told every other time.
        return relayed[0] if relayed[0] == "lose-request" or number % 2 else "pass"

    with relay(s3_endpoint, decide) as way:
        environment = CREDENTIALS | {"AWS_ENDPOINT_URL": way, PACE: str(pace)}
        with raylets(3, environment) as rays:
            yield Place(rays, pace, s3_endpoint, relayed)


def plan(faults: Counter[str], rng: np.random.Generator) -> list[str]:
    ordered = sorted(faults.elements())
    return [ordered[index] for index in rng.permutation(len(ordered))]


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Yield whether there is a disk of its own at the folder; only the machine's owner may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_stopped_and_full_on_a_disk(
    number: int, place: Place, calm: Store, measured: dict[str, list[float]], tmp_path: Path
) -> None:
    rng = np.random.default_rng(number)
    with small_disk(tmp_path / "disk") as mounted:
        faults = ON_DISK if mounted else ON_DISK - Counter(disk=2) + Counter(worker=2)
        file, store = write_study(tmp_path), open_store(tmp_path / "disk" / "store", create=True)
        disk = tmp_path / "disk" if mounted else None
        chaos = Chaos(place.rays, store, file, place.pace, rng, plan(faults, rng), measured, disk=disk)
        chaos.run()
        print(f"\nround {number}: {dict(chaos.struck)}")  # noqa: T201
        assert chaos.struck == faults
        same_bytes(store, calm, read_study(file))


@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_and_cut_off_from_a_bucket(
    number: int, place: Place, calm: Store, measured: dict[str, list[float]], tmp_path: Path
) -> None:
    rng, bucket = np.random.default_rng(1000 + number), f"chaos-{secrets.token_hex(4)}"
    make_bucket(place.endpoint, bucket)
    with pytest.MonkeyPatch.context() as patch:  # the test itself asks the server, and not the relay
        patch.setenv("AWS_ENDPOINT_URL", place.endpoint)
        store = open_store(f"s3://{bucket}/store", create=True)
    file = write_study(tmp_path)
    chaos = Chaos(place.rays, store, file, place.pace, rng, plan(IN_BUCKET, rng), measured, place.relayed, fast_s=0.04)
    chaos.run()
    print(f"\nround {number}: {dict(chaos.struck)}")  # noqa: T201
    assert chaos.struck == IN_BUCKET
    same_bytes(store, calm, read_study(file))


@pytest.mark.slow  # the same faults as in a round, in which they overlap
def test_one_fault_at_a_time(place: Place, calm: Store, tmp_path: Path) -> None:
    rng, alone = np.random.default_rng(2000), figures()
    file, store = write_study(tmp_path), open_store(tmp_path / "store", create=True)
    told = plan(SINGLY, rng)
    chaos = Chaos(place.rays, store, file, place.pace, rng, told, alone, fast_s=0.1, slow_s=0.8, singly=True)
    chaos.run()
    print("\none fault at a time:\n" + "\n".join(as_lines(alone)))  # noqa: T201
    assert chaos.struck == SINGLY
    same_bytes(store, calm, read_study(file))


@pytest.mark.slow  # what CI tries of it: GCS and driver go away for seconds, one at a time
@pytest.mark.timeout(1800)
def test_packs_train_on_for_ten_minutes_without_gcs_and_driver(
    place: Place, calm: Store, measured: dict[str, list[float]], tmp_path: Path
) -> None:
    file, store = write_study(tmp_path), open_store(tmp_path / "store", create=True)
    chaos = Chaos(place.rays, store, file, place.pace, np.random.default_rng(0), [], measured)
    chaos.run_alone(ALONE_S)
    same_bytes(store, calm, read_study(file))
