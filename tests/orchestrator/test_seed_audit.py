"""Seeds that do not do what the design says stop the study before its first step, with the pair of runs named."""

from pathlib import Path

import pytest

from jobs.errors import SeedError
from jobs.store import LocalStore, get_record, put_record
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from orchestrator.seed_audit import Proven, check, read_proof

HEAD = """\
from jobs.seeds import Streams, Seeds
from jobs.tasks import Batch
from jobs.tasks.parity import Parity

class Mine(Parity):
"""
IGNORES_DATA = """\
    def batch(self, streams, step, size):
        return super().batch(Streams(Seeds(0, 7, 0, streams.seeds.evaluation)), step, size)
"""
COLLIDES = """\
    def batch(self, streams, step, size):
        seeds = streams.seeds
        return super().batch(Streams(Seeds(seeds.init, seeds.data // 2, seeds.dropout, seeds.evaluation)), step, size)
"""
DATA_FROM_INIT = """\
    def batch(self, streams, step, size):
        seeds = streams.seeds
        return super().batch(Streams(Seeds(seeds.init, seeds.init, seeds.dropout, seeds.evaluation)), step, size)
"""
EVALUATION_VARIES = """\
    def held_out(self, streams):
        seeds = streams.seeds
        return super().held_out(Streams(Seeds(seeds.init, seeds.data, seeds.dropout, seeds.data)))
"""
STUDY = """\
study: mine
task: {{name: "task.py:Mine", bits: 8, subset: 2, test_size: 32}}
model: {{family: mlp, width: 4}}
optimizer: {{learning_rate: 3e-3}}
training: {{steps: 4, batch_size: 8}}
probes: {{every: 2}}
seeds: {seeds}
grid: {{optimizer.learning_rate: [1e-3, 3e-3]}}
"""
PAIRED, CROSSED = "{design: paired, count: 4}", "{design: crossed, init: 2, data: 2}"


def study(folder: Path, body: str, seeds: str) -> Study:
    (folder / "task.py").write_text(HEAD + body)
    return parse_study(STUDY.format(seeds=seeds), "mine.yaml", folder)


def driven(store: LocalStore, made: Study) -> None:
    register(store, made, "mine.yaml")
    cluster = InlineCluster(cpus=1)
    try:
        drive(made, store, cluster, calibrate=False)
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("body", "seeds", "factor", "told"),
    [
        (IGNORES_DATA, PAIRED, "data", "the same first batches: the seed is ignored, or two seeds collide"),
        (COLLIDES, PAIRED, "data", "seeds 0 and 1, but the same first batches"),
        (DATA_FROM_INIT, CROSSED, "data", "hold the data seed at"),
        (EVALUATION_VARIES, PAIRED, "evaluation", "hold the evaluation seed at 0, but have different held-out sets"),
    ],
)
def test_a_task_that_does_not_do_what_its_seeds_say(
    store: LocalStore, tmp_path: Path, body: str, seeds: str, factor: str, told: str
) -> None:
    made = study(tmp_path, body, seeds)
    with pytest.raises(SeedError, match=told) as caught:
        driven(store, made)
    fault = next(f for f in caught.value.faults if told in f)
    assert fault.startswith(f"{factor}: runs ")
    assert sum(run.id in fault for run in made.runs) == 2, "the pair is named"
    assert store.keys("attempts/") == store.keys("packs/") == [], "nothing was trained"


def test_an_honest_task_passes_and_its_digests_are_a_table(store: LocalStore, tmp_path: Path) -> None:
    made = study(tmp_path, "    pass\n", CROSSED)
    driven(store, made)
    rows = Library(store).tables("mine")["probes_of_seeds"].to_pylist()
    assert len(rows) == 4 * len(made.runs)
    init = {(row["seed"], row["digest"]) for row in rows if row["factor"] == "init"}
    assert len(init) == 2, "two init seeds make two sets of weights, the same ones in both conditions"
    assert len({row["digest"] for row in rows if row["factor"] == "evaluation"}) == 1


def test_the_proof_holds_when_a_study_is_extended(store: LocalStore, tmp_path: Path) -> None:
    """Honest for the first seeds, a clone of seed 1 from seed 4 on: only the extension can tell."""
    late = """\
    def batch(self, streams, step, size):
        seeds = streams.seeds
        data = 1 if seeds.data >= 4 else seeds.data
        return super().batch(Streams(Seeds(seeds.init, data, seeds.dropout, seeds.evaluation)), step, size)
"""
    driven(store, study(tmp_path, late, PAIRED))
    before = sorted(store.keys("attempts/"))
    larger = study(tmp_path, late, PAIRED.replace("4", "6"))
    with pytest.raises(SeedError, match=r"data seeds \d and \d, but the same first batches"):
        driven(store, larger)
    assert sorted(store.keys("attempts/")) == before


def test_seeds_that_make_something_else_than_at_their_proof_are_told(store: LocalStore, tmp_path: Path) -> None:
    made = study(tmp_path, "    pass\n", PAIRED)
    driven(store, made)
    assert set(read_proof(store, "mine")) == {run.id for run in made.runs}
    record = get_record(store, "proofs/mine.0001.json")
    record["runs"][0][2][1][1] = "0" * 64  # the first run's first batches, as another numpy drew them
    put_record(store, "proofs/mine.0002.json", record)
    larger = study(tmp_path, "    pass\n", PAIRED.replace("4", "5"))
    with pytest.raises(SeedError, match="has other first batches than when it was proven first"):
        driven(store, larger)


def rows(*given: tuple[str, str, str]) -> list[Proven]:
    return [Proven(run, "init", "scope", seed, digest) for run, seed, digest in given]


def test_every_kind_of_fault_and_none_without_one() -> None:
    assert list(check(rows(("a", "1", "x"), ("b", "2", "y"), ("c", "1", "x")))) == []
    (clone,) = check(rows(("a", "1", "x"), ("b", "2", "x")))
    assert clone == (
        "init: runs a and b have the init seeds 1 and 2, but the same initial weights: "
        "the seed is ignored, or two seeds collide"
    )
    (chance,) = check(rows(("a", "1", "x"), ("b", "1", "y")))
    assert chance == "init: runs a and b hold the init seed at 1, but have different initial weights"
    assert list(check(rows(("a", "1", ""), ("b", "2", "")))) == [], "a task that fails is told by its runs"


def test_other_scopes_are_not_compared() -> None:
    one, two = Proven("a", "data", "s", "1", "x"), Proven("b", "data", "t", "1", "y")
    assert list(check([one, two])) == []


def test_the_order_of_runs_tells_nothing() -> None:
    given = rows(("a", "1", "x"), ("b", "2", "x"), ("c", "1", "z"))
    assert list(check(given)) == list(check(given[::-1]))
