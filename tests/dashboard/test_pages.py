"""Pages and files: the numbers of SQL, hostile names as text, paths that lead nowhere, formulas that stay text."""

import csv
import io
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seedbed
from jobs.errors import NotFound, QueryError
from jobs.layout import PackKeys
from jobs.records import TABLES, Status
from jobs.store import LocalStore, open_store
from orchestrator.answers import csv_of
from orchestrator.collected import Collected
from orchestrator.dashboard.alerts import Alarm, Pace, alerts_of
from orchestrator.dashboard.charts import reduce_to_pixels
from orchestrator.dashboard.feed import Feed, News, Shelf
from orchestrator.dashboard.filters import Columns, where
from orchestrator.dashboard.news import _Reader, study_event
from orchestrator.dashboard.pages.run import log_tail
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import load_tokens
from orchestrator.library import Library
from orchestrator.query import sql
from orchestrator.rollups import rollups_of
from orchestrator.summary import summarise
from tests.dashboard.conftest import Visitor, with_factors
from tests.orchestrator.made import made

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&\"'{{ 7*7 }}"

NAME = HOSTILE.replace("/", "")  # a path ends at a slash


def rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    return [dict(zip(table["columns"], values, strict=True)) for values in zip(*table["data"], strict=True)]


def test_every_page_is_also_json(reader: Visitor) -> None:
    run_id = reader.get("/rows.json").json["data"][0][0]
    for path in ("/home", "/study/tiny", "/runs", f"/run/{run_id}", "/cluster", "/sql", "/compare"):
        page, data = reader.get(path), reader.get(f"{path}.json")
        assert (page.status, data.status) == (200, 200), path
        block = page.text.split('<script type="application/json" id="page-data">')[1].split("</script>")[0]
        assert json.loads(block) == data.json, "a page holds its JSON and nothing else"


def test_the_study_page_says_what_python_and_sql_say(reader: Visitor, store: LocalStore) -> None:
    page, results = reader.get("/study/tiny.json").json, seedbed.open(store.root)
    summary = results.summary("tiny")
    for shown, condition in zip(page["conditions"], summary.conditions, strict=True):
        assert shown["success"]["value"] == condition.success.value
        assert (shown["success"]["low"], shown["success"]["high"]) == (condition.success.low, condition.success.high)
        assert shown["runs"] == "fff"
    asked = results.sql(page["questions"]["counts"]["sql"]).arrow().to_pylist()
    assert {(r["condition"], r["successes"], r["known"]) for r in asked} == {
        (c["condition"], c["successes"], c["known"]) for c in page["conditions"]
    }
    for kind, of in (("success", "success"), ("onsets", "onset")):
        asked = {r["condition"]: r for r in results.sql(page["questions"][kind]["sql"]).arrow().to_pylist()}
        for shown in page["conditions"]:
            bounds = [shown["success"]["low"], shown["success"]["high"]] if of == "success" else shown[of]["interval"]
            assert [finite(asked[shown["condition"]][end]) for end in ("low", "high")] == bounds


def finite(value: Any) -> Any:
    """Return what JSON has in its place: it knows no infinity."""
    return None if isinstance(value, float) and np.isinf(value) else value


@pytest.mark.parametrize("chart", ["fan", "scores", "success", "counts", "onsets", "statuses", "cells"])
def test_a_chart_is_the_answer_of_the_sql_that_it_shows(reader: Visitor, store: LocalStore, chart: str) -> None:
    question = reader.get("/study/tiny.json").json["questions"][chart]
    by_sql = seedbed.open(store.root).sql(question["sql"]).arrow()
    drawn = reader.get(f"/study/tiny/{chart}.json").json
    assert rows(drawn) == [{k: finite(v) for k, v in row.items()} for row in by_sql.to_pylist()]
    assert drawn["rows"] > 0
    as_csv = list(csv.DictReader(io.StringIO(reader.get(f"/study/tiny/{chart}.csv").text)))
    assert [row["condition"] for row in as_csv] == by_sql["condition"].to_pylist()
    parquet = pa.parquet.read_table(pa.BufferReader(reader.get(f"/study/tiny/{chart}.parquet").body))
    assert parquet.to_pylist() == by_sql.to_pylist()
    assert reader.get(question["href"].replace("/sql?", "/sql.json?")).json["answer"]["data"] == drawn["data"]


