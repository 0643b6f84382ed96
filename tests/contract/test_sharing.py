"""Two heads on one Ray: each fills what is free, and the less important study makes room for the other."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.claims import attempts_of
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.store import LocalStore, committed
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.scheduler import drive
from orchestrator.state import State
from tests.contract.conftest import nodes_of_ray
from tests.contract.test_clusters import study
from tests.contract.test_leaving import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    with nodes_of_ray(1) as made:
        made.add_node(num_cpus=2)
        yield made


@pytest.fixture
def cluster(attached: RayCluster) -> RayCluster:
    return attached


def test_what_others_hold_is_no_room_and_what_is_ours_is(cluster: RayCluster) -> None:
    import ray

    @ray.remote
    class Other:
        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    assert [node.cpus for node in cluster.room().nodes] == [2, 1]
    other = Other.options(num_cpus=2).remote()
    ray.get(other.node.remote())
    wait_until(lambda: [node.cpus for node in cluster.room().nodes] == [1])
    assert [node.cpus for node in cluster.machine().nodes] == [2, 1], "what is planned for is the whole"
    mine = cluster._pool.take(1)
    ray.get(mine.process.remote())
    wait_until(lambda: [node.cpus for node in cluster.room().nodes] == [1])
    ray.kill(other)
    wait_until(lambda: [node.cpus for node in cluster.room().nodes] == [2, 1])
    cluster._pool.give(mine)
    cluster.expect([], others_first=True)
    wait_until(lambda: ray.available_resources().get("CPU") == 3)


# A race of two real studies: the longer must still train at the end of the shorter. `test_rivals.py` is its sibling.
@pytest.mark.slow
def test_a_more_important_study_gets_room_at_once_and_the_other_goes_on_where_it_was(
    nodes: Any, cluster: RayCluster, store: LocalStore, tmp_path: Path
) -> None:
    made = study(
        training="{steps: 12000, batch_size: 8}",
        probes="{every: 1000}",
        checkpoints="{rolling: {every: 1000000}}",
        grid="{}",
        execution="{pack_width: 1, retries: 0}",
    )
    text = study(training="{steps: 20, batch_size: 8}", grid="{}", execution="{pack_width: 3, priority: 5}").text
    (tmp_path / "urgent.yaml").write_text(text.replace("study: tiny", "study: urgent"), encoding="utf-8")
    command = ["-c", "from orchestrator.cli import main; main()", "run", str(tmp_path / "urgent.yaml"), "--no-report"]
    command += ["--store", store.url, "--address", nodes.address]
    urgent: list[subprocess.Popen[str]] = []
    at_its_end: list[int] = []

    def watch(state: State) -> None:
        live = [it.pack_id for it in state.live_packs() if it.pack_id]
        if not urgent and len(live) == 3 and all(committed(store, PackKeys(it).checkpoints) for it in live):
            urgent.append(subprocess.Popen([sys.executable, *command], text=True, stdout=subprocess.PIPE))
        if urgent and not at_its_end and urgent[0].poll() is not None:
            at_its_end.append(state.counts()[Status.FINISHED])

    register(store, made, "tiny.yaml")
    state = drive(made, store, cluster, watch, calibrate=False)
    said, _ = urgent[0].communicate()
    assert urgent[0].returncode == 0, said
    assert state.counts() == {Status.FINISHED: 3}
    assert at_its_end, "the other study ended first: it is too short for this machine"
    assert at_its_end[0] < 3, "the urgent study did not wait for the end of the other"
    assert {run.crashes for run in state.runs.values()} == {0}
    attempts = [attempts_of(store, run.id) for run in made.runs]
    again = [of_run[-1] for of_run in attempts if len(of_run) > 1]
    assert again
    assert all(attempt.resumed_step > 0 for attempt in again), "no step was lost"
