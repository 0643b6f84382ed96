"""What every cluster must do: the fake, this process, and a real Ray."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.errors import ClusterError, StudyInterrupted
from jobs.layout import PackKeys
from jobs.pack import PackRequest, PackRun, SeedsSpec, put_request
from jobs.records import Status
from jobs.store import LocalStore, committed, get_record, open_store
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters import Cluster, News
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.collector import Collector
from orchestrator.declared import declare, register
from orchestrator.events import PackEnded, PackLost
from orchestrator.scheduler import drive
from tests.fakes import FakeCluster
from tests.orchestrator.conftest import STUDY


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Start Ray once for all of them."""
    cluster = RayCluster(cpus=2)
    yield cluster
    cluster.close()


def study(**changed: str) -> Study:
    lines = {line.partition(":")[0]: line for line in STUDY.splitlines()}
    lines |= {key: f"{key}: {value}" for key, value in changed.items()}
    return parse_study("\n".join(lines.values()), "tiny.yaml", Path())


def request_pack(store: LocalStore, made: Study, pack_id: str = "pack.0001", rolling_every: int = 5) -> str:
    runs = tuple(PackRun(run_id=r.id, seeds=SeedsSpec(**r.seeds.as_dict())) for r in made.runs[:3])
    condition = made.points[0].condition
    put_request(
        store,
        PackRequest(
            pack_id=pack_id, condition=condition, runs=runs, rolling_every=rolling_every, threads=1, device="cpu"
        ),
    )
    return pack_id


def wait_for(cluster: Cluster, ready: Callable[[list[News]], bool]) -> list[News]:
    """Poll until `ready`; the test's own timeout is the limit."""
    news: list[News] = []
    while not ready(news):
        news += cluster.poll(0.1)
    return news


def test_a_pack_ends_with_its_outcome_and_is_in_the_news_once(cluster: Cluster, store: LocalStore) -> None:
    pack_id = request_pack(store, study())
    cluster.launch(store.url, pack_id, 1)
    news = wait_for(cluster, bool)
    assert [type(item) for item in news] == [PackEnded]
    assert [run.status for run in news[0].outcome.runs] == [Status.FINISHED] * 3  # type: ignore[union-attr]
    assert cluster.poll(0.01) == []


def test_a_pack_that_was_carried_out_before_is_lost_and_not_trained_twice(cluster: Cluster, store: LocalStore) -> None:
    if isinstance(cluster, FakeCluster):
        pytest.skip("the fake has no process that claims a pack")
    pack_id = request_pack(store, study())
    for _ in range(2):
        cluster.launch(store.url, pack_id, 1)
        news = wait_for(cluster, bool)
    assert isinstance(news[0], PackLost)
    assert "exists already" in str(news[0].error)
    assert len(attempts_of(store, study().runs[0].id)) == 1


def test_a_stopped_pack_saves_and_is_lost_by_interruption(cluster: Cluster, store: LocalStore) -> None:
    pack_id = request_pack(store, study(training="{steps: 1000000, batch_size: 8}"), rolling_every=10**6)
    cluster.launch(store.url, pack_id, 1)
    if not isinstance(cluster, FakeCluster):
        keys = PackKeys(pack_id)
        wait_for(cluster, lambda _: any(key.endswith("manifest.json") for key in store.keys(keys.checkpoints)))
    cluster.stop(pack_id)
    cluster.stop("no such pack")
    news = wait_for(cluster, bool)
    assert isinstance(news[0], PackLost)
    assert isinstance(news[0].error, StudyInterrupted)
    if not isinstance(cluster, FakeCluster):
        assert len(store.keys(PackKeys(pack_id).checkpoints)) == 4, "step 0, and where it stopped"


