"""From shards to the quantile fan: 10,000 runs × 1,000 steps × 10 metrics, beside pandas over the raw shards.

    python -m benchmarks.statistics                  10^8 rows, some 3 GB in a temporary folder
    python -m benchmarks.statistics --runs 100       a hundredth

The store is a real one: claims, verified shards, outcomes; the values are made up. Peak memory is the most that this
process ever had resident. Where one of the 10 metrics is an accuracy, its counts go along.
"""

import argparse
import functools
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from jobs.claims import FRESH, claim
from jobs.layout import PackKeys
from jobs.pack import PackOutcome, RunOutcome, put_outcome
from jobs.parquet import write_table
from jobs.records import METRICS, Status
from jobs.store import LocalStore, Store, commit, open_store
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.collected import Collected
from orchestrator.collector import Collector
from orchestrator.declared import Declared, declare, register
from orchestrator.library import Library
from orchestrator.query import sql
from orchestrator.tables import commit_tables

CONDITIONS, STEPS, METRIC_COUNT, PACK_RUNS, PROBES_PER_SHARD = 10, 1000, 10, 50, 100
STUDY = """\
study: many
task: {{name: parity, bits: 4, subset: 2, test_size: 8}}
model: {{family: mlp, width: 4}}
optimizer: {{learning_rate: 1e-3}}
training: {{steps: 999, batch_size: 1}}
grid: {{model.width: [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]}}
seeds: {{design: paired, count: {count}}}
"""


