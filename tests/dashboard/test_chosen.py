"""Chosen runs: by ids or by a filter, over conditions, with the numbers of SQL and of the study's own fan."""

import json
import struct
from typing import Any

import numpy as np
import pytest

import seedbed
from jobs.store import LocalStore
from tests.dashboard.conftest import Visitor


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], values, strict=True)) for values in zip(*table["data"], strict=True)]


def test_all_runs_of_a_condition_are_its_fan(reader: Visitor) -> None:
    chosen = rows(reader.get("/chosen.json?filter=width=4").json)
    fan = [row for row in rows(reader.get("/study/tiny/fan.json").json) if row["condition"] == "model.width=4"]
    assert len(chosen) == len(fan) > 2
    for mine, its in zip(chosen, fan, strict=True):
        assert (mine["step"], mine["n"], mine["launched"]) == (its["step"], its["n"], its["launched"])
        for name in ("mean", "q05", "q25", "q50", "q75", "q95"):
            assert mine[name] == pytest.approx(its[name], rel=1e-12), name


def test_chosen_runs_are_the_answer_of_the_sql_that_is_shown(reader: Visitor, store: LocalStore) -> None:
    runs = rows(reader.get("/rows.json").json)
    ids = [runs[0]["run_id"], runs[-1]["run_id"]]
    assert runs[0]["condition"] != runs[-1]["condition"]
    page = reader.get(f"/chosen.json?run={','.join(ids)}&metric=heldout.loss").json
    by_sql = seedbed.open(store.root).sql(page["question"]["sql"]).arrow().to_pylist()
    assert rows(page) == by_sql
    assert {row["launched"] for row in by_sql} == {2}
    assert reader.get(f"/chosen.csv?run={ids[0]}").text.count("\n") == 1 + len(rows(page))
    body = reader.get(f"/chosen.bin?run={','.join(ids)}&metric=heldout.loss").body
    length = struct.unpack("<I", body[:4])[0]
    head = json.loads(body[4 : 4 + length])
    values = np.frombuffer(body[4 + length :], "<f8").reshape(2, -1)
    assert sorted(head["run_ids"]) == sorted(ids)
    assert values.mean(axis=0).tolist() == pytest.approx([row["mean"] for row in by_sql])


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("run=r1-none", 404),
        ("run=" + ",".join(f"r{i}" for i in range(201)), 400),
        ("filter=none=1", 400),
        ("run=%27) OR (1=1", 404),
        ("study=none", 404),
    ],
)
def test_a_choice_that_cannot_be_is_an_error(reader: Visitor, query: str, status: int) -> None:
    assert reader.get(f"/chosen.json?{query}").status == status
    assert reader.get("/chosen.bin?run=").status == 404


def test_steps_of_a_chart_can_be_bounded(reader: Visitor) -> None:
    whole = rows(reader.get("/study/tiny/values.json").json)
    part = rows(reader.get("/study/tiny/values.json?from=4&to=8").json)
    assert part == [row for row in whole if 4 <= row["step"] <= 8] != []
    assert reader.get("/study/tiny/values.json?from=x").status == 400


def test_two_studies_stand_side_by_side(two_studies: Visitor) -> None:
    page = two_studies.get("/compare.json?with=tiny|model.width=4%0Alarger|model.width=4".replace("%0A", "%0a")).json
    assert page["by_study"].keys() == {"larger", "tiny"}
    assert [(row["study"], row["numbers"]["launched"]) for row in page["rows"]] == [("tiny", 3), ("larger", 4)]
    for row in page["rows"]:
        sql = page["questions"][row["study"]]["fan"]
        answer = two_studies.get(sql["href"].replace("/sql?", "/sql.json?")).json["answer"]
        assert row["fan"] == [r for r in rows(answer) if r["condition"] == row["label"]] != []
