"""Runs of a user's script in other trackers: whatever a script calls its metrics, a tracker holds the rows."""

import json
import os
from pathlib import Path

import pytest

from jobs.store import open_store
from orchestrator.imports.tensorboard import read_events
from orchestrator.imports.wandb_files import read_offline
from orchestrator.library import Library
from orchestrator.mirrors.wandb_runs import name_there
from tests.cli import invoke

Cell = tuple[str, int, str, str]
STUDY = """\
study: mine
engine: {command: python train.py}
model: {kind: linear, sizes: [4, 2], nothing: null}
optimizer: {learning_rate: 0.05, betas: [0.9, 0.95]}
training: {steps: 6, batch_size: 1}
grid: {optimizer.betas: [[0.9, 0.95], [0.8, 0.9]]}
probes: {every: 2}
checkpoints: {milestones: [4]}
seeds: {design: paired, count: 2}
execution: {retries: 1}
"""
# It dies once, after its checkpoint; steps have other metrics each, and names that trackers use for themselves.
SCRIPT = """\
import os, seedbed
run = seedbed.given()
begin = run.resume_step + 1 if run.resume_folder else 0
for step in range(begin, run.steps + 1):
    said = {"train.loss": run.seeds.init + 1 / (step + 1), "heldout.accuracy": (step, 7), "a/b c.δ": 1e-300 * step}
    if step % 2:
        said |= {"_step": 100.0 - step, "_timestamp": 5.0, "_runtime": 7.0, "_own": 1.0, "metric._own": 2.0, "s_": 3.0}
    else:
        said |= {"x": 1.0, "x.y": 2.0, "x/y": 3.0, "nan": float("nan"), "inf": float("-inf"), "large": 2**60 + 1}
    seedbed.log(step, said)
    if run.saves_at(step):
        (seedbed.checkpoint_folder(step) / "state").write_text(str(step))
        seedbed.checkpoint(step)
    if step == 5 and run.attempt == 1:
        os._exit(3)
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a store in which the script has trained."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "train.py").write_text(SCRIPT)
    (folder / "mine.yaml").write_text(STUDY)
    told = invoke(
        *("run", str(folder / "mine.yaml"), "--store", str(folder / "store"), "--cluster", "inline"),
        *("--cpus", "1", "--no-report", "--json"),
    )
    assert [one["finished"] for one in json.loads(told)["conditions"]] == [2, 2]
    return folder


def committed(home: Path) -> list[Cell]:
    table = Library(open_store(home / "store")).tables("mine")["metrics"]
    columns = (table[name].to_pylist() for name in ("run_id", "step", "metric", "value"))
    return sorted((run, step, metric, repr(value)) for run, step, metric, value in zip(*columns, strict=True))


def test_the_script_has_left_rows_of_every_kind(home: Path) -> None:
    cells = committed(home)
    runs = sorted({run for run, *_ in cells})
    assert len(runs) == 4
    assert len({cell[:3] for cell in cells}) == len(cells) == 4 * (3 * 7 + 3 * 6 + 4 * 6)
    assert {value for _, _, metric, value in cells if metric == "nan"} == {"nan"}
    attempts = Library(open_store(home / "store")).tables("mine")["attempts"].to_pylist()
    assert sorted(one["attempt"] for one in attempts) == [1] * 4 + [2] * 4


def test_offline_runs_of_wandb_hold_the_rows_of_a_script(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = json.loads(invoke("sync", "wandb", "mine", "--store", str(home / "store"), "--json"))
    assert told["runs"] == 4
    assert told["rows"] == len(committed(home))
    table = read_offline(Path(told["folder"]))
    columns = (table[name].to_pylist() for name in ("run", "step", "metric", "value"))
    found = sorted((run, step, metric, repr(value)) for run, step, metric, value in zip(*columns, strict=True))
    assert found == sorted((run, step, name_there(name), value) for run, step, name, value in committed(home))
    assert {"metric._step", "metric._timestamp", "metric.metric._own"} <= {name for _, _, name, _ in found}


def test_event_files_hold_the_rows_of_a_script(home: Path) -> None:
    told = json.loads(invoke("sync", "tensorboard", "mine", "--store", str(home / "store"), "--json"))
    assert told["runs"] == 4
    table = read_events(Path(told["folder"]))
    columns = (table[name].to_pylist() for name in ("run", "step", "metric", "value"))
    found = [(run.rpartition("/")[2], step, name, repr(value)) for run, step, name, value in zip(*columns, strict=True)]
    assert sorted(found) == committed(home)
