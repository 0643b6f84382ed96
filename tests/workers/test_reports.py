"""What a script reports: rows, checkpoints, ends; every rule, and half lines."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from workers.reports import Diverged, Kept, Measured, ReportRefused, Reports, Row


def report(tmp_path: Path, *lines: Any, resumed: int = -1) -> Reports:
    path = tmp_path / "report.jsonl"
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return Reports(path, resumed, steps=100)


def test_lines_become_rows_checkpoints_and_ends(tmp_path: Path) -> None:
    reports = report(
        tmp_path,
        {"step": 0, "train.loss": 2, "heldout.accuracy": [45, 50]},
        "",
        {"step": 0, "heldout.loss": float("nan")},
        {"checkpoint": 0},
        {"step": 10},
        {"diverged": 11, "reason": "it exploded"},
    )
    first, second, *rest = reports.read()
    rows = (Row("train.loss", 2.0), Row("heldout.accuracy", 0.9, 45, 50))
    assert first == Measured(0, rows)
    assert isinstance(second, Measured)
    assert math.isnan(second.rows[0].value), "what is not a number is a measurement, too"
    assert rest == [Kept(0), Measured(10, ()), Diverged(11, "it exploded")]
    assert list(reports.read()) == []


def test_half_a_line_waits_for_its_end_and_the_last_one_needs_none(tmp_path: Path) -> None:
    reports = report(tmp_path)
    with reports.path.open("a") as file:
        file.write('{"step": 1}\n{"st')
        file.flush()
        assert list(reports.read()) == [Measured(1, ())]
        file.write('ep": 2}')
        file.flush()
        assert list(reports.read()) == []
    assert list(reports.read(is_whole=True)) == [Measured(2, ())]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("metric", ["loss", "train.loss"])
def test_a_loss_that_is_not_finite_is_a_divergence(tmp_path: Path, metric: str, value: float) -> None:
    said = list(report(tmp_path, {"step": 3, "other": 1.0, metric: value}).read())
    assert said == [Diverged(3, f"{metric} stopped being finite")]


def test_a_metric_that_is_told_twice_alike_counts_once(tmp_path: Path) -> None:
    said = list(report(tmp_path, {"step": 3, "epoch": 1.5}, {"step": 3, "epoch": 1.5, "loss": 1}).read())
    assert said == [Measured(3, (Row("epoch", 1.5),)), Measured(3, (Row("loss", 1.0),))]


def test_a_resumed_script_may_measure_where_it_begins(tmp_path: Path) -> None:
    assert len(list(report(tmp_path, {"step": 50, "a": 1}, {"step": 51, "a": 1}, resumed=50).read())) == 2


@pytest.mark.parametrize(
    ("lines", "resumed", "expected"),
    [
        (["loss is 3"], -1, "line 1 of its report: is no JSON: 'loss is 3'"),
        (['{"step": 1}', '{"step": 2, "loss"'], -1, "line 2 of its report: is no JSON"),
        (["[1, 2]"], -1, "says neither step, checkpoint, proof nor diverged"),
        ([{"loss": 1}], -1, "says neither step, checkpoint, proof nor diverged"),
        ([{"proof": {"initial": "0" * 64}}], -1, "proof has digests of init, data, dropout, evaluation"),
        ([{"proof": {"init": "../../x"}}], -1, "is 16 to 64 hexadecimal digits"),
        ([{"step": 0}, {"proof": {"init": "0" * 64}}], -1, "a proof comes before the first step"),
        ([{"step": 1.5}], -1, "step is a whole number from 0 on, not 1.5"),
        ([{"step": True}], -1, "step is a whole number"),
        ([{"step": -1}], -1, "step is a whole number"),
        ([{"step": 10}, {"step": 9}], -1, "step is 9 after 10: steps never go back"),
        ([{"step": 101}], -1, "step is 101, and the study declares 100 steps"),
        ([{"checkpoint": 101}], -1, "checkpoint is 101, and the study declares 100 steps"),
        ([{"step": 1}], 50, "step is 1, but the run goes on from its checkpoint at 50"),
        ([{"step": 5}, {"checkpoint": 5}, {"step": 5, "a": 1}], -1, "is reported before its checkpoint"),
        ([{"checkpoint": 5}, {"checkpoint": 5}], -1, "checkpoint is 5 after 5: they never go back"),
        ([{"checkpoint": 50}], 50, "checkpoint is 50 after 50: they never go back"),
        ([{"step": 5, "a": 1}, {"step": 5, "a": 2}], -1, "a is 2 at step 5, where it was 1.0 before"),
        ([{"step": 5, "a": "high"}], -1, "a is a number, or [k, m] with k of m right, not 'high'"),
        ([{"step": 5, "a": None}], -1, "a is a number"),
        ([{"step": 5, "a": True}], -1, "a is a number"),
        ([{"step": 5, "a": [3, 2]}], -1, "a is a number, or [k, m]"),
        ([{"step": 5, "a": [0, 0]}], -1, "a is a number, or [k, m]"),
        ([{"step": 5, "a": [1, 2, 3]}], -1, "a is a number, or [k, m]"),
        ([{"step": 5, "a": 10**400}], -1, "a is a number"),
        ([{"step": 5, "": 1}], -1, "a metric has a name"),
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_told_with_its_line(
    tmp_path: Path, lines: list[Any], resumed: int, expected: str
) -> None:
    with pytest.raises(ReportRefused) as raised:
        list(report(tmp_path, *lines, resumed=resumed).read())
    assert expected in str(raised.value)
