"""A head that comes after another: it finds what trains, and hears of it, stops it and ends it like its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.beats import newest_beats
from jobs.claims import attempts_of
from jobs.errors import StudyInterrupted
from jobs.layout import PackKeys
from jobs.pack import get_outcome
from jobs.process import is_surely_dead
from jobs.records import Status
from jobs.requests import request_stop
from jobs.store import LocalStore, committed, get_record, put_record
from jobs.study import Study
from orchestrator.clusters import Cluster
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.events import PackEnded, PackLost
from orchestrator.scheduler import drive
from orchestrator.seed_audit import pack_run
from orchestrator.state import State
from tests.contract.conftest import nodes_of_ray
from tests.contract.test_clusters import request_pack, study, wait_for
from tests.fakes import FakeCluster
from tests.raylets import free_port

pytestmark = pytest.mark.timeout(180)
NextHead = Callable[[], Cluster]
LONG = "{steps: 1000000, batch_size: 8}"
SEEDBED = [sys.executable, "-c", "from orchestrator.cli import main; main()"]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Start a Ray that outlives the heads of this file."""
    with nodes_of_ray(1, include_dashboard=False, dashboard_port=free_port()) as made:
        yield made


@pytest.fixture(params=["fake", pytest.param("ray", marks=pytest.mark.ray)])
def next_head(request: pytest.FixtureRequest) -> Iterator[NextHead]:
    """Return a function that ends the head before and returns the cluster as the next one sees it."""
    made: list[Any] = []

    def following() -> Cluster:
        if made:
            made[-1].close()
        if request.param == "fake":
            made.append(FakeCluster(earlier=made[-1] if made else None))
        else:
            made.append(RayCluster(address=request.getfixturevalue("nodes").address))
        return made[-1]  # type: ignore[no-any-return]

    yield following
    made[-1].close()


def begun(store: LocalStore, pack_id: str) -> bool:
    return bool(committed(store, PackKeys(pack_id).checkpoints))


def launched(next_head: NextHead, store: LocalStore, training: str) -> str:
    """Let a head launch a pack and leave it when it trains."""
    first = next_head()
    pack_id = request_pack(store, study(training=training), rolling_every=10**6)
    first.launch(store.url, pack_id, 1)
    if not isinstance(first, FakeCluster):
        wait_for(first, lambda _: begun(store, pack_id))
    return pack_id


def test_an_adopted_pack_is_in_the_news_of_the_next_head(next_head: NextHead, store: LocalStore) -> None:
    pack_id = launched(next_head, store, "{steps: 3000, batch_size: 8}")
    following = next_head()
    for _ in range(2):
        assert following.adopt(store.url, pack_id, 1)
    news = wait_for(following, bool)
    assert [(type(item), item.pack_id) for item in news] == [(PackEnded, pack_id)]
    assert following.poll(0.05) == []
    second = request_pack(store, study(), "pack.0002")
    following.launch(store.url, second, 1)
    assert isinstance(wait_for(following, bool)[0], PackEnded)
    if not isinstance(following, FakeCluster):
        processes = {get_record(store, PackKeys(it).claim)["pid"] for it in (pack_id, second)}
        assert len(processes) == 1, "an adopted process takes further packs"


def test_an_adopted_pack_is_stopped_like_ones_own(next_head: NextHead, store: LocalStore) -> None:
    pack_id = launched(next_head, store, LONG)
    following = next_head()
    assert following.adopt(store.url, pack_id, 1)
    following.stop(pack_id)
    news = wait_for(following, bool)
    assert isinstance(news[0], PackLost)
    assert isinstance(news[0].error, StudyInterrupted)


def test_an_adopted_pack_is_killed_without_news(next_head: NextHead, store: LocalStore) -> None:
    pack_id = launched(next_head, store, LONG)
    following = next_head()
    assert following.adopt(store.url, pack_id, 1)
    following.kill(pack_id)
    assert following.poll(0.5) == []
    if not isinstance(following, FakeCluster):
        wait_until(lambda: is_surely_dead(get_record(store, PackKeys(pack_id).claim)))


