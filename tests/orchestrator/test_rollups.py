"""Roll-ups: numpy's quantiles to the bit, an n that shrinks with the runs, and no trace of the order of rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.records import QUANTILES, ROLLUPS, Status
from orchestrator.query import sql
from orchestrator.rollups import Group, roll_up, rollups_of
from tests.orchestrator.made import made

STATUSES = {(0, 3): Status.DIVERGED, (0, 4): Status.FAILED, (1, 5): Status.WAITING}


def rolled(rows: list[tuple[str, int, float]], statuses: dict[str, str] | None = None) -> list[dict[str, object]]:
    columns = list(zip(*rows, strict=True)) if rows else [[], [], []]
    arrays = [pa.array(c, t) for c, t in zip(columns, (pa.string(), pa.int64(), pa.float64()), strict=True)]
    table = pa.table(arrays, names=["run_id", "step", "value"])
    status = statuses or {run: "finished" for run, _, _ in rows}
    return roll_up(Group("c", "width=4", status), "m", table).to_pylist()


def test_numbers_by_hand() -> None:
    statuses = {"a": "finished", "b": "diverged", "c": "running", "d": "waiting"}
    first, last = rolled([("a", 0, 1.0), ("b", 0, 3.0), ("c", 0, 2.0), ("a", 9, 5.0)], statuses)
    assert (first["launched"], first["n"], first["finished"], first["diverged"]) == (4, 3, 1, 1)
    assert (first["mean"], first["sd"], first["min"], first["q50"], first["max"]) == (2.0, 1.0, 1.0, 2.0, 3.0)
    assert first["q25"] == 1.5
    assert (last["n"], last["mean"], last["sd"], last["q05"]) == (1, 5.0, None, 5.0)


finite = st.floats(-1e6, 1e6)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.lists(finite, min_size=1, max_size=9)), max_size=5, unique_by=lambda p: p[0]
    )
)
def test_quantiles_are_those_of_numpy_to_the_bit(cells: list[tuple[int, list[float]]]) -> None:
    rows = [(f"r{i}", step, value) for step, values in cells for i, value in enumerate(values)]
    found = {row["step"]: row for row in rolled(rows)}
    assert sorted(found) == sorted(step for step, _ in cells)
    for step, values in cells:
        for name, q in QUANTILES.items():
            assert found[step][name] == np.quantile(values, q)
        assert found[step]["mean"] == pytest.approx(np.mean(values), rel=1e-12, abs=1e-9)
        if len(values) > 1:
            assert found[step]["sd"] == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)


def test_values_that_are_no_numbers_are_not_among_the_n_and_infinite_ones_are() -> None:
    nan, inf = float("nan"), float("inf")
    rows = [("a", 0, nan), ("b", 0, 1.0), ("c", 0, inf), ("a", 1, nan), ("a", 2, inf), ("b", 2, inf)]
    zero, one, two = rolled(rows)
    assert (zero["n"], zero["min"], zero["max"], zero["q05"], zero["q95"]) == (2, 1.0, inf, inf, inf)
    assert (one["n"], one["mean"], one["q50"], one["finished"]) == (0, None, None, 0)
    assert rolled([("a", 0, -inf), ("b", 0, 1.0)])[0]["q90"] == -inf
    assert (two["n"], two["q50"], two["max"], two["mean"], two["sd"]) == (2, inf, inf, inf, None)


def test_every_condition_metric_and_step_is_a_row_whatever_the_order() -> None:
    _, tables = made([0.25, 0.5], statuses=STATUSES)
    expected = rollups_of(tables["runs"], tables["metrics"])
    assert expected.schema.equals(ROLLUPS)
    assert expected.num_rows == 2 * 5
    assert expected["n"].to_pylist() == [20, 20, 18, 18, 18, 19, 19, 19, 19, 19]
    assert expected["diverged"].to_pylist() == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    generator = np.random.default_rng(1)
    for _ in range(5):
        runs, rows = (
            tables[name].take(pa.array(generator.permutation(tables[name].num_rows))) for name in ("runs", "metrics")
        )
        assert rollups_of(runs, rows).equals(expected)


def test_the_fan_from_sql_over_the_rows_is_the_roll_up() -> None:
    _, tables = made([0.25, 0.5], statuses=STATUSES)
    rolled = rollups_of(tables["runs"], tables["metrics"])
    text = """SELECT condition_id, step, count(*) AS n,
                     quantile_cont(value, 0.5) AS q50, quantile_cont(value, 0.95) AS q95
              FROM metrics JOIN runs USING (run_id) GROUP BY ALL ORDER BY ALL"""
    by_rows = sql(tables, text)
    for name in ("condition_id", "step", "n"):
        assert by_rows[name].to_pylist() == rolled[name].to_pylist()
    for name in ("q50", "q95"):
        assert by_rows[name].to_pylist() == pytest.approx(rolled[name].to_pylist(), rel=1e-15)


def test_without_rows_there_is_nothing() -> None:
    _, tables = made([0.0], statuses={(0, seed): Status.WAITING for seed in range(20)})
    assert rollups_of(tables["runs"], tables["metrics"]).equals(ROLLUPS.empty_table())
