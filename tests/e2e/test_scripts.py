"""Scripts of a user's own by the real command line: killed, torn, moved away from their folder, and on a real Ray.

The script of these tests takes down what it is told to, in its first attempt; what goes on afterwards must end with the
bytes of a study that nobody touched.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.layout import file_key
from jobs.pack import PackRequest, PackRun, SeedsSpec, put_request
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from tests.bitwise.crashing import KILLED
from tests.bitwise.drives import final
from tests.cli import invoke
from tests.workers.test_scripted import gone, pid_in

pytestmark = pytest.mark.timeout(280)
slow = pytest.mark.slow  # the others take what `make test-system` can spare: three of them, 30 s of one core
ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "own_script.py"
STUDY = """\
study: mine
engine: {command: python train.py}
optimizer: {learning_rate: 0.05}
training: {steps: 60, batch_size: 8}
probes: {every: 5}
checkpoints: {milestones: [30], rolling: {every: 10}}
seeds: {design: crossed, init: 1, data: 2}
success: {metric: heldout.accuracy, threshold: 0.5}
"""
# Before the last line of the example's loop: SEEDBED_TEST_DIES says what the first attempt takes down at step 47.
DIES = """\
    if step == 47 and run.attempt == 1 and os.environ.get("SEEDBED_TEST_DIES"):
        guard = os.getppid()
        pack = int(open(f"/proc/{guard}/stat").read().rpartition(")")[2].split()[1])
        os.kill({"script": os.getpid(), "guard": guard, "pack": pack}[os.environ["SEEDBED_TEST_DIES"]], 9)
        time.sleep(60)
"""
FOREVER = """\
import os, time, seedbed
seedbed.log(1, loss=0.5)
open(os.environ["SEEDBED_TEST_MARK"], "w").write(str(os.getpid()))
while True:
    time.sleep(0.01)
"""
# The disk fails at the operation whose number is given; without one nothing fails.
ON_A_DISK = """
import sys
from orchestrator.cli import app
from tests.bitwise.crashing import Disk
fails_at, *arguments = sys.argv[1:]
with Disk(int(fails_at), "torn", really=True).in_place() as disk:
    try:
        app(arguments)
    finally:
        print(disk.count)