@pytest.mark.parametrize("kind", ["fake", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def test_what_cannot_be_found_is_not_adopted_and_ones_own_not_twice(
    kind: str, store: LocalStore, request: pytest.FixtureRequest
) -> None:
    made: Cluster
    if kind == "ray":
        made = RayCluster(address=request.getfixturevalue("nodes").address)
    else:
        made = FakeCluster() if kind == "fake" else InlineCluster(cpus=1)
    for name, actor in (("old.0001", {}), ("gone.0001", {"actor": "pack-process-that-ended"})):
        put_record(store, PackKeys(name).claim, {"pid": 1, **actor})
        assert not made.adopt(store.url, name, 1)
    assert made.poll(0.05) == []
    pack_id = request_pack(store, study())
    made.launch(store.url, pack_id, 1)
    if kind != "fake":
        wait_until(lambda: store.exists(PackKeys(pack_id).claim))
    made.adopt(store.url, pack_id, 1)
    news = wait_for(made, bool)
    assert [type(item) for item in news] == [PackEnded]
    assert made.poll(0.05) == []
    made.close()


@pytest.mark.ray
def test_a_process_that_prepares_packs_and_is_killed_is_replaced(nodes: Any, store: LocalStore) -> None:
    made, cluster = study(), RayCluster(address=nodes.address)
    register(store, made, "tiny.yaml")
    _, pid = cluster._before_packs("process")
    os.kill(pid, signal.SIGKILL)
    runs = [pack_run(run) for run in made.runs[:3]]
    proof = cluster.prove(store.url, made.points[0].condition, runs)
    assert len({digests.init for digests in proof.runs}) == 3
    assert cluster._before_packs("process")[1] != pid
    cluster.close()


@pytest.mark.ray
def test_a_pack_of_a_killed_head_trains_on_and_is_adopted(nodes: Any, store: LocalStore, tmp_path: Path) -> None:
    made = one_pack("{steps: 6000, batch_size: 8}")
    pack_id = left_by_a_killed_head(nodes, store, made, tmp_path)
    before = newest(store, pack_id)
    wait_until(lambda: newest(store, pack_id) > before)
    seen: set[str] = set()
    following = RayCluster(address=nodes.address)

    def watch(state: State) -> None:
        seen.update(following._live)

    state = drive(made, store, following, watch, calibrate=False)
    following.close()
    assert seen == {pack_id}, "it was adopted, and no other was launched"
    assert state.counts() == {Status.FINISHED: 3}
    assert all(len(attempts_of(store, run.id)) == 1 for run in made.runs)


@pytest.mark.ray
def test_a_pack_without_a_head_trains_to_its_end_and_its_process_ends_by_itself(
    nodes: Any, store: LocalStore, tmp_path: Path
) -> None:
    made = one_pack("{steps: 3000, batch_size: 8}")
    pack_id = left_by_a_killed_head(nodes, store, made, tmp_path)
    wait_until(lambda: store.exists(PackKeys(pack_id).outcome))
    assert {run.status for run in get_outcome(store, pack_id).runs} == {Status.FINISHED}
    wait_until(lambda: is_surely_dead(get_record(store, PackKeys(pack_id).claim)))


@pytest.mark.ray
def test_a_pack_without_a_head_hears_that_its_study_is_stopped(nodes: Any, store: LocalStore, tmp_path: Path) -> None:
    made = one_pack(LONG)
    pack_id = left_by_a_killed_head(nodes, store, made, tmp_path)
    before = newest(store, pack_id)
    request_stop(store, made.name)
    wait_until(lambda: pack_id not in newest_beats(store))
    assert newest(store, pack_id) > before, "it saved where it was"


def one_pack(training: str) -> Study:
    """Return a study of three runs that train together and save every 200 steps."""
    return study(
        training=training,
        grid="{}",
        probes="{every: 1000}",
        checkpoints="{rolling: {every: 200}}",
        execution="{pack_width: 3, retries: 0}",
    )


def left_by_a_killed_head(nodes: Any, store: LocalStore, made: Study, folder: Path) -> str:
    """Let a head in a process of its own drive the study, and kill it when its pack trains; returns the pack's id."""
    file = folder / "tiny.yaml"
    file.write_text(made.text)
    where = ["--store", str(store.root), "--address", nodes.address]
    packs: list[str] = []
    with subprocess.Popen([*SEEDBED, "run", str(file), *where, "--no-report", "--json"]) as head:
        try:
            while not packs or not begun(store, packs[0]):
                assert head.poll() is None, "the head ended"
                time.sleep(0.1)
                packs = [key.split("/")[1] for key in store.keys("packs/") if key.endswith("claim.json")]
        finally:
            head.kill()
    return packs[0]


def newest(store: LocalStore, pack_id: str) -> int:
    keys = committed(store, PackKeys(pack_id).checkpoints)
    return max(int(key.rpartition("/")[2].partition(".")[0]) for key in keys)


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait for what happens by itself; the test's own timeout is the limit."""
    while not ready():
        time.sleep(0.1)
