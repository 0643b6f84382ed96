"""What it costs to look after runs: thousands that train nothing, through the pure machine, this process, and Ray.

    python -m benchmarks.orchestration [--ray]

The runs have 0 steps: request, claim, probe at step 0, milestone, shard, outcome, tables, summary are all real.
Beside them, in the same process, the bare durable writes that no store could do without: one per run. With `--ray`:
on a real Ray of eight simulated nodes, beside Ray Tune (`orchestration_ray.py`).
"""

import argparse
import tempfile
import time
from collections import deque
from pathlib import Path

from jobs.identity import canonical_json
from jobs.memory import forget_peak, peak_resident_bytes, resident_bytes
from jobs.pack import PackOutcome, RunOutcome
from jobs.records import Status
from jobs.store import open_store
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.events import LaunchPack, PackEnded, PackLaunched, RunState, StudyOpened
from orchestrator.library import Library
from orchestrator.machine import Machine
from orchestrator.packing import Pack
from orchestrator.plan import plan
from orchestrator.policy import Budgets
from orchestrator.scheduler import drive
from orchestrator.state import opened, transition

STUDY = """\
study: nothing
task: {{name: parity, bits: 4, subset: 2, test_size: 8}}
model: {{family: mlp, width: 4}}
optimizer: {{learning_rate: 1e-3}}
training: {{steps: 0, batch_size: 16}}
grid: {{model.width: [4, 8, 12, 16]}}
seeds: {{design: paired, count: {count}}}
execution: {{pack_width: {width}}}
"""
MIB = 1 << 20


def study(runs: int, width: str = "calibrated") -> Study:
    """Return a study of so many runs in 4 conditions, so many in a pack."""
    return parse_study(STUDY.format(count=runs // 4, width=width), "nothing.yaml", Path())


def milliseconds_per_run(runs: int) -> tuple[float, float]:
    """Return milliseconds per run of the whole drive with its tables and summary, and of a bare durable write."""
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder:
        store = open_store(Path(folder) / "store", create=True)
        cluster = InlineCluster()
        start = time.perf_counter()
        register(store, study(runs), "nothing.yaml")
        drive(study(runs), store, cluster)
        library = Library(store)
        library.collect("nothing")
        summary = library.summary("nothing")
        whole = time.perf_counter() - start
        assert all(condition.success.cohort.finished == runs // 4 for condition in summary.conditions)
        cluster.close()
        start = time.perf_counter()
        for number in range(runs):
            store.put(f"bare/{number}", canonical_json({"run": number}))
        bare = time.perf_counter() - start
    return 1000 * whole / runs, 1000 * bare / runs


def seconds_to_plan(runs: int) -> float:
    """Return the seconds from text to plan."""
    start = time.perf_counter()
    result = plan(study(runs), None, Machine(2, 2, "cpu"))
    assert result.total("runs") == runs
    return time.perf_counter() - start


def cost_of_the_machine(runs: int) -> tuple[float, int]:
    """Return CPU seconds of the pure machine and the most memory beyond what this process had, in bytes.

    For so many runs, a pack each, 128 at once, on no cluster at all.
    """
    forget_peak()
    before = resident_bytes()
    names = [f"r{index:07d}" for index in range(runs)]
    packs = tuple(Pack("c", (name,), 1, 1.0) for name in names)
    opening = StudyOpened(
        {name: RunState(Status.WAITING, -1) for name in names}, packs, Machine(128, 128, "cpu"), Budgets(3)
    )
    start = time.process_time()
    state, commands = opened(opening)
    live: deque[tuple[str, Pack]] = deque()
    launches = 0
    while not state.finished:
        for command in commands:
            if isinstance(command, LaunchPack):
                launches += 1
                state, _ = transition(state, PackLaunched(command.pack.key, f"p{launches}"))
                live.append((f"p{launches}", command.pack))
        pack_id, pack = live.popleft()
        ends = (RunOutcome(run_id=run, attempt=1, status=Status.FINISHED, step=0) for run in pack.run_ids)
        state, commands = transition(state, PackEnded(pack_id, PackOutcome(pack_id=pack_id, runs=tuple(ends))))
    assert state.counts() == {Status.FINISHED: runs}
    return time.process_time() - start, peak_resident_bytes() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, nargs="+", default=[250, 1000, 4000])
    parser.add_argument("--machine", type=int, nargs="+", default=[10_000, 20_000, 50_000, 100_000])
    parser.add_argument("--planned", type=int, default=10_000)
    parser.add_argument("--ray", action="store_true", help="on a real Ray, beside Ray Tune, and nothing else")
    parser.add_argument("--packed", type=int, nargs="*", default=[1000, 3000, 10_000], help="runs in packs, on Ray")
    parser.add_argument("--alone", type=int, nargs="*", default=[1000], help="runs in packs of one, on Ray")
    parser.add_argument("--trials", type=int, nargs="*", default=[100, 300, 1000], help="of Ray Tune")
    parser.add_argument("--cpus", type=int, default=1, help="of each simulated node")
    given = parser.parse_args()
    if given.ray:
        from benchmarks.orchestration_ray import compare

        compare(study, given.packed, given.alone, given.trials, given.cpus)
        return
    print("| runs through the pure machine | CPU seconds | µs a run | memory, MiB |")
    print("| --- | --- | --- | --- |")
    for runs in given.machine:
        seconds, size_bytes = cost_of_the_machine(runs)
        print(f"| {runs:,} | {seconds:.2f} | {1e6 * seconds / runs:.0f} | {size_bytes / MIB:.0f} |")
    print()
    milliseconds_per_run(8)
    print("| runs that train nothing | ms a run | a bare durable write, ms | ratio |")
    print("| --- | --- | --- | --- |")
    for runs in given.runs:
        whole, bare = milliseconds_per_run(runs)
        print(f"| {runs:,} | {whole:.2f} | {bare:.2f} | {whole / bare:.1f} |")
    print(f"\n{given.planned:,} runs planned in {seconds_to_plan(given.planned):.2f} s")


if __name__ == "__main__":
    main()
