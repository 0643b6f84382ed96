"""The front door for notebooks: the same numbers as everywhere else."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import seedbed
from jobs.errors import ForeignStore, QueryError
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.cli import app
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.scheduler import drive
from tests.orchestrator.conftest import STUDY


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with a study that was really trained."""
    path = tmp_path_factory.mktemp("door") / "store"
    text = STUDY.replace("steps: 12", "steps: 40").replace("threshold", "threshold")
    text += "success: {metric: heldout.accuracy, threshold: 0.5, sustained: 2}\n"
    study = parse_study(text, "tiny.yaml", Path())
    store = open_store(path, create=True)
    register(store, study, "tiny.yaml")
    cluster = InlineCluster(cpus=1)
    drive(study, store, cluster)
    cluster.close()
    return path


def test_runs_metrics_and_sql(folder: Path) -> None:
    store = seedbed.open(folder)
    assert store.studies() == ["tiny"]
    runs = store.runs().pandas()
    assert list(runs["model.width"]) == [4, 4, 4, 8, 8, 8]
    metrics = store.metrics("heldout.accuracy", study="tiny")
    assert metrics.arrow().num_rows == len(metrics) == 6 * 11
    by_sql = store.sql("SELECT * FROM metrics WHERE metric = 'heldout.accuracy'").arrow()
    assert by_sql["value"].to_pylist() == metrics.arrow()["value"].to_pylist()


def test_one_number_everywhere(folder: Path) -> None:
    store = seedbed.open(folder)
    by_door = {label: estimate.value for label, estimate in store.success_probability().items()}
    text = """SELECT condition, avg((value >= 0.5)::INT) AS p FROM metrics JOIN runs USING (run_id)
              WHERE metric = 'heldout.accuracy' AND step = planned_steps GROUP BY ALL"""
    by_sql = {row["condition"]: row["p"] for row in store.sql(text).arrow().to_pylist()}
    printed = CliRunner().invoke(app, ["status", "--store", str(folder), "--json"]).stdout
    by_command = {c["condition"]: c["success"]["value"] for c in json.loads(printed)[0]["conditions"]}
    by_summary = {c.condition.label: c.success.value for c in store.summary().conditions}
    assert by_door == by_sql == by_command == by_summary
    assert set(by_door) == {"model.width=4", "model.width=8"}


def test_the_fan_is_one_everywhere(folder: Path) -> None:
    store = seedbed.open(folder)
    text = """SELECT condition, step, n, q05, q25, q50, q95 FROM rollups WHERE metric = 'heldout.accuracy'
              ORDER BY condition, step"""
    by_sql = store.sql(text).arrow().to_pylist()
    printed = CliRunner().invoke(app, ["query", text, "--store", str(folder), "--json"]).stdout
    assert json.loads(printed) == by_sql
    curves = {c.condition.label: c.curves for c in store.summary().conditions}
    for row in by_sql:
        values = curves[row["condition"]].values[:, curves[row["condition"]].steps == row["step"]]
        assert row["n"] == len(values) == 3
        assert [row["q05"], row["q25"], row["q50"], row["q95"]] == np.quantile(values, [0.05, 0.25, 0.5, 0.95]).tolist()
    assert len(by_sql) == 2 * 11


def test_the_onsets_of_sql_are_those_of_the_summary(folder: Path) -> None:
    store = seedbed.open(folder)
    text = """SELECT condition, high, low FROM onsets JOIN runs USING (run_id) ORDER BY condition, high, low"""
    by_sql = store.sql(text).arrow().to_pylist()
    for condition in store.summary().conditions:
        mine = [(row["low"], row["high"]) for row in by_sql if row["condition"] == condition.condition.label]
        bracket = condition.onset.bracket
        assert mine[1] == (bracket.low, bracket.high), "the middle of three"
    assert len(by_sql) == 6


def test_other_intervals(folder: Path) -> None:
    store = seedbed.open(folder)
    exact = store.success_probability(method="clopper-pearson", level=0.99)["model.width=4"]
    wilson = store.success_probability()["model.width=4"]
    assert (exact.method, exact.level, exact.value) == ("clopper-pearson", 0.99, wilson.value)
    assert exact.high - exact.low > wilson.high - wilson.low


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda s: s.metrics("accuracy"), "there are heldout.accuracy"),
        (lambda s: s.success_probability(method="wald"), "there are wilson"),
        (lambda s: s.sql("SELECT"), "rror"),
    ],
)
def test_bad_questions(folder: Path, ask: Callable[[seedbed.Results], object], told: str) -> None:
    with pytest.raises(QueryError, match=told):
        ask(seedbed.open(folder))


def test_no_store(tmp_path: Path) -> None:
    with pytest.raises(ForeignStore):
        seedbed.open(tmp_path)
