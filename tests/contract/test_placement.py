"""Packs land where the study file says: on several raylets of a real Ray, with labels and resources that differ."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import ClusterError
from jobs.records import Status
from jobs.store import open_store
from orchestrator.clusters.ray import RayCluster
from orchestrator.machine import ANYWHERE, Needs
from orchestrator.scheduler import drive
from tests.contract.conftest import nodes_of_ray
from tests.contract.test_clusters import study

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    """Return a cluster of two nodes: a plain one, and one with GPUs that it does not have, a label and licences."""
    with nodes_of_ray(3) as nodes:
        nodes.add_node(num_cpus=2, num_gpus=2, resources={"licence": 1}, labels={"zone": "a"})
        made = RayCluster(address=nodes.address)
        yield made
        made.close()


def test_the_machine_is_read_from_the_cluster(ray_cluster: RayCluster) -> None:
    machine = ray_cluster.machine()
    assert [node.cpus for node in machine.nodes] == [3, 2]
    assert [node.gpus for node in machine.nodes] == [0, 2]
    assert (machine.cpus, machine.most_cpus(), machine.side_by_side(2)) == (5, 3, 2)
    assert all(node.memory_bytes > 0 for node in machine.nodes)
    special = machine.nodes[1]
    assert special.takes(Needs(resources=(("licence", 1.0),), labels=(("zone", "a"),)))
    assert not machine.nodes[0].takes(Needs(labels=(("zone", "a"),)))


def test_packs_land_on_the_labelled_node_alone_and_take_its_licence_in_turns(
    ray_cluster: RayCluster, tmp_path: Path
) -> None:
    import ray

    store = open_store(tmp_path / "store", create=True)
    made = study(execution="{pack_width: 2, labels: {zone: a}, resources: {licence: 1}}")
    most: list[int] = []
    state = drive(made, store, ray_cluster, lambda state: most.append(len(state.live)), calibrate=False)
    assert state.counts() == {Status.FINISHED: 6}
    assert max(most) == 1, "there is one licence"
    special = next(node["NodeID"] for node in ray.nodes() if node["Labels"].get("zone") == "a")
    actors = [actor for idle in ray_cluster._pool._idle.values() for actor in idle]
    assert len(actors) == 1, "one process took one pack after another"
    assert ray.get(actors[0].process.remote())[0] == special


def test_two_packs_share_a_gpu(ray_cluster: RayCluster) -> None:
    import ray

    pool = ray_cluster._pool
    actors = [pool.take(1, Needs(gpu_share=0.5)) for _ in range(2)]
    places = ray.get([actor.process.remote() for actor in actors])
    labelled = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU"))
    assert {node for node, _ in places} == {labelled}
    for actor in actors:
        pool.drop(actor)


def test_what_no_node_has_is_refused_before_anything_starts(ray_cluster: RayCluster, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    with pytest.raises(ClusterError, match="no node of the cluster has label zone=b"):
        drive(study(execution="{labels: {zone: b}}"), store, ray_cluster, calibrate=False)
    assert not store.keys("packs/")
    assert ray_cluster.machine().side_by_side(1, ANYWHERE) == 5
