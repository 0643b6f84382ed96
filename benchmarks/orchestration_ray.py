"""Runs that train nothing on a real Ray of several simulated nodes, beside Ray Tune's trials that do nothing.

    python -m benchmarks.orchestration --ray

One process drives both, over the same raylets, in turns. A run of Seedbed has 0 steps, and yet its seeds
are proven; its request, claims, probe, rows, checkpoint, outcome and tables are durable. A trial of Ray Tune returns
one number from an actor that is used again; its results go to JSON and CSV in its experiment's folder.
"""

import os
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jobs.memory import forget_peak, peak_resident_bytes, resident_bytes
from jobs.store import open_store
from jobs.study import Study
from orchestrator.clusters.ray import RayCluster
from orchestrator.clusters.ray_start import check_mode
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive

NODES = 8
MIB = 1 << 20
_LOOK_S = 1.0  # between two looks at the processes
MakeStudy = Callable[[int, str], Study]  # runs, pack width → study


def nodes(cpus: int) -> Any:
    """Start raylets on this machine, each of which says that it has so many CPUs."""
    check_mode(insecure=False)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # what Tune would print of each trial
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus})
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=cpus)
    return cluster


@dataclass(frozen=True, slots=True)
class Cost:
    """What so many runs took.

    seconds      by the clock
    cpu_seconds  of all processes: the head's, Ray's own, and those that it started
    head_seconds  of the head alone
    before_bytes, most_bytes  the head's memory before, and at its most
    """

    seconds: float
    cpu_seconds: float
    head_seconds: float
    before_bytes: int
    most_bytes: int


@contextmanager
def costs(found: list[Cost]) -> Iterator[None]:
    """Add to `found` what is done meanwhile takes; this process is the head."""
    forget_peak()
    before, all_of_them = resident_bytes(), _Processors()
    clocks = time.perf_counter, time.process_time
    start = [clock() for clock in clocks]
    yield
    seconds, own = (clock() - began for clock, began in zip(clocks, start, strict=True))
    found.append(Cost(seconds, all_of_them.seconds(), own, before, max(before, peak_resident_bytes())))


class _Processors:
    """The processor time of this process and of all that descend from it, looked at while they live."""

    def __init__(self) -> None:
        self._before = _tree()
        self._seen = dict(self._before)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(_LOOK_S):
            self._seen.update(_tree())

    def seconds(self) -> float:
        """Return what was used since the start, but for the last second of those that ended."""
        self._stop.set()
        self._thread.join()
        self._seen.update(_tree())
        return sum(seconds - self._before.get(process, 0.0) for process, seconds in self._seen.items())


def _tree() -> dict[tuple[int, str], float]:
    """Return the processor time of this process and its descendants, by number and start."""
    times: dict[int, tuple[str, float]] = {}
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
            pid = int(stat.parent.name)
            parents[pid] = int(fields[1])
            times[pid] = fields[19], (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    mine, newest = {os.getpid()}, {os.getpid()}
    while newest:
        newest = {pid for pid, parent in parents.items() if parent in newest} - mine
        mine |= newest
    return {(pid, times[pid][0]): times[pid][1] for pid in mine if pid in times}


def seedbed(cluster: RayCluster, made: Study) -> list[Cost]:
    """Return what the drive took, and what all tables and the summary took after it."""
    found: list[Cost] = []
    runs = len(made.runs)
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder:
        store = open_store(Path(folder) / "store", create=True)
        with costs(found):
            register(store, made, "nothing.yaml")
            drive(made, store, cluster)
        with costs(found):
            library = Library(store)
            library.collect(made.name)
            summary = library.summary(made.name)
        assert sum(condition.success.cohort.finished for condition in summary.conditions) == runs
    return found


def tune(trials: int) -> list[Cost]:
    """Return what so many trials took."""
    from ray import tune

    found: list[Cost] = []

    class Nothing(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.seed = config["seed"]

        def step(self) -> dict[str, Any]:
            return {"score": self.seed, "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.seed = new_config["seed"]
            return True

    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder:
        tuner = tune.Tuner(
            tune.with_resources(Nothing, {"cpu": 1}),
            param_space={"seed": tune.grid_search(list(range(trials)))},
            tune_config=tune.TuneConfig(reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(Path(folder).absolute()),
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        with costs(found):
            results = tuner.fit()
        assert sorted(result.metrics["score"] for result in results) == list(range(trials))
    return found


def compare(study: MakeStudy, runs: Sequence[int], alone: Sequence[int], trials: Sequence[int], cpus: int) -> None:
    """Print a line for each number of runs in packs, of runs alone in a pack, and of trials."""
    raylets = nodes(cpus)
    cluster = RayCluster(address=raylets.address)
    start = time.perf_counter()
    seedbed(cluster, study(4 * NODES * cpus, "1"))
    print(f"{NODES} nodes, {NODES * cpus} processes started and used once: {time.perf_counter() - start:.1f} s\n")
    print("| what | runs | seconds | ms a run | CPU-ms a run | the head's | tables, ms a run | head's memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    # In turns, as the load of the machine changes; the processes of the one make room for those of the other.
    for count, many in zip_longest(runs, trials):
        if count:
            _line("Seedbed", count, *seedbed(cluster, study(count, "calibrated")))
        if many:
            cluster.expect([], others_first=True)
            _line("Ray Tune", many, *tune(many))
    for count in alone:
        _line("Seedbed, packs of one run", count, *seedbed(cluster, study(count, "1")))
    cluster.close()
    raylets.shutdown()


def _line(what: str, count: int, driven: Cost, tables: Cost | None = None) -> None:
    took = driven.seconds, driven.cpu_seconds, driven.head_seconds
    each = [f"{1000 * seconds / count:.2f}" for seconds in took]
    each.append(f"{1000 * tables.seconds / count:.2f}" if tables else "")
    memory = f"{driven.before_bytes / MIB:.0f} → {driven.most_bytes / MIB:.0f}"
    print(f"| {what} | {count:,} | {driven.seconds:.1f} | {' | '.join(each)} | {memory} |", flush=True)
