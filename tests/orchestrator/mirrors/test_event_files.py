"""TensorBoard's files: what is written is what the importer reads, value for value, and never twice."""

from math import inf, nan
from pathlib import Path

import pytest

from jobs.errors import MirrorError
from orchestrator.imports.tensorboard import read_events
from orchestrator.mirrors import MirroredRun
from orchestrator.mirrors.event_files import EventFiles

CURVE = {
    0: {"loss": 1 / 3, "accuracy": 0.1},
    50: {"loss": nan},
    100: {"loss": inf, "accuracy": 1e-300},
    10**9: {"loss": -2.0},
}


def run(first_step: int = 0, factors: dict[str, object] | None = None, seed: int = 3) -> MirroredRun:
    factors = {"model.width": 8} if factors is None else factors
    seeds = {"init": seed, "data": seed, "dropout": seed, "evaluation": 0}
    return MirroredRun(f"r1-{seed:020x}", "widths", "model.width=8", "one", factors, seeds, {}, first_step)


def send(mirror: EventFiles, one: MirroredRun, curve: dict[int, dict[str, float]]) -> None:
    mirror.begin(one)
    for step, values in curve.items():
        mirror.log(step, values)
    mirror.end("finished")


def cells(folder: Path) -> list[tuple[int, str, str]]:
    rows = read_events(folder).to_pylist()
    return sorted((row["step"], row["metric"], repr(row["value"])) for row in rows)


def expected(*curves: dict[int, dict[str, float]]) -> list[tuple[int, str, str]]:
    return sorted((s, name, repr(value)) for curve in curves for s, row in curve.items() for name, value in row.items())


def test_every_value_comes_back_as_it_was(tmp_path: Path) -> None:
    send(EventFiles(tmp_path, lambda: 1.7e9), run(), CURVE)
    assert cells(tmp_path) == expected(CURVE)
    table = read_events(tmp_path)
    assert set(table["wall_time"].to_pylist()) == {1.7e9}
    assert (table["model.width"][0].as_py(), table["seed_init"][0].as_py()) == (8, 3)


def test_sending_the_same_steps_again_replaces_them(tmp_path: Path) -> None:
    mirror = EventFiles(tmp_path)
    send(mirror, run(), {0: {"loss": 1.0}})
    send(mirror, run(), CURVE)  # as after a death before it was noted
    send(mirror, run(first_step=10**9 + 1), {2 * 10**9: {"loss": 0.0}})
    assert cells(tmp_path) == expected(CURVE, {2 * 10**9: {"loss": 0.0}})


def test_what_was_not_ended_is_not_there(tmp_path: Path) -> None:
    mirror = EventFiles(tmp_path)
    mirror.begin(run())
    mirror.log(0, {"loss": 1.0})
    mirror.abandon()
    assert not list(tmp_path.iterdir())


def test_odd_factors_make_good_folders(tmp_path: Path) -> None:
    odd = {"task.corpora": {"a/b": "../c"}, "model.norm": "rms norm", "training.z": True}
    send(EventFiles(tmp_path), run(factors=odd), CURVE)
    (file,) = tmp_path.rglob("*tfevents*")
    assert len(file.relative_to(tmp_path).parts) == 3 + 4 + 2
    assert read_events(tmp_path)["model.norm"][0].as_py() == "rms%20norm"


def test_a_folder_that_cannot_be_written_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "model.width=8").write_text("a file in the way")
    with pytest.raises(MirrorError, match="cannot be written"):
        send(EventFiles(tmp_path), run(), CURVE)
