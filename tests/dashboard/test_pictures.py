"""Figures beside the page: the page never waits, the figure is that of `seedbed plot`, and an old one says so."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import NotFound
from jobs.store import LocalStore, open_store
from orchestrator.adaptive import Decision, Look
from orchestrator.dashboard.beside import Beside
from orchestrator.dashboard.pages.study import decisions_of
from orchestrator.dashboard.pictures import KINDS, Pictures
from orchestrator.declared import read_declared
from orchestrator.estimates.success import wilson
from orchestrator.library import Library
from orchestrator.plots.kinds import KINDS as DRAWERS
from orchestrator.plots.style import house_style, write
from orchestrator.questions.asked import Options, Question
from orchestrator.rounds import put_decision
from tests.dashboard.conftest import Visitor


def drawn(reader: Visitor, path: str) -> dict[str, Any]:
    """Ask as a page does, until the picture is there or cannot be."""
    for _ in range(600):
        state: dict[str, Any] = reader.get(path).json
        if state["state"] != "drawing":
            return state
        time.sleep(0.05)
    raise AssertionError(f"{path} was not drawn within 30 s")


@pytest.mark.parametrize("kind", ["ridgeline", "onsets"])
def test_a_picture_is_the_one_of_the_command_line(
    reader: Visitor, store: LocalStore, tmp_path: Path, kind: str
) -> None:
    assert drawn(reader, f"/study/tiny/figure/{kind}.json")["version"] == reader.get("/study/tiny.json").json["version"]
    reply = reader.get(f"/study/tiny/figure/{kind}.svg")
    assert reply.headers["content-type"] == "image/svg+xml"
    question = Question(read_declared(store, "tiny"), Library(store).tables("tiny"), Options())
    with house_style():
        by_hand = write(DRAWERS[kind].draw(question), tmp_path / "f.svg").read_bytes()
    assert reply.body == by_hand
    assert reader.get(f"/study/tiny/figure/{kind}.png").body.startswith(b"\x89PNG")


def test_what_cannot_be_drawn_says_why(reader: Visitor) -> None:
    state = drawn(reader, "/study/tiny/figure/onsets.json?metric=nothing.such")
    assert state["state"] == "impossible"
    assert "no metric is called 'nothing.such'" in state["says"]
    for path in ("map.json", "law.exe", "onsets.svg?metric=never.asked"):
        assert reader.get(f"/study/tiny/figure/{path}").status == 404


def test_the_page_does_not_wait_and_an_old_picture_says_so(reader: Visitor) -> None:
    pictures, held = Pictures(Beside()), threading.Event()
    shelf = reader.dashboard.view.feed.shelf("tiny")
    pictures._thread.submit(held.wait)
    assert pictures.state(shelf, "ridgeline", "heldout.accuracy")["state"] == "drawing"
    with pytest.raises(NotFound, match="not drawn yet"):
        pictures.file("tiny", "ridgeline", "heldout.accuracy", "svg")
    held.set()
    pictures._thread.submit(int).result()
    assert pictures.state(shelf, "ridgeline", "heldout.accuracy")["state"] == "ready"
    later = replace(shelf, version=shelf.version + 1)
    state = pictures.state(later, "ridgeline", "heldout.accuracy")
    assert (state["state"], state["version"], state["of"]) == ("drawing", shelf.version, later.version)
    assert pictures.file("tiny", "ridgeline", "heldout.accuracy", "svg").startswith(b"<?xml")
    pictures.close()


def test_the_study_page_names_its_figures_and_their_rows(reader: Visitor) -> None:
    page = reader.get("/study/tiny.json").json
    assert [p["kind"] for p in page["pictures"]] == list(KINDS)
    for picture in page["pictures"]:
        answer = reader.get(picture["question"]["href"].replace("/sql?", "/sql.json?")).json["answer"]
        assert reader.get(f"/study/tiny/{picture['csv']}.json").json["data"] == answer["data"]
        assert picture["command"].startswith(f"seedbed plot {picture['kind']} tiny --store ")


def test_more_seeds_are_told_condition_by_condition(reader: Visitor) -> None:
    page = reader.get("/study/tiny.json?more=4").json
    assert page["more"]["seeds"] == 4
    for row, condition in zip(page["more"]["rows"], page["conditions"], strict=True):
        low, high = wilson(condition["successes"], condition["known"])
        assert row["now"] == pytest.approx((high - low) / 2)
        assert row["least"] <= row["expected"] <= row["most"]
        assert row["expected"] < row["now"]
    for wrong in ("0", "-1", "x", "1001"):
        assert reader.get(f"/study/tiny.json?more={wrong}").status == 400


def test_decisions_of_a_stop_rule_stand_on_the_page(reader: Visitor, tmp_path: Path) -> None:
    view = reader.dashboard.view
    shelf = view.feed.shelf("tiny")
    assert decisions_of(view, shelf) == []
    store = open_store(tmp_path / "ruled", create=True)
    condition = shelf.declared.conditions[0]
    looks = (Look(condition.id, 4.0, 3, 3, 1),)
    put_decision(store, "tiny", Decision(1, "a rule", looks, {condition.id: 7}))
    ruled = replace(view, feed=replace(view.feed, library=Library(store)))
    stop: Any = ("a rule", 3)
    found = decisions_of(ruled, replace(shelf, declared=replace(shelf.declared, stop=stop)))
    row = {"condition": condition.label, "launched": 3, "known": 3, "successes": 1, "more": 4}
    assert found == [{"number": 1, "rule": "a rule", "is_last": False, "conditions": [row]}]
