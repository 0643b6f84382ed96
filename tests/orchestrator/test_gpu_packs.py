"""Packs on GPUs that nobody has: what a drive makes of measured times and memory, from calibration to launch."""

from collections.abc import Callable

import pytest

from jobs.errors import ClusterError
from jobs.pack import get_request
from jobs.records import Status
from jobs.spec import Condition
from jobs.store import LocalStore
from jobs.study import Study
from orchestrator.machine import ANYWHERE, Machine, Needs, Node
from orchestrator.packing import AssumedTiming, Timing
from orchestrator.scheduler import drive
from tests.fakes import FakeCluster

MakeStudy = Callable[..., Study]
GIB = 1 << 30


class Gpus(FakeCluster):
    """Two GPUs. A step of a pack is `slower` times as long where two lie on one; each run takes `run_bytes` of it."""

    def __init__(self, slower: float, run_bytes: int) -> None:
        super().__init__()
        self.slower, self.run_bytes = slower, run_bytes
        self.asked: list[Needs] = []
        self.measured: list[Needs] = []

    def machine(self) -> Machine:
        return Machine(8, 8, "cpu", nodes=(Node(8, gpus=2.0, gpu_bytes=80 * GIB),))

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        self.measured.append(needs)
        return [
            AssumedTiming(width, 1, (4 + width) * factor, width * self.run_bytes, per_gpu)
            for per_gpu, factor in ((1, 1.0), (2, self.slower))
            for width in (1, 2, 4, 8, 16, 32)
        ]

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:
        super().launch(store_url, pack_id, threads, needs)
        self.asked.append(needs)


def driven(store: LocalStore, study: MakeStudy, cluster: Gpus, count: int) -> int:
    """Return how many packs trained at once at most."""
    made = study(
        training="{steps: 10000, batch_size: 8}",
        grid="{}",
        seeds=f"{{design: paired, count: {count}}}",
        execution="{device: cuda}",
    )
    at_once: list[int] = []
    state = drive(made, store, cluster, lambda state: at_once.append(len(state.live)))
    assert state.counts() == {Status.FINISHED: count}
    assert cluster.measured == [Needs(gpu_share=1.0)]
    assert {get_request(store, pack_id).device for pack_id, _ in cluster.launched} == {"cuda"}
    return max(at_once)


@pytest.mark.parametrize(("slower", "share", "at_once"), [(1.3, 0.5, 4), (2.4, 1.0, 2)])
def test_two_packs_lie_on_a_gpu_only_where_that_was_measured_to_be_faster(
    store: LocalStore, study: MakeStudy, slower: float, share: float, at_once: int
) -> None:
    cluster = Gpus(slower, run_bytes=GIB // 4)
    assert driven(store, study, cluster, 128) == at_once
    assert {needs.gpu_share for needs in cluster.asked} == {share}


def test_no_pack_is_wider_than_what_was_measured_to_fit_its_part_of_a_gpu(study: MakeStudy, store: LocalStore) -> None:
    cluster = Gpus(1.3, run_bytes=8 * GIB)
    driven(store, study, cluster, 64)
    for (_, runs), needs in zip(cluster.launched, cluster.asked, strict=True):
        assert len(runs) * 8 * GIB <= needs.memory_bytes <= 0.85 * 80 * GIB * needs.gpu_share


def test_fewer_runs_than_devices_are_split_and_never_share(study: MakeStudy, store: LocalStore) -> None:
    cluster = Gpus(1.3, run_bytes=GIB)
    assert driven(store, study, cluster, 2) == 2
    assert [len(runs) for _, runs in cluster.launched] == [1, 1]
    assert {needs.gpu_share for needs in cluster.asked} == {1.0}


def test_a_run_of_two_processes_takes_two_gpus_and_is_not_measured(store: LocalStore, study: MakeStudy) -> None:
    made = whole(study, "{processes: 2, threads: 2}")
    cluster = Gpus(slower=1.0, run_bytes=GIB)
    drive(made, store, cluster)
    assert [(needs.gpu_share, needs.memory_bytes) for needs in cluster.asked] == [(2.0, 0)] * 3
    assert cluster.measured == []
    requests = [get_request(store, key.split("/")[1]) for key in store.keys("packs/") if key.endswith("request.json")]
    assert [(len(request.runs), request.threads, request.device) for request in requests] == [(1, 4, "cuda")] * 3


def test_processes_that_no_node_holds_are_told_before_anything_is_proven(store: LocalStore, study: MakeStudy) -> None:
    with pytest.raises(ClusterError, match=r"8 processes × 2 threads = 16 CPUs on one node; the largest has 8"):
        drive(whole(study, "{processes: 8, threads: 2}"), store, Gpus(slower=1.0, run_bytes=GIB))
    assert store.keys("packs/") == []


def whole(study: MakeStudy, engine: str) -> Study:
    return study(
        model="{huggingface: gpt_neox, layers: 1, width: 8, heads: 2}",
        engine=engine,
        grid="{}",
        seeds="{design: paired, count: 3}",
        execution="{device: cuda}",
    )
