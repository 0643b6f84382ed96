"""A run on two processes, killed while it saves and while it trains, by a disk and by signals, also on a real Ray.

Every kill is a real one; what goes on afterwards must end with the bytes of a study that nobody touched.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.layout import PackKeys
from jobs.store import committed, open_store
from jobs.study_file import parse_study
from orchestrator.clusters import Cluster
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from tests.bitwise.crashing import KILLED
from tests.bitwise.drives import final
from tests.raylets import processes_with

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(280),
    # What DeepSpeed itself uses of torch is on its way out there.
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning"),
]
ROOT = Path(__file__).parents[2]
STUDY = """\
study: two
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {huggingface: gpt_neox, layers: 2, width: 16, heads: 2, dropout: 0.1}
optimizer: {learning_rate: 3e-3}
training: {steps: 300, batch_size: 8}
engine: ENGINE
probes: {every: 100}
checkpoints: {milestones: [100], rolling: {every: 20}}
seeds: {design: paired, count: 1}
"""
ENGINES = [
    "{processes: 2}",
    "{processes: 2, sharding: fsdp}",
    *(f"{{name: deepspeed, stage: {n}}}" for n in (1, 2, 3)),
    *(f"{{name: deepspeed, stage: {n}, offload: true}}" for n in (2, 3)),
]
# The disk fails at the operation whose number is given; without one nothing fails.
DRIVE = """
import sys
from pathlib import Path
from tests.bitwise.crashing import Disk
from tests.e2e.test_processes import driven
from orchestrator.clusters.inline import InlineCluster
with Disk(int(sys.argv[3]), "torn", really=True).in_place() as disk:
    driven(Path(sys.argv[1]), sys.argv[2], lambda: InlineCluster(cpus=2))
print(disk.count)
"""


def driven(folder: Path, engine: str, cluster_of: Callable[[], Cluster]) -> Library:
    """Do what `seedbed run` does."""
    made = parse_study(STUDY.replace("ENGINE", engine), "study.yaml", folder.parent)
    library = Library(open_store(folder, create=True))
    register(library.store, made, "study.yaml")
    cluster = cluster_of()
    try:
        drive(made, library.store, cluster, calibrate=False)
    finally:
        cluster.close()
    return library


def inline() -> Cluster:
    return InlineCluster(cpus=2)


def process(folder: Path, engine: str, fails_at: int = -1) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", DRIVE, str(folder), engine, str(fails_at)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEEDBED_TEST_STORE": str(folder)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def fellows(mark: str) -> list[int]:
    return [pid for pid, command in processes_with(mark).items() if "workers.engines.fellow" in command]


def wait_for(what: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.02)


def has_saved(folder: Path, steps: int) -> bool:
    """Return whether a pack has committed a checkpoint at or after a step."""
    if not (folder / "format.json").exists():
        return False
    store = open_store(folder)
    packs = {key.split("/")[1] for key in store.keys("packs/")}
    keys = [key for pack in packs for key in committed(store, PackKeys(pack).checkpoints)]
    return any(int(key.rpartition("/")[2].partition(".")[0]) >= steps for key in keys)


@pytest.fixture(scope="module", params=ENGINES)
def calm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, object, int]:
    """Return an engine, the end of a study that nobody touched, and how many operations of a disk it took."""
    if "deepspeed" in request.param:
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    folder = tmp_path_factory.mktemp("calm") / "store"
    with process(folder, request.param) as untouched:
        said, _ = untouched.communicate(timeout=200)
    assert untouched.returncode == 0
    return request.param, final(Library(open_store(folder)).collect("two")), int(said.splitlines()[-1])


def test_a_process_that_dies_while_it_saves(calm: tuple[str, object, int], tmp_path: Path) -> None:
    engine, end, operations = calm
    store = tmp_path / "store"
    with process(store, engine, fails_at=operations * 2 // 3) as dying:
        dying.communicate(timeout=200)
    assert dying.returncode == KILLED
    wait_for(lambda: not fellows(str(store)), 20)
    library = driven(store, engine, inline)
    assert final(library.collect("two")) == end
    assert len(attempts_of(library.store, library.declared("two").runs[0].id)) == 2


def test_processes_that_are_killed_while_they_train(calm: tuple[str, object, int], tmp_path: Path) -> None:
    """First the second process, which the first survives; then the first, which takes the second along."""
    engine, end, _ = calm
    store = tmp_path / "store"
    with process(store, engine) as driver:
        wait_for(lambda: has_saved(store, 20))
        for pid in fellows(str(store)):
            os.kill(pid, signal.SIGKILL)
        wait_for(lambda: has_saved(store, 100))
        driver.kill()
        driver.communicate(timeout=60)
    wait_for(lambda: not fellows(str(store)), 20)
    library = driven(store, engine, inline)
    assert final(library.collect("two")) == end


@pytest.mark.ray
def test_on_a_real_ray_a_lost_process_is_a_crash_that_is_tried_again(
    calm: tuple[str, object, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, end, _ = calm
    store = tmp_path / "store"
    monkeypatch.setenv("SEEDBED_TEST_STORE", str(store))
    killed: list[int] = []

    def kill() -> None:
        wait_for(lambda: has_saved(store, 20))
        killed.extend(fellows(str(store)))
        for pid in killed:
            os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    library = driven(store, engine, lambda: RayCluster(cpus=2))
    killer.join()
    assert len(killed) == 1
    assert final(library.collect("two")) == end
    attempts = attempts_of(library.store, library.declared("two").runs[0].id)
    assert [attempt.attempt for attempt in attempts] == [1, 2]