def test_no_page_holds_all_rows_in_memory(reader: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def whole(_: Collected) -> pa.Table:
        raise AssertionError("the table metrics was loaded as a whole")

    monkeypatch.setattr(Collected, "_whole", whole)
    reader.dashboard.view.feed._seen.clear()
    reader.dashboard.view.feed.look()
    run_id = reader.get("/rows.json").json["data"][0][0]
    others = (
        "/study/tiny/lines.bin?condition=model.width=4&metric=heldout.loss",
        "/sql?q=SELECT+count(*)+FROM+metrics",
    )
    for path in ("/home", "/study/tiny", "/runs?group=status", f"/run/{run_id}", "/cluster", "/compare", *others):
        assert reader.get(path).status == 200, path
    assert reader.get("/sql.json?q=SELECT+count(*)+FROM+metrics").json["answer"]["rows"] == 1


def test_a_delta_is_the_tail_of_the_whole(reader: Visitor) -> None:
    whole = rows(reader.get("/study/tiny/fan.json").json)
    assert rows(reader.get("/study/tiny/fan.json?after=8").json) == [row for row in whole if row["step"] >= 8]


def test_lines_are_the_values_of_sql(reader: Visitor, store: LocalStore) -> None:
    body = reader.get("/study/tiny/lines.bin?condition=model.width%3D4".replace("%3D", "=")).body
    length = struct.unpack("<I", body[:4])[0]
    head = json.loads(body[4 : 4 + length])
    values = np.frombuffer(body[4 + length :], "<f8").reshape(len(head["run_ids"]), len(head["steps"]))
    text = "SELECT run_id, step, value FROM metrics WHERE metric = 'heldout.accuracy'"
    by_sql = {(r["run_id"], r["step"]): r["value"] for r in seedbed.open(store.root).sql(text).arrow().to_pylist()}
    assert head["launched"] == len(head["run_ids"]) == 3
    for i, run_id in enumerate(head["run_ids"]):
        assert values[i].tolist() == [by_sql[run_id, step] for step in head["steps"]]


def test_reduction_keeps_every_spike_and_asks_nothing_of_few_steps() -> None:
    generator = np.random.default_rng(1)
    steps = np.arange(10_000, dtype=np.int64) * 7
    values = generator.normal(size=(5, 10_000))
    values[2, 1234] = 99.0
    values[3, 100:9000] = np.nan
    shown_steps, shown = reduce_to_pixels(steps, values, 300)
    assert shown.shape[1] <= 600
    assert (np.nanmax(shown, axis=1) == np.nanmax(values, axis=1)).all()
    assert (np.nanmin(shown, axis=1) == np.nanmin(values, axis=1)).all()
    edges = np.linspace(steps[0], steps[-1], 301)
    for low, high in pairwise(edges[:-1]):
        inside, seen = (steps >= low) & (steps < high), (shown_steps >= low) & (shown_steps < high)
        assert np.array_equal(np.nanmax(shown[:3, seen], axis=1), np.nanmax(values[:3, inside], axis=1))
    few = reduce_to_pixels(steps[:500], values[:, :500], 300)
    assert np.array_equal(few[0], steps[:500])


def test_the_runs_filter_is_sql_and_groups_are_sql(reader: Visitor, store: LocalStore) -> None:
    page = reader.get("/runs.json?filter=width=8&group=status").json
    assert page["matching"] == 3
    assert page["launched"] == 6
    group = page["groups"]["rows"][0]
    by_sql = seedbed.open(store.root).sql(page["groups"]["question"]["sql"]).arrow().to_pylist()
    assert group == by_sql[0]
    assert (group["status"], group["runs"], group["n"]) == ("finished", 3, 3)
    places = reader.get("/places.json?filter=width=8").json["places"]
    all_rows = rows(reader.get("/rows.json").json)
    assert [all_rows[place]["model.width"] for place in places] == [8, 8, 8]
    assert reader.get("/places.json?filter=nothing=1").status == 400
    assert len(rows(reader.get("/rows.json?filter=-width=8").json)) == 3


COLUMNS = Columns({"model.width": True, "task.order": False, "x.order": False, "run_id": False})


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_a_filter_is_an_error_or_one_harmless_condition(text: str) -> None:
    tables = {
        "t": pa.table({name: pa.array([1] if is_number else ["a"]) for name, is_number in COLUMNS.numeric.items()})
    }
    try:
        condition = where(text, COLUMNS, ["run_id"])
    except QueryError:
        return
    counted = sql(tables, f"SELECT count(*) AS n FROM t WHERE {condition}")  # noqa: S608
    assert counted["n"][0].as_py() in (0, 1)


def test_filters_say_what_is_wrong() -> None:
    assert where('width>=16 -run_id~ab "c d"', COLUMNS, ["run_id"]) == (
        '"model.width" >= 16 AND NOT coalesce(contains(lower("run_id"::VARCHAR), \'ab\'), false) AND '
        "(contains(lower(\"run_id\"::VARCHAR), 'c d'))"
    )
    for text, told in (
        ("order=a", "may mean"),
        ("none=1", "is none of"),
        ("width=x", "is none"),
        ('a "b', "cannot be read"),
    ):
        with pytest.raises(QueryError, match=told):
            where(text, COLUMNS, ["run_id"])


def test_formulas_in_csv_are_text() -> None:
    cells = ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "fine", "a=b", None]
    table = pa.table({"=head": cells, "number": [-1] * len(cells)})
    read = list(csv.reader(io.StringIO(csv_of(table).decode(), newline="")))
    assert read[0] == ["'=head", "number"]
    assert [row[0] for row in read[1:]] == ["'=1+1", "'+1", "'-1", "'@x", "'\t=1", "'\r=1", "fine", "a=b", ""]
    assert {row[1] for row in read[1:]} == {"-1"}, "a number is no formula"


