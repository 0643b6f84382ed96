"""A run whose two processes lie on two nodes of a real Ray: nodes are killed under it, and it ends with equal bytes."""

from pathlib import Path
from typing import Any

import pytest

from jobs.claims import attempts_of
from jobs.errors import ClusterError
from jobs.layout import PackKeys
from jobs.store import committed, open_store
from jobs.study_file import parse_study
from orchestrator.clusters import Cluster
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from orchestrator.state import State
from tests.bitwise.drives import final
from tests.e2e.test_processes import STUDY
from tests.raylets import Raylets, processes_with, raylets

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    pytest.mark.timeout(600),
    # What DeepSpeed itself uses of torch is on its way out there.
    pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning"),
]
ENGINES = {
    "ddp": "{processes: 2}",
    "fsdp": "{processes: 2, sharding: fsdp}",
    **{f"zero-{stage}": f"{{name: deepspeed, stage: {stage}}}" for stage in (1, 2, 3)},
}
# The head looks twice a second, and the run shall not be over by then. Where other work loads the cores FSDP makes 17
# steps a second, and this takes twice as many as its run.
STEPS = ("steps: 300", "steps: 400")
ON_TWO = STUDY.replace(*STEPS) + "execution: {nodes: 2, retries: 0}\n"


def driven(folder: Path, text: str, cluster: Cluster, watch: Any = None) -> Library:
    """Do what `seedbed run` does."""
    made = parse_study(text, "study.yaml", folder.parent)
    library = Library(open_store(folder, create=True))
    register(library.store, made, "study.yaml")
    try:
        drive(made, library.store, cluster, watch or (lambda state: None), calibrate=False)
    finally:
        cluster.close()
    return library


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_on_two_nodes_outlives_either_and_ends_as_on_one(engine: str, tmp_path: Path) -> None:
    if "zero" in engine:
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    text = ON_TWO.replace("ENGINE", ENGINES[engine])
    on_one = driven(tmp_path / "calm" / "store", text.replace("nodes: 2", "nodes: 1"), InlineCluster(cpus=2))
    calm = final(on_one.collect("two"))
    store = open_store(tmp_path / "store", create=True)
    with raylets(3, {}) as nodes:
        cluster = RayCluster(address=nodes.address)
        killer = _Killer(nodes, cluster, store)
        library = driven(tmp_path / "store", text, cluster, killer.watch)
        assert final(library.collect("two")) == calm
        assert [len(places) for places in killer.places] == [2, 2], "two nodes each time"
        attempts = attempts_of(library.store, library.declared("two").runs[0].id)
        assert [attempt.attempt for attempt in attempts] == [1, 2, 3]
        assert attempts[1].resumed_step >= 20
        assert attempts[2].resumed_step >= 100
        left = [text for text in processes_with(str(nodes.folder)).values() if "workers.engines.fellow" in text]
        assert left == [], "no process of a run outlives the one that started it"


def test_a_cluster_with_fewer_nodes_says_so_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="a run takes 2 nodes; the cluster has 1"):
        driven(tmp_path / "store", ON_TWO.replace("ENGINE", "{processes: 2}"), InlineCluster(cpus=2))


class _Killer:
    """Kills the second node of a run's first pack, and the first node of its next one, once they have saved."""

    def __init__(self, nodes: Raylets, cluster: RayCluster, store: Any) -> None:
        self.nodes, self.cluster, self.store = nodes, cluster, store
        self.places: list[list[str]] = []
        self._seen: set[str] = set()

    def watch(self, state: State) -> None:
        import ray

        for it in state.live_packs():
            number = len(self.places)
            if not it.pack_id or it.pack_id in self._seen or number == 2 or not self._has_saved(it.pack_id, number):
                continue
            self._seen.add(it.pack_id)
            places = ray.get(self.cluster._live[it.pack_id].actor.nodes.remote())
            self.places.append(places)
            (doomed,) = [node for node in self.nodes.nodes if node.node_id == places[1 - number]]
            self.nodes.kill(doomed, orphans=False)
            self.nodes.add()

    def _has_saved(self, pack_id: str, number: int) -> bool:
        keys = committed(self.store, PackKeys(pack_id).checkpoints)
        return any(int(key.rpartition("/")[2].partition(".")[0]) >= (20, 100)[number] for key in keys)
