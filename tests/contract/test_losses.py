"""What a drive makes of packs that do not fit, stand still, or lose their node: on every cluster that can."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import workers.pack
from jobs.claims import attempts_of
from jobs.errors import OutOfMemory
from jobs.layout import PackKeys
from jobs.pack import get_request
from jobs.records import Status
from jobs.store import LocalStore, committed
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters import Cluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.declared import register
from orchestrator.events import PackEnded
from orchestrator.scheduler import drive
from orchestrator.state import State
from tests.contract.conftest import nodes_of_ray
from tests.contract.test_clusters import request_pack, study, wait_for
from tests.fakes import FakeCluster
from tests.orchestrator.conftest import STUDY
from workers import progress

# The source of a user's own task is what reaches the processes of every cluster: it brings the fault along.
NO_ROOM = """\
import torch
import workers.pack
from jobs.tasks.parity import Parity

restore = workers.pack._restore


def for_one_run_alone(store, before, left_out):
    if len(before) > 1:
        torch.empty(1 << 60)  # refused by the allocator itself
    return restore(store, before, left_out)


class Large(Parity):
    def model_post_init(self, _):
        workers.pack._restore = for_one_run_alone
"""
STANDS_STILL = """\
import threading
from pathlib import Path
from jobs.tasks.parity import Parity
from workers import progress

FIRST = "{first}"


class Stuck(Parity):
    def model_post_init(self, _):
        progress.LEAST_S = 1.0

    def batch(self, streams, step, size):
        if step == 10:
            try:
                Path(FIRST).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                threading.Event().wait()
        return super().batch(streams, step, size)
"""


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Start a head without CPUs for packs, so that every node of packs may die."""
    with nodes_of_ray(0) as made:
        made.add_node(num_cpus=3)
        yield made


@pytest.fixture
def ray_cluster(attached: RayCluster) -> Iterator[RayCluster]:
    """Let no process, and so nothing that a task did to it, go on into the next test."""
    yield attached
    attached.expect([], others_first=True)


def own(folder: Path, source: str, task: str, **changed: str) -> Study:
    """Return a study of a task whose source lies in the folder."""
    (folder / "own.py").write_text(source, encoding="utf-8")
    lines = {line.partition(":")[0]: line for line in STUDY.splitlines()}
    lines["task"] = f"task: {{name: 'own.py:{task}', bits: 6, subset: 2, test_size: 32}}"
    lines |= {key: f"{key}: {value}" for key, value in changed.items()}
    return parse_study("\n".join(lines.values()), "tiny.yaml", folder)


def test_a_pack_that_does_not_fit_is_halved_until_it_does_at_no_cost_in_retries(
    cluster: Cluster, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.pack, "_restore", workers.pack._restore)  # what the task does to it is undone
    made = own(tmp_path, NO_ROOM, "Large", execution="{pack_width: 3, retries: 0, preemptions: 0}")
    if isinstance(cluster, FakeCluster):
        packs = cluster.launched

        def for_one_run_alone(run: str, attempt: int) -> Status | OutOfMemory:
            mine = next(runs for _, runs in reversed(packs) if run in runs)
            return Status.FINISHED if len(mine) == 1 else OutOfMemory("no room")

        cluster.verdict = for_one_run_alone
    register(store, made, "tiny.yaml")
    widths: dict[str, int] = {}

    def watch(state: State) -> None:
        widths.update({it.pack_id: len(it.pack.run_ids) for it in state.live_packs() if it.pack_id})

    state = drive(made, store, cluster, watch, calibrate=False)
    assert state.counts() == {Status.FINISHED: 6}
    assert all((run.crashes, run.preemptions) == (0, 0) for run in state.runs.values())
    assert max(widths.values()) == 3
    asked = [get_request(store, key.split("/")[1]) for key in store.keys("packs/") if key.endswith("request.json")]
    assert sorted(len(request.runs) for request in asked) == [1] * 6 + [2] * 2 + [3] * 2


def test_a_pack_that_stands_still_is_killed_and_the_next_one_trains(
    cluster: Cluster, store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(cluster, FakeCluster):
        pytest.skip("the fake has no process that could stand still")
    monkeypatch.setattr(progress, "LEAST_S", progress.LEAST_S)  # what the task does to it is undone
    made = own(tmp_path, STANDS_STILL.format(first=tmp_path / "first"), "Stuck")
    register(store, made, "tiny.yaml")
    stuck = request_pack(store, made)
    cluster.launch(store.url, stuck, 1)
    wait_for(cluster, lambda _: (tmp_path / "first").exists())
    cluster.kill(stuck)
    following = request_pack(store, made, "pack.0002")
    cluster.launch(store.url, following, 1)
    news = wait_for(cluster, bool)
    assert [(type(item), item.pack_id) for item in news] == [(PackEnded, following)]
    assert len(attempts_of(store, made.runs[0].id)) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_deadlock_is_found_while_the_heart_beats_and_charged_as_a_crash(
    ray_cluster: RayCluster, store: LocalStore, tmp_path: Path
) -> None:
    made = own(
        tmp_path,
        STANDS_STILL.format(first=tmp_path / "first"),
        "Stuck",
        grid="{}",
        execution="{pack_width: 3, retries: 1}",
    )
    register(store, made, "tiny.yaml")
    stood, lost = [0.0], [0.0]

    def watch(state: State) -> None:
        if not stood[0] and (tmp_path / "first").exists():
            stood[0] = time.monotonic()
        if not lost[0] and any(run.crashes for run in state.runs.values()):
            lost[0] = time.monotonic()

    state = drive(made, store, ray_cluster, watch, calibrate=False)
    assert state.counts() == {Status.FINISHED: 3}
    assert {(run.crashes, run.preemptions) for run in state.runs.values()} == {(1, 0)}
    stacks = [store.get(key).decode() for key in store.keys("packs/") if key.endswith("log.txt")]
    assert any("a step has not ended for" in text and "in batch" in text for text in stacks)
    print(f"\na step that stood still was found after {lost[0] - stood[0]:.0f} s; patience 1 s")  # noqa: T201


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_a_lost_node_costs_no_retry_and_its_packs_train_on_elsewhere(
    nodes: Any, ray_cluster: RayCluster, store: LocalStore
) -> None:
    made = study(
        training="{steps: 600, batch_size: 8}",
        probes="{every: 200}",
        checkpoints="{rolling: {every: 20}}",
        seeds="{design: paired, count: 2}",
        execution="{pack_width: 2, retries: 0}",
    )
    doomed = nodes.add_node(num_cpus=2)
    gone: list[str] = []

    def watch(state: State) -> None:
        for it in state.live_packs():
            if not gone and it.pack_id and len(committed(store, PackKeys(it.pack_id).checkpoints)) > 1:
                where = ray_cluster._live[it.pack_id].actor.process.remote()
                if ray.get(where)[0] == doomed.node_id:
                    gone.append(it.pack_id)
                    nodes.remove_node(doomed, allow_graceful=False)

    import ray

    state = drive(made, store, ray_cluster, watch, calibrate=False)
    assert gone
    assert state.counts() == {Status.FINISHED: 4}, [run.reason for run in state.runs.values()]
    assert {run.crashes for run in state.runs.values()} == {0}
    attempts = [attempts_of(store, run.id) for run in made.runs]
    again = [of_run for of_run in attempts if of_run[0].pack_id == gone[0]]
    assert [len(of_run) for of_run in again] == [2, 2]
    assert all(of_run[1].resumed_step >= 20 for of_run in again), "from the newest checkpoint"
