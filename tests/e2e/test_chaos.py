"""Real processes on a real Ray, killed again and again: the bytes at the end are those of a calm run.

CI kills a few; `make chaos` kills as many as SEEDBED_CHAOS_FAULTS says. Only processes that wrote their number into
this test's own store are killed.
"""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import NotFound
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.store import LocalStore, get_record, open_store
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.collector import Collector
from orchestrator.declared import declare
from orchestrator.scheduler import drive
from orchestrator.state import State
from orchestrator.store_state import find_outcome

FAULTS = int(os.environ.get("SEEDBED_CHAOS_FAULTS", "6"))
# So many kills must not use up the budget of a run, and every kill comes after a new checkpoint: so it ends.
STUDY = """\
study: chaos
task: {{name: parity, bits: 6, subset: 2, test_size: 32}}
model: {{family: gpt, layers: 1, width: 8, heads: 2}}
optimizer: {{learning_rate: 3e-3}}
training: {{steps: {steps}, batch_size: 8}}
probes: {{every: 100}}
checkpoints: {{rolling: {{every: 20}}}}
seeds: {{design: paired, count: 4}}
execution: {{pack_width: 2, retries: {retries}}}
"""
COLUMNS = ["run_id", "step", "metric", "value", "correct", "total"]


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(cpus=2)
    yield cluster
    cluster.close()


@dataclass
class Killer:
    """Kills the process of a pack once it has saved something new, until all faults are used up."""

    store: LocalStore
    left: int
    killed: dict[str, float] = field(default_factory=dict)
    recoveries_s: list[float] = field(default_factory=list)
    _begun: set[str] = field(default_factory=set)
    _lost: dict[str, float] = field(default_factory=dict)

    def __call__(self, state: State) -> None:
        for live in state.live_packs():
            keys = PackKeys(live.pack_id)
            if not live.pack_id or live.pack_id in self.killed:
                continue
            saved = [key for key in self.store.keys(keys.checkpoints) if key.endswith(".manifest.json")]
            if saved and live.pack_id not in self._begun:
                self._begun.add(live.pack_id)
                lost_at = self._lost.pop(live.pack.run_ids[0], None)
                if lost_at is not None:
                    self.recoveries_s.append(time.monotonic() - lost_at)
            if saved and self.left and find_outcome(self.store, live.pack_id) is None:
                try:
                    process = get_record(self.store, keys.claim)
                except NotFound:
                    continue
                os.kill(process["pid"], signal.SIGKILL)
                self.killed[live.pack_id] = time.monotonic()
                self._lost.update(dict.fromkeys(live.pack.run_ids, self.killed[live.pack_id]))
                self.left -= 1


def study() -> Study:
    return parse_study(STUDY.format(steps=400 + 20 * FAULTS, retries=FAULTS + 2), "chaos.yaml", Path())


def tables(store: LocalStore) -> dict[str, Any]:
    return Collector(store, declare(study(), "chaos.yaml")).collect()


@pytest.mark.ray
@pytest.mark.timeout(3600 if FAULTS > 50 else 300)
def test_killed_workers_leave_no_trace_in_the_bytes(ray_cluster: RayCluster, tmp_path: Path) -> None:
    store, calm = (open_store(tmp_path / name, create=True) for name in ("store", "calm"))
    killer = Killer(store, FAULTS)
    state = drive(study(), store, ray_cluster, killer, calibrate=False)
    inline = InlineCluster(cpus=1)
    drive(study(), calm, inline, calibrate=False)
    inline.close()
    assert len(killer.killed) == FAULTS
    assert state.counts() == {Status.FINISHED: 4}
    ours, theirs = tables(store), tables(calm)
    assert ours["metrics"].select(COLUMNS).equals(theirs["metrics"].select(COLUMNS)), "no row lost, none doubled"
    last = 400 + 20 * FAULTS
    ends = [
        {row["run_id"]: row["sha256"] for row in found["checkpoints"].to_pylist() if row["step"] == last}
        for found in (ours, theirs)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) == 4
    assert ours["audit"].num_rows == 0
    assert killer.recoveries_s
    again = sorted(killer.recoveries_s)
    print(  # noqa: T201
        f"\n{FAULTS} workers killed; rows lost 0, doubled 0; the next pack of the same runs had saved after "
        f"{again[len(again) // 2]:.1f} s (median), {again[-1]:.1f} s (longest)"
    )
