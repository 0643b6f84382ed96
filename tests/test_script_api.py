"""What a script says and asks through `import seedbed`: nothing heavy comes along, and all goes through files."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seedbed
from seedbed import script


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that is laid out as a pack does it, and named by the environment."""
    for name in ("SPEC", "REPORT", "CHECKPOINTS"):
        monkeypatch.setenv(f"SEEDBED_{name}", str(tmp_path / name.lower()))
    monkeypatch.setattr(script, "_announced", [])
    return tmp_path


def said(places: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (places / "report").read_text().splitlines()]


def test_importing_it_takes_the_standard_library_alone() -> None:
    heavy = ["torch", "ray", "numpy", "pyarrow", "pydantic", "duckdb", "jobs", "orchestrator"]
    check = f"import sys, seedbed; seedbed.log; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert seedbed.open.__module__ == "seedbed.results"
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        seedbed.opne  # noqa: B018


def test_measurements_of_any_kind_of_number(places: Path) -> None:
    seedbed.log(step=3, loss=torch.tensor(0.5), **{"heldout.accuracy": (np.int64(3), 4)})
    seedbed.log(4, {"a": np.float32(0.25)}, b=float("nan"))
    assert said(places)[0] == {"step": 3, "loss": 0.5, "heldout.accuracy": [3, 4]}
    assert np.isnan(said(places)[1].pop("b"))
    with pytest.raises(ValueError, match=r"a: .*a measurement is a number"):
        seedbed.log(5, a="high")
    with pytest.raises(TypeError, match=r"a: .*a measurement is a number"):
        seedbed.log(5, a=None)


def test_checkpoints_are_announced_when_whole_and_wait_for_the_one_before(places: Path) -> None:
    (seedbed.checkpoint_folder(10) / "w").write_text("1")
    seedbed.checkpoint(10)
    assert said(places) == [{"checkpoint": 10}]
    own = places / "own"
    (own / "deep").mkdir(parents=True)
    (own / "deep" / "v").write_text("2")
    second = threading.Thread(target=seedbed.checkpoint, args=(20, own))
    second.start()
    second.join(0.1)
    assert said(places) == [{"checkpoint": 10}], "the one before is not committed yet"
    (places / "checkpoints" / "10" / "w").unlink()
    (places / "checkpoints" / "10").rmdir()
    second.join(10)
    assert said(places)[1:] == [{"checkpoint": 20}]
    assert (places / "checkpoints" / "20" / "deep" / "v").read_text() == "2"


def test_started_by_hand_a_script_is_told_so_and_what_it_says_goes_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RuntimeError, match="SEEDBED_SPEC is not set"):
        seedbed.given()
    seedbed.log(1, loss=1.0)
    seedbed.diverged(1)
    seedbed.checkpoint(1)
    assert list(tmp_path.iterdir()) == []


def test_the_run_that_is_given(places: Path) -> None:
    body = {
        "run_id": "r1-x",
        "attempt": 2,
        **{part: {part: 1} for part in ("task", "model", "optimizer", "training")},
        "seeds": {"init": 1, "data": 2, "dropout": 3, "evaluation": 4},
        "steps": 20,
        "resume_step": 10,
        "resume_folder": str(places / "resume"),
        "device": "cpu",
        "threads": 1,
        "processes": 1,
        "probes": [0, 5, 10, 15, 20],
        "milestones": [0, 20],
        "rolling_every": 8,
    }
    (places / "spec").write_text(json.dumps(body))
    run = seedbed.given()
    assert (run.seeds.init, run.seeds.evaluation, run.model) == (1, 4, {"model": 1})
    assert run.resume_folder == places / "resume"
    assert [step for step in range(21) if run.saves_at(step)] == [0, 8, 16, 20]
    assert [step for step in range(21) if run.probes_at(step)] == body["probes"]
    (places / "spec").write_text(json.dumps(body | {"resume_folder": "", "resume_step": 0}))
    assert seedbed.given().resume_folder is None


def test_stopping_takes_the_signal_over(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for name in ("_told_to_stop", "_listens"):
        monkeypatch.setattr(script, name, threading.Event())
    try:
        assert not seedbed.stopping()
        os.kill(os.getpid(), signal.SIGTERM)
        assert seedbed.stopping()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_seeds_made_has_one_digest_and_others_have_others(places: Path) -> None:
    values: list[Any] = [
        torch.arange(4.0),
        torch.arange(4),
        torch.arange(4.0).reshape(2, 2),
        torch.arange(4.0, dtype=torch.bfloat16),
        np.arange(4.0),
        [1, [2, 3]],
        [[1, 2], 3],
        {"a": b"x", "b": "y"},
        {"a": b"xb", "b": "y"},
        "12",
        12,
    ]
    for value in [*values, *values]:
        seedbed.prove(init=value)
    digests = [line["proof"]["init"] for line in said(places)]
    assert digests[: len(values)] == digests[len(values) :]
    assert len(set(digests)) == len(values)