@pytest.mark.parametrize(
    "path",
    [
        "/study/../../etc/passwd",
        "/study/%2e%2e%2f%2e%2e",
        "/study/..%252f..",
        "/run/../format",
        "/run/..\\..\\x",
        "/static/../app.py",
        "/static/vendor/../../app.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/study/tiny/fan.exe",
        "/study/tiny/none.json",
        "/study/tiny/cell?condition=-9&run=x",
        "/study/tiny/lines.bin?condition=none",
        "/study/tiny.json?metric=none",
        "/run/r1-none",
        "/compare?with=none",
    ],
)
def test_a_path_that_leads_out_or_nowhere_is_an_error(reader: Visitor, path: str) -> None:
    reply = reader.get(path)
    assert reply.status in (400, 404, 405)
    assert "root:" not in reply.text
    assert "Traceback" not in reply.text


def test_an_address_has_an_end(reader: Visitor) -> None:
    assert reader.get("/sql?q=" + "x" * 9_000).status == 400


def test_large_bodies_are_cut(reader: Visitor) -> None:
    reply = reader.ask("POST", "/login", b"x" * 300_000, origin="http://127.0.0.1:8765")
    assert reply.status == 413


def test_the_run_page_has_what_a_run_is(reader: Visitor) -> None:
    run_id = reader.get("/rows.json").json["data"][0][0]
    page = reader.get(f"/run/{run_id}.json").json
    assert page["attempts"][0]["status"] == "finished"
    assert page["checkpoints"][-1]["step"] == 12
    assert f"seedbed replay {run_id}@12" in page["checkpoints"][-1]["command"]
    assert page["twins"]["of"] == 1
    assert page["log"]["key"].startswith("packs/")
    assert reader.get("/study/tiny/cell?condition=0&run=0").status == 303


def test_a_log_is_plain_text(dashboard: Dashboard, tmp_path: Path) -> None:
    store = open_store(tmp_path / "logs", create=True)
    dirty = b"\x1b[31mred\x1b[0m \x00\x07bell \xe2\x80\xaeturned <b>\n" + b"x" * 50_000 + b"END\xff"
    store.put(PackKeys("p").log, dirty)
    view = replace(dashboard.view, feed=Feed(Library(store)))
    tail = log_tail(view, "p")
    assert tail["cut"]
    assert tail["text"].endswith("END\ufffd")
    store.delete(PackKeys("p").log)
    store.put(PackKeys("p").log, dirty[:45])
    assert log_tail(view, "p")["text"].startswith("red bell turned <b>")
    assert log_tail(view, "none")["text"] == ""


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Visitor]:
    """Return a dashboard whose study has markup for names, labels and texts."""
    declared, tables = made([0.5, 0.5], factor=HOSTILE, values=[HOSTILE, "b"], seeds=4, name=NAME, question=HOSTILE)
    dashboard = Dashboard(open_store(tmp_path / "s", create=True), Settings(), load_tokens(tmp_path / "t.json"))
    tables["runs"] = with_factors(declared, tables["runs"])
    whole = tables | {"rollups": rollups_of(tables["runs"], tables["metrics"])}
    empty = {name: schema.empty_table() for name, schema in TABLES.items()}
    shelf = Shelf(declared, empty | whole, summarise(declared, whole), 1, 0.0)
    dashboard.view.feed._shelves[NAME] = shelf
    dashboard.view.alarm.on_news(News(shelf, None, {}))
    yield Visitor(dashboard)
    dashboard.view.feed.stop()
    dashboard.view.sandbox.close()