"""


def written(folder: Path) -> Path:
    """Put the study and its script into a folder."""
    folder.mkdir()
    head, loop, tail = EXAMPLE.read_text().partition("    last = seedbed.stopping()\n")
    (folder / "train.py").write_text("import os, time\n" + head + DIES + loop + tail)
    (folder / "study.yaml").write_text(STUDY)
    return folder / "study.yaml"


def seedbed(*arguments: str, dies: str = "", fails_at: int = -1) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SEEDBED_TEST_DIES": dies}
    return subprocess.run(
        [sys.executable, "-c", ON_A_DISK, str(fails_at), *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def run(study: Path, store: Path, dies: str = "", fails_at: int = -1) -> "subprocess.CompletedProcess[str]":
    words = ("run", str(study), "--store", str(store), "--cluster", "inline", "--cpus", "1", "--no-report")
    return seedbed(*words, dies=dies, fails_at=fails_at)


def end_of(store: Path) -> object:
    return final(Library(open_store(store)).collect("mine"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, object, int]:
    """Return a study file, the end of its untouched runs, and how many operations of a disk they took."""
    folder = tmp_path_factory.mktemp("calm")
    study = written(folder / "beside")
    done = run(study, folder / "store")
    assert done.returncode == 0, done.stdout + done.stderr
    return study, end_of(folder / "store"), int(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("dies", ["script", pytest.param("guard", marks=slow), pytest.param("pack", marks=slow)])
def test_whatever_dies_the_same_command_ends_alike(calm: tuple[Path, object, int], tmp_path: Path, dies: str) -> None:
    """With the pack goes the whole command, which trains in its own process here."""
    study, end, _ = calm
    done = run(study, tmp_path / "store", dies)
    while done.returncode == -signal.SIGKILL:  # each of the two runs takes it down once
        done = run(study, tmp_path / "store", dies)
    assert done.returncode == 0, done.stdout + done.stderr
    assert end_of(tmp_path / "store") == end
    store = open_store(tmp_path / "store")
    for one in Library(store).declared("mine").runs:
        first, second = (attempt.resumed_step for attempt in attempts_of(store, one.id))
        # A pack that is killed may not have committed the checkpoint at 40 that the script had handed over.
        assert (first, second) in ([(-1, 40), (-1, 30)] if dies == "pack" else [(-1, 40)])
    assert "Everything fits" in invoke("verify", "mine", "--store", store.url, "--spans", "4")


@slow
@pytest.mark.parametrize("part", [0.35, 0.65, 0.95])
def test_a_disk_that_tears_what_is_committed(calm: tuple[Path, object, int], tmp_path: Path, part: float) -> None:
    study, end, operations = calm
    died = run(study, tmp_path / "store", fails_at=int(operations * part))
    assert died.returncode == KILLED
    done = run(study, tmp_path / "store")
    assert done.returncode == 0, done.stdout + done.stderr
    assert end_of(tmp_path / "store") == end


@slow
def test_a_study_in_the_store_needs_its_folder_no_more(calm: tuple[Path, object, int], tmp_path: Path) -> None:
    """Submitted to nobody, then resumed from the store alone; and everything that reads a store reads its runs."""
    _, end, _ = calm
    study = written(tmp_path / "beside")
    store = str(tmp_path / "store")
    invoke("submit", str(study), "--store", store)
    shutil.rmtree(study.parent)
    invoke("resume", "mine", "--store", store, "--cluster", "inline", "--cpus", "1")
    assert end_of(tmp_path / "store") == end
    told = json.loads(invoke("status", "mine", "--store", store, "--json"))
    assert [(one["launched"], one["finished"]) for one in told[0]["conditions"]] == [(2, 2)]
    invoke("estimate", "success", "mine", "--store", store)
    invoke("report", "mine", "--store", store)
    first = Library(open_store(store)).declared("mine").runs[0].id
    invoke("replay", f"{first}@30", "--store", store, "--out", str(tmp_path / "files"))
    assert (tmp_path / "files" / "w.npy").exists()
    assert "at its checkpoints alone: 0, 30, 60" in str(seedbed("replay", f"{first}@31", "--store", store))
    assert "its state is the files of its checkpoints" in str(seedbed("export", "hf", "mine", "--store", store))


@slow
@pytest.mark.ray
def test_on_a_real_ray_a_lost_pack_is_tried_again(
    calm: tuple[Path, object, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, end, _ = calm
    monkeypatch.setenv("SEEDBED_TEST_DIES", "pack")
    made = parse_study(study.read_text(), str(study), study.parent)
    library = Library(open_store(tmp_path / "store", create=True))
    register(library.store, made, str(study))
    cluster = RayCluster(cpus=2)
    try:
        drive(made, library.store, cluster, calibrate=False)
    finally:
        cluster.close()
    assert final(library.collect("mine")) == end


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_no_script_outlives_its_pack(tmp_path: Path, name: str) -> None:
    """Killed, the pack can do nothing more; told to end, it ends a script that knows nothing of signals."""
    (tmp_path / "train.py").write_text(FOREVER)
    one = parse_study(STUDY, "mine.yaml", tmp_path).runs[0]
    store = open_store(tmp_path / "store", create=True)
    store.put(file_key(one.point.spec["engine"]["files"]["train.py"]), FOREVER.encode())
    runs = (PackRun(run_id=one.id, seeds=SeedsSpec.of(one.seeds)),)
    request = {"pack_id": "pack.0001", "condition": one.point.condition, "runs": runs}
    put_request(store, PackRequest(**request, rolling_every=10, threads=1, device="cpu"))
    (tmp_path / "tmp").mkdir()
    told = {"TMPDIR": str(tmp_path / "tmp"), "SEEDBED_TEST_MARK": str(tmp_path / "mark"), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-m", "workers", store.url, "pack.0001"], env=os.environ | told) as worker:
        script = pid_in(tmp_path / "mark", 60)
        worker.send_signal(getattr(signal, f"SIG{name}"))
        worker.wait(60)
    assert gone(script)
    end = time.monotonic() + 20
    while list((tmp_path / "tmp").glob("seedbed-*/files")):
        assert time.monotonic() < end, "its folder goes, too"
        time.sleep(0.02)