def study(runs: int) -> Study:
    """Return a study of so many runs in 10 conditions."""
    return parse_study(STUDY.format(count=runs // CONDITIONS), "many.yaml", Path())


def fill(store: Store, made: Study, generator: np.random.Generator, metric_count: int = METRIC_COUNT) -> int:
    """Write claims, shards and outcomes of all runs into the store; returns the number of rows."""
    by_condition: dict[str, list[str]] = {}
    for run in made.runs:
        by_condition.setdefault(run.point.id, []).append(run.id)
    rows = 0
    for condition_id, ids in by_condition.items():
        for start in range(0, len(ids), PACK_RUNS):
            rows += _pack(store, f"{condition_id}.{start:06d}", ids[start : start + PACK_RUNS], generator, metric_count)
    return rows


def _pack(store: Store, pack_id: str, runs: list[str], generator: np.random.Generator, metric_count: int) -> int:
    for run_id in runs:
        claim(store, run_id, pack_id, (FRESH, ""), {}, after=0)
    metrics = ["heldout.accuracy", *(f"heldout.metric{number}" for number in range(1, metric_count))]
    rows = 0
    for number, first in enumerate(range(0, STEPS, PROBES_PER_SHARD)):
        table = rows_as_written(runs, metrics, range(first, first + PROBES_PER_SHARD), generator)
        rows += table.num_rows
        commit(store, PackKeys(pack_id).shard(number), _writer(table))
    ends = tuple(RunOutcome(run_id=r, attempt=1, status=Status.FINISHED, step=STEPS - 1) for r in runs)
    put_outcome(store, PackOutcome(pack_id=pack_id, runs=ends))
    return rows


def _writer(table: pa.Table) -> Callable[[Path], dict[str, int]]:
    def write(path: Path) -> dict[str, int]:
        write_table(table, path)
        return {"rows": table.num_rows, "first_step": 0, "last_step": 0}

    return write


def rows_as_written(runs: list[str], metrics: list[str], steps: range, generator: np.random.Generator) -> pa.Table:
    """Return rows as a worker writes them: by step, then metric, then run."""
    shape = (len(steps), len(metrics), len(runs))
    step, metric, run = (np.broadcast_to(axis, shape).ravel() for axis in np.ix_(steps, *map(np.arange, shape[1:])))
    correct = generator.integers(0, 501, len(step))
    counted = metric == 0
    values = np.where(counted, correct / 500, generator.standard_normal(len(step)))
    arrays = [
        pa.array(runs, pa.string()).take(pa.array(run)),
        pa.repeat(pa.scalar(1, pa.int32()), len(step)),
        pa.array(step.astype(np.int64)),
        pa.array(metrics, pa.string()).take(pa.array(metric)),
        pa.array(values),
        pa.array(correct, mask=~counted),
        pa.array(np.full(len(step), 500), mask=~counted),
    ]
    return pa.table(arrays, schema=METRICS)


def timed(work: Callable[[], object], repeat: int = 1) -> float:
    """Return the median seconds of `repeat` calls."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def peak_gib() -> float:
    """Return the most memory that this process ever had resident, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def naive(store: LocalStore, packs: int) -> tuple[float, int]:
    """Return what pandas takes to load and sort the shards of so many packs, and their rows."""
    folders = sorted((store.root / "packs").iterdir())[:packs]
    start = time.perf_counter()
    frame = pd.concat([pd.read_parquet(path) for folder in folders for path in sorted(folder.rglob("*.parquet"))])
    frame = frame.sort_values(["metric", "run_id", "step"])
    return time.perf_counter() - start, len(frame)


def ask(tables: Collected, declared: Declared) -> dict[str, float]:
    """Return milliseconds of each question."""
    condition = declared.conditions[3].id
    fan = f"""SELECT step, n, q05, q25, q50, q75, q95 FROM rollups
              WHERE condition_id = '{condition}' AND metric = 'heldout.accuracy' ORDER BY step"""  # noqa: S608
    exact = """SELECT step, quantile_cont(value, [0.05, 0.25, 0.5, 0.75, 0.95]) FROM metrics JOIN runs USING (run_id)
               WHERE metric = 'heldout.accuracy' AND "model.width" = 16 GROUP BY step ORDER BY step"""
    last = "SELECT avg(value) FROM metrics WHERE metric = 'heldout.accuracy' AND step = 999"
    count = "SELECT count(*) FROM metrics"
    assert sql(tables, fan).num_rows == STEPS
    return {
        "fan of a condition, from the roll-up (SQL)": 1000 * timed(lambda: sql(tables, fan), 5),
        "the same fan, exact, from the rows (SQL)": 1000 * timed(lambda: sql(tables, exact), 3),
        "mean of one metric at the last step (SQL)": 1000 * timed(lambda: sql(tables, last), 3),
        "count of all rows (SQL)": 1000 * timed(lambda: sql(tables, count), 1),
        "rows of one metric of one condition": 1000
        * timed(lambda: tables.metric("heldout.accuracy", frozenset({condition})), 3),
    }


def bootstrap(generator: np.random.Generator) -> float:
    """Return the seconds of 10,000 resamples of the mean and the share of successes of 1,000 runs."""
    values = generator.standard_normal(1000)

    def resample() -> None:
        for _ in range(10):
            drawn = values[generator.integers(0, 1000, (1000, 1000))]
            np.quantile([drawn.mean(axis=1), (drawn > 0).mean(axis=1)], [0.025, 0.975], axis=1)

    return timed(resample, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--naive-packs", type=int, default=2, help="how many packs of 50 runs pandas reads")
    given = parser.parse_args()
    say = functools.partial(print, flush=True)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="seedbed-statistics-") as folder:
        store = open_store(Path(folder) / "store", create=True)
        made = study(given.runs)
        declared = declare(made, "many.yaml")
        register(store, made, "many.yaml")
        start = time.perf_counter()
        rows = fill(store, made, generator)
        say(f"{rows:,} rows were made in {time.perf_counter() - start:.1f} s; peak {peak_gib():.2f} GiB")
        start, processor = time.perf_counter(), time.process_time()
        tables = Collector(store, declared).collect()
        collected = time.perf_counter() - start
        commit_tables(store, "many", tables)
        whole, processor = time.perf_counter() - start, time.process_time() - processor
        assert sum(placed.part.rows for placed in tables.parts) == rows
        size = sum(placed.part.size_bytes for placed in tables.parts) / 2**20
        say(f"collected in {collected:.1f} s, committed by {whole:.1f} s: {rows / whole / 1e6:.2f} million rows/s")
        say(f"in {processor:.1f} processor seconds: {rows / processor / 1e6:.2f} million rows for each")
        say(f"peak {peak_gib():.2f} GiB; {len(tables.parts)} parts of {size:,.0f} MiB in all")
        again = timed(lambda: Library(store).collect("many"))
        say(f"collected again with nothing new, by a library that knows nothing yet: {again:.2f} s")
        for what, milliseconds in ask(tables, declared).items():
            say(f"{what}: {milliseconds:,.0f} ms")
        say(f"10,000 resamples of 1,000 runs: {bootstrap(generator):.2f} s; peak {peak_gib():.2f} GiB")
        loaded, few = naive(store, given.naive_packs)
        say(f"pandas over {few:,} raw rows: {few / loaded / 1e6:.2f} million rows/s")
        say(f"ratio: {rows / whole / (few / loaded):.1f} × pandas; peak {peak_gib():.2f} GiB with pandas")


if __name__ == "__main__":
    main()
