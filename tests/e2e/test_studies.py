"""Three of the shipped studies, whole, as `make studies` runs them: figures, estimates, and what their pages say."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from jobs.records import Status
from jobs.store import open_store
from orchestrator.library import Library

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(1200)


def made(name: str, folder: Path) -> Path:
    """Return the folder of a study's report, after it was run with all that its page asks."""
    done = subprocess.run(
        [sys.executable, "docs/make_studies.py", str(folder / "store"), name], cwd=ROOT, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report = folder / "store.report" / name
    assert (report / "report.html").stat().st_size > 10_000
    told = (report / "estimates.txt").read_text(encoding="utf-8")
    assert told.count("$ seedbed estimate ") >= 4
    assert "Unit of replication: " in told
    return report


def last_means(folder: Path, metric: str) -> dict[str, float]:
    """Return condition → the mean of a metric at the last step of its runs, all of which have finished."""
    library = Library(open_store(folder / "store"))
    (name,) = library.names()
    tables = library.tables(name)
    runs = {row["run_id"]: row for row in tables["runs"].to_pylist()}
    assert {row["status"] for row in runs.values()} == {Status.FINISHED}
    found = tables["metrics"].filter(pc.field("metric") == metric).sort_by("step").to_pylist()
    last = {row["run_id"]: row["value"] for row in found}
    by_condition: dict[str, list[float]] = {}
    for run_id, value in sorted(last.items()):
        by_condition.setdefault(runs[run_id]["condition"], []).append(value)
    return {condition: float(np.mean(values)) for condition, values in by_condition.items()}


def test_experts_are_beaten_with_every_seed(tmp_path: Path) -> None:
    report = made("experts", tmp_path)
    assert (report / "scores.png").stat().st_size > 5_000
    beaten = last_means(tmp_path, "heldout.transcends")
    assert len(beaten) == 4
    assert set(beaten.values()) == {1.0}


def test_what_was_shown_more_often_is_remembered_more(tmp_path: Path) -> None:
    report = made("planted", tmp_path)
    assert (report / "words.png").stat().st_size > 5_000
    often, once = (last_means(tmp_path, f"seen_{count}.token_accuracy") for count in (100, 1))
    assert max(often, key=often.__getitem__) == "model.width=64"
    assert often["model.width=64"] > 0.9
    assert max(once.values()) < 0.1


def test_twins_end_with_shares_of_variance(tmp_path: Path) -> None:
    report = made("twins", tmp_path)
    assert (report / "variance.png").stat().st_size > 5_000
    told = (report / "estimates.txt").read_text(encoding="utf-8")
    assert "seedbed estimate variance" in told
    assert all(share in told for share in ("init", "data", "interaction"))
    assert len(last_means(tmp_path, "heldout.accuracy")) == 2