def test_hostile_names_are_text_on_every_page(hostile: Visitor) -> None:
    for path in (
        "/",
        "/runs",
        "/compare",
        "/cluster",
        "/sql?q=SELECT+condition+FROM+runs",
        f"/study/{NAME}",
    ):
        reply = hostile.get(path)
        assert reply.status == 200, path
        text = reply.text
        assert "<img" not in text, path
        assert "<script>" not in text, path
        assert text.count("</script>") == text.count("<script"), path
        assert "49" not in text.split("page-data")[0] or "7*7" in text, "a name is no template"


def shelf_of(at: float = 0.0, **kinds: Any) -> Shelf:
    declared, tables = made([0.5], seeds=4, **kinds)
    return Shelf(declared, tables, summarise(declared, tables), 1, at)


def test_alerts_are_said_once() -> None:
    running = shelf_of(statuses={(0, i): Status.RUNNING for i in range(4)})
    diverged = shelf_of(statuses={(0, 0): Status.DIVERGED, (0, 1): Status.FAILED, (0, 2): Status.RUNNING})
    done = shelf_of(statuses={(0, 0): Status.DIVERGED, (0, 1): Status.FAILED})
    assert alerts_of(None, running) == []
    assert [a.kind for a in alerts_of(running, diverged)] == ["diverged", "failed"]
    assert "r00.000" in alerts_of(running, diverged)[0].message
    assert [a.kind for a in alerts_of(diverged, done)] == ["finished"]
    assert alerts_of(done, done) == []


def test_a_study_that_stands_still_is_said_once() -> None:
    running = shelf_of(at=100.0, statuses={(0, i): Status.RUNNING for i in range(4)})
    pace = Pace(stall_s=60)
    assert pace.judge(running, 110.0) is None
    stalled = pace.judge(running, 170.0)
    assert stalled is not None
    assert stalled.kind == "stalled"
    assert pace.judge(running, 180.0) is None
    assert pace.judge(shelf_of(), 190.0) is None, "what has ended cannot stall"


def test_alerts_go_into_a_file_and_to_receivers(tmp_path: Path) -> None:
    got: list[Any] = []
    alarm = Alarm(file=tmp_path / "alerts.jsonl", send=[got.append])
    before = shelf_of(statuses={(0, 0): Status.RUNNING})
    alarm.on_news(News(before, None, {}))
    alarm.on_news(News(shelf_of(statuses={(0, 0): Status.DIVERGED}), before, {}))
    lines = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["diverged", "finished"] == [alert.kind for alert in got]
    alarm.file = tmp_path / "none" / "x"
    alarm.on_news(News(shelf_of(statuses={(0, 0): Status.FAILED}), before, {}))
    assert "No such file" in alarm.trouble


def test_news_of_one_study_melt_together() -> None:
    shelf = shelf_of()
    reader = _Reader()
    for changed in ({"a": 8, "b": 4}, {"a": 2}, {"c": 9}):
        told = study_event(News(shelf, None, changed))
        reader.tell("made", told)
    assert reader.studies["made"]["changed"] == {"a": 2, "b": 4, "c": 9}


def test_a_shard_makes_news_and_nothing_new_makes_none(store: LocalStore) -> None:
    feed, heard = Feed(Library(store)), []
    feed.listen(heard.append)
    feed.look()
    feed.look()
    assert len(heard) == 1
    assert heard[0].changed == {"model.width=4": 0, "model.width=8": 0}
    with pytest.raises(NotFound):
        feed.shelf("none")