def test_a_killed_pack_makes_no_news_and_the_next_one_trains(cluster: Cluster, store: LocalStore) -> None:
    endless = request_pack(store, study(training="{steps: 1000000, batch_size: 8}"), rolling_every=10**6)
    cluster.launch(store.url, endless, 1)
    if not isinstance(cluster, FakeCluster):
        wait_for(cluster, lambda _: bool(committed(store, PackKeys(endless).checkpoints)))
    cluster.kill(endless)
    cluster.kill(endless)
    cluster.kill("no such pack")
    following = request_pack(store, study(), "pack.0002")
    cluster.launch(store.url, following, 1)
    news = wait_for(cluster, bool)
    assert [(type(item), item.pack_id) for item in news] == [(PackEnded, following)]
    assert cluster.poll(0.05) == []


def test_a_process_takes_one_pack_after_another(cluster: Cluster, store: LocalStore) -> None:
    if isinstance(cluster, FakeCluster):
        pytest.skip("the fake has no process")
    processes = set()
    for number in range(3):
        others = study(seeds=f"{{design: paired, count: 3, first: {10 * number}}}")
        pack_id = request_pack(store, others, f"pack.{number:04d}")
        cluster.launch(store.url, pack_id, 1)
        assert isinstance(wait_for(cluster, bool)[0], PackEnded)
        processes.add(get_record(store, PackKeys(pack_id).claim)["pid"])
    assert len(processes) == 1


def test_timings_are_positive_and_for_every_number_of_threads(cluster: Cluster, store: LocalStore) -> None:
    register(store, study(), "tiny.yaml")
    timings = cluster.calibrate(store.url, study().points[0].condition, 5, (1, 2), 0.001)
    assert {timing.threads for timing in timings} == {1, 2}
    assert all(timing.seconds_per_step > 0 for timing in timings)
    widths = {timing.pack_width for timing in timings}
    assert 1 in widths
    assert max(widths) <= 8, "no wider than there are runs"


def test_the_machine_has_a_processor(cluster: Cluster) -> None:
    machine = cluster.machine()
    assert machine.cpus == 2
    assert 1 <= machine.packs_at_once <= 2


@pytest.mark.ray
def test_a_killed_worker_is_lost_at_once_and_the_drive_ends_with_the_same_bytes(
    ray_cluster: RayCluster, store: LocalStore, tmp_path: Path
) -> None:
    made = study(training="{steps: 800, batch_size: 8}", probes="{every: 100}", checkpoints="{rolling: {every: 50}}")
    killed: list[int] = []

    def kill(state: object) -> None:
        for key in store.keys("packs/"):
            keys = PackKeys(key.split("/")[1])
            half_way = key.endswith("50.safetensors.manifest.json") and not store.exists(keys.outcome)
            if half_way and not killed:
                killed.append(get_record(store, keys.claim)["pid"])
                os.kill(killed[0], signal.SIGKILL)

    state = drive(made, store, ray_cluster, kill, calibrate=False)
    assert killed
    assert state.counts() == {Status.FINISHED: 6}
    attempts = [attempts_of(store, run.id) for run in made.runs]
    assert any(len(of_run) == 2 and of_run[1].resumed_step >= 50 for of_run in attempts)
    calm = open_store(tmp_path / "calm", create=True)
    inline = InlineCluster(cpus=1)
    drive(made, calm, inline, calibrate=False)
    inline.close()
    declared = declare(made, "tiny.yaml")
    ours, theirs = Collector(store, declared).collect(), Collector(calm, declared).collect()
    columns = ["run_id", "step", "metric", "value", "correct", "total"]
    assert ours["metrics"].select(columns).equals(theirs["metrics"].select(columns))
    ends = [
        {row["run_id"]: row["sha256"] for row in tables["checkpoints"].to_pylist() if row["step"] == 800}
        for tables in (ours, theirs)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 6
    assert ours["audit"].num_rows == 0


@pytest.mark.ray
def test_ray_keeps_its_token(ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError, match="must be `token`"):
        RayCluster(cpus=1)
