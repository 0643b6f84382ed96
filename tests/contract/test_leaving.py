"""Packs that are told to leave save first and train on elsewhere; nodes come and go: on raylets of a real Ray."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from jobs.claims import attempts_of
from jobs.errors import NodeLost
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.store import LocalStore, committed, get_record
from orchestrator.clusters.ray import RayCluster
from orchestrator.clusters.ray_start import read_nodes
from orchestrator.events import PackLost
from orchestrator.scheduler import drive
from orchestrator.state import State
from tests.contract.conftest import nodes_of_ray
from tests.contract.test_clusters import request_pack, study, wait_for

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]
LONG = "{steps: 1000000, batch_size: 8}"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Start a head without CPUs for packs, so that every node of packs may go."""
    with nodes_of_ray(0) as made:
        made.add_node(num_cpus=1)
        yield made


@pytest.fixture
def cluster(attached: RayCluster) -> RayCluster:
    return attached


def saved_steps(store: LocalStore, pack_id: str) -> list[int]:
    keys = committed(store, PackKeys(pack_id).checkpoints)
    return [int(key.rpartition("/")[2].partition(".")[0]) for key in keys]


def drain(nodes: Any, node_id: str, grace_s: float) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    deadline_ms = int((time.time() + grace_s) * 1000)
    accepted, why = GcsClient(address=nodes.address).drain_node(node_id, reason, "spot", deadline_ms)
    assert accepted, why


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_makes_a_pack_save_where_it_is_and_its_process_take_no_other(
    cluster: RayCluster, store: LocalStore, sent: signal.Signals
) -> None:
    pack_id = request_pack(store, study(training=LONG), rolling_every=10**6)
    cluster.launch(store.url, pack_id, 1)
    wait_for(cluster, lambda _: bool(saved_steps(store, pack_id)))
    told = get_record(store, PackKeys(pack_id).claim)["pid"]
    began = time.monotonic()
    os.kill(told, sent)
    news = wait_for(cluster, bool)
    took_s = time.monotonic() - began
    assert isinstance(news[0], PackLost)
    assert isinstance(news[0].error, NodeLost), "charged to nobody's retries"
    assert sent.name in str(news[0].error)
    assert saved_steps(store, pack_id)[1:] != [], "it saved where it stood"
    print(f"\n{sent.name}: saved and ended after {took_s:.2f} s")  # noqa: T201
    second = request_pack(store, study(training="{steps: 20, batch_size: 8}"), "pack.0002")
    cluster.launch(store.url, second, 1)
    assert not isinstance(wait_for(cluster, bool)[0], PackLost)
    assert get_record(store, PackKeys(second).claim)["pid"] != told


def test_a_drained_node_is_left_in_time_and_a_new_one_is_used(
    nodes: Any, cluster: RayCluster, store: LocalStore
) -> None:
    import ray

    made = study(
        training="{steps: 4000, batch_size: 8}",
        probes="{every: 1000}",
        checkpoints="{rolling: {every: 1000000}}",
        seeds="{design: paired, count: 2}",
        execution="{pack_width: 1, retries: 0}",
    )
    old = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU"))
    seen: list[str] = []
    most = [0]

    def watch(state: State) -> None:
        live = [it.pack_id for it in state.live_packs() if it.pack_id]
        most[0] = max(most[0], len(live))
        if not seen and live and saved_steps(store, live[0]):
            seen.append(live[0])
            nodes.add_node(num_cpus=2)
            drain(nodes, old, grace_s=30)

    state = drive(made, store, cluster, watch, calibrate=False)
    assert state.counts() == {Status.FINISHED: 4}
    assert all(run.crashes == 0 for run in state.runs.values())
    assert most[0] == 2, "packs trained side by side on the new node"
    attempts = [attempts_of(store, run.id) for run in made.runs]
    again = [of_run[-1] for of_run in attempts if of_run[0].pack_id == seen[0]]
    assert [attempt.attempt for attempt in again] == [2]
    assert again[0].resumed_step > 0, "the drained pack saved where it stood, and went on from there"
    wait_until(lambda: not any(node["Alive"] for node in ray.nodes() if node["NodeID"] == old))
    assert [node.cpus for node in read_nodes(ray)] == [2]


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait for what Ray does by itself; the test's own timeout is the limit."""
    while not ready():
        time.sleep(0.2)
