"""A study whose truth is known goes through store, collector and estimates: the truth is inside as often as promised.

A fake trainer draws each run's end from the distribution of its scale and leaves in the store what a real one leaves:
claims, verified shards, outcomes; some runs are lost, some diverge. Each scale is repeated under another name, so that
there are many intervals. How many of them hold the truth is compared with its exact distribution.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import binom

from jobs.claims import FRESH, claim
from jobs.layout import PackKeys
from jobs.pack import PackOutcome, RunOutcome, put_outcome
from jobs.parquet import write_table
from jobs.records import METRICS, Status
from jobs.store import LocalStore, commit, open_store
from jobs.study import Run, Study
from jobs.study_file import parse_study
from orchestrator.declared import register
from orchestrator.estimates.success import METHODS, jeffreys
from orchestrator.library import Library
from orchestrator.summary import StudySummary

P = {4: 0.1, 8: 0.3, 16: 0.6, 32: 0.9}
STEPS, LOST, DIVERGES = (0, 10, 20, 30, 40), 0.08, 0.2
ONSETS = np.array([0.2, 0.5, 0.3])  # of a run that succeeds: at step 10, 20 or 30
SEEDS, TAIL = 12, 5e-4
STUDY = """\
study: truth
task: {{name: parity, bits: 4, subset: 2, test_size: 8}}
model: {{family: mlp, width: 4}}
optimizer: {{learning_rate: 1e-3}}
training: {{steps: 40, batch_size: 1}}
probes: {{every: 10}}
success: {{metric: heldout.accuracy, threshold: 0.9, sustained: 1}}
grid: {{model.width: [4, 8, 16, 32], optimizer.learning_rate: [{rates}]}}
seeds: {{design: paired, count: {seeds}}}
"""


def train(store: LocalStore, pack_id: str, runs: Sequence[Run], p: float, rng: np.random.Generator) -> None:
    """Leave in the store what a pack leaves."""
    ends, rows = [], []
    for run in runs:
        claim(store, run.id, pack_id, (FRESH, ""), {}, after=0)
        succeeds, fate = rng.random() < p, rng.random()
        lost = fate < LOST
        diverges = not lost and not succeeds and rng.random() < DIVERGES
        onset = STEPS[1 + rng.choice(3, p=ONSETS)] if succeeds else np.inf
        for step in STEPS if not (lost or diverges) else STEPS[:2]:
            correct = int(96 + rng.integers(4) if step >= onset else rng.integers(40, 80))
            rows.append((run.id, 1, step, "heldout.accuracy", correct / 100, correct, 100))
        status = Status.FAILED if lost else Status.DIVERGED if diverges else Status.FINISHED
        reason = "" if status is Status.FINISHED else str(status)
        ends.append(RunOutcome(run_id=run.id, attempt=1, status=status, step=STEPS[-1], reason=reason))
    columns = dict(zip(METRICS.names, zip(*rows, strict=True), strict=True))
    table = pa.table({name: list(column) for name, column in columns.items()}, schema=METRICS)

    def write(path: Path) -> dict[str, int]:
        write_table(table, path)
        return {"rows": len(rows), "first_step": 0, "last_step": STEPS[-1]}

    commit(store, PackKeys(pack_id).shard(0), write)
    put_outcome(store, PackOutcome(pack_id=pack_id, runs=tuple(ends)))


def studied(folder: Path, repeats: int) -> StudySummary:
    rates = ", ".join(f"{1e-3 * (1 + i):g}" for i in range(repeats))
    study: Study = parse_study(STUDY.format(rates=rates, seeds=SEEDS), "truth.yaml", Path())
    store = open_store(folder / "store", create=True)
    register(store, study, "truth.yaml")
    rng = np.random.Generator(np.random.PCG64(2026))
    for place, point in enumerate(study.points):
        runs = [run for run in study.runs if run.point.id == point.id]
        for half in (runs[: SEEDS // 2], runs[SEEDS // 2 :]):
            train(store, f"{place:04d}.{half[0].seeds.init:04d}", half, P[dict(point.factors)["model.width"]], rng)
    library = Library(store)
    library.collect("truth")
    return library.summary("truth")


@cache
def coverage(method: str, n: int, p: float) -> float:
    """Return the probability that the interval of n runs holds p: enumerated."""
    interval = {**METHODS, "jeffreys": jeffreys}[method]
    inside = [low <= p <= high for low, high in (interval(k, n) for k in range(n + 1))]
    return float(binom.pmf(np.arange(n + 1), n, p) @ np.array(inside, float))


def bounds(chances: Sequence[float]) -> tuple[int, int]:
    """Return the range that the sum of independent trials with these chances leaves with probability 10^-3."""
    law = np.ones(1)
    for chance in chances:
        law = np.convolve(law, [1 - chance, chance])
    below = np.cumsum(law)
    return int(np.searchsorted(below, TAIL)), int(np.searchsorted(below, 1 - TAIL))


@pytest.fixture(scope="module")
def summary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StudySummary:
    return studied(tmp_path_factory.mktemp("truth"), 80 if request.config.getoption("--full") else 12)


@pytest.mark.parametrize("method", ["wilson", "clopper-pearson", "jeffreys"])
def test_p_is_inside_as_often_as_promised(summary: StudySummary, method: str) -> None:
    interval = {**METHODS, "jeffreys": jeffreys}[method]
    held, chances = 0, []
    for condition in summary.conditions:
        n, p = condition.success.cohort.known, P[condition.condition.factors["model.width"]]
        low, high = interval(condition.successes, n)
        held += low <= p <= high
        chances.append(coverage(method, n, p))
    least, most = bounds(chances)
    assert least <= held <= most, (held, sum(chances), len(chances))
    assert least > 0.8 * len(chances), "the check can fail"


def test_no_run_is_lost_on_the_way(summary: StudySummary) -> None:
    launched = sum(condition.launched for condition in summary.conditions)
    counts = {status: sum(c.counts[status] for c in summary.conditions) for status in Status}
    assert launched == len(summary.conditions) * SEEDS == sum(counts.values())
    least, most = binom.ppf([TAIL, 1 - TAIL], launched, LOST)
    assert least <= counts[Status.FAILED] <= most
    wrong = sum(c.successes for c in summary.conditions) / launched
    assert wrong == pytest.approx((1 - LOST) * np.mean(list(P.values())), abs=0.05)


def test_the_median_onset_is_inside_as_often_as_promised(summary: StudySummary) -> None:
    held, levels = 0, []
    for condition in summary.conditions:
        reached = np.cumsum(P[condition.condition.factors["model.width"]] * ONSETS)
        place = int(np.searchsorted(reached, 0.5))  # where half of the runs are there: the true median
        low, high = (STEPS[place], STEPS[place + 1]) if place < len(ONSETS) else (STEPS[-1], np.inf)
        held += condition.onset.interval[0] <= low and high <= condition.onset.interval[1]
        levels.append(condition.onset.level)
    # Ties at the probes make the interval hold the truth more often than its level, never less.
    assert held >= bounds(levels)[0], (held, sum(levels), len(levels))
