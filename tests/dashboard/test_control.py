"""Stop, resume and extend from a page: only with a control token, only from our own page, and really done."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.routing import Route

import seedbed
from jobs.requests import stops
from jobs.store import LocalStore
from orchestrator.dashboard.app import make_app
from orchestrator.dashboard.control import seed_counts
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens
from orchestrator.declared import read_declared
from tests.dashboard.conftest import HOST, Reply, Visitor, call
from tests.orchestrator.conftest import STUDY

PATH = "/study/tiny/control.json"
Serve = Callable[[str], Visitor]


@pytest.fixture
def serve(store: LocalStore, tmp_path: Path) -> Iterator[Serve]:
    """Return a function that serves a copy of the store to a visitor who may control."""
    made: list[Dashboard] = []
    shutil.copytree(store.root, tmp_path / "store")

    def start(drive_at: str) -> Visitor:
        tokens = load_tokens(tmp_path / "tokens.json")
        made.append(Dashboard(LocalStore(tmp_path / "store"), Settings(drive_at=drive_at), tokens))
        made[-1].view.feed.look()
        return Visitor(made[-1], Scope.CONTROL)

    yield start
    for dashboard in made:
        dashboard.view.feed.stop()
        dashboard.view.sandbox.close()


def store_of(visitor: Visitor) -> LocalStore:
    found = visitor.dashboard.store
    assert isinstance(found, LocalStore)
    return found


def post(visitor: Visitor, **form: object) -> Reply:
    return visitor.ask("POST", PATH, urlencode(form).encode())


def posts(dashboard: Dashboard) -> set[str]:
    routes = [route for route in make_app(dashboard.view, "c").routes if isinstance(route, Route)]
    return {re.sub(r"{\w+}", "tiny", route.path) for route in routes if "POST" in (route.methods or ())}


def test_whatever_changes_anything_is_closed_to_a_token_that_reads(dashboard: Dashboard, reader: Visitor) -> None:
    assert posts(dashboard) == {PATH, "/login", "/logout"}
    cookie = {"cookie": f"seedbed_8765={dashboard.view.gate.cookie(Scope.READ)}", "origin": f"http://{HOST}"}
    for path in posts(dashboard) - {"/login", "/logout"}:
        for action in ("stop", "resume", "extend", ""):
            body = f"action={action}&count=1".encode()
            assert reader.ask("POST", path, body).status == 403
            assert call(dashboard.app, "POST", path, cookie, body).status == 403
    assert stops(dashboard.store, "tiny") == 0


@pytest.mark.parametrize("headers", [{}, {"origin": "http://evil.com"}, {"origin": "null"}, {"sec-fetch-site": "none"}])
def test_another_site_controls_nothing_with_a_cookie_that_may(dashboard: Dashboard, headers: dict[str, str]) -> None:
    cookie = {"cookie": f"seedbed_8765={dashboard.view.gate.cookie(Scope.CONTROL)}"}
    for foreign in (headers, headers | {"sec-fetch-site": "cross-site"}):
        assert call(dashboard.app, "POST", PATH, cookie | foreign, b"action=stop").status == 403
    assert call(dashboard.app, "GET", f"{PATH}?action=stop", cookie).status == 404
    assert stops(dashboard.store, "tiny") == 0


def test_our_own_form_names_no_origin(dashboard: Dashboard) -> None:
    headers = {"origin": "null", "sec-fetch-site": "same-origin"}
    body = f"token={dashboard.tokens[Scope.READ]}".encode()
    assert call(dashboard.app, "POST", "/login", headers, body).status == 200
    assert call(dashboard.app, "POST", "/login", {**headers, "sec-fetch-site": "cross-site"}, body).status == 403


def test_stop_is_a_record_and_is_told_to_all(serve: Serve) -> None:
    visitor = serve("")
    told = post(visitor, action="stop").json
    assert stops(store_of(visitor), "tiny") == 1
    assert told["command"].startswith("seedbed stop tiny --store ")
    alert = visitor.get("/home.json").json["alerts"][0]
    assert (alert["kind"], alert["study"]) == ("control", "tiny")


def test_resume_without_a_place_is_the_command(serve: Serve) -> None:
    visitor = serve("")
    before = store_of(visitor).keys("")
    told = post(visitor, action="resume").json
    assert told["command"] == f"seedbed resume tiny --store {store_of(visitor).url}"
    assert "--drive-at" in told["says"]
    assert store_of(visitor).keys("") == before
    assert serve("10.0.0.1:6379").dashboard.view.control.commands("tiny")["resume"].endswith("--address 10.0.0.1:6379")


def test_extend_declares_more_runs_and_keeps_the_old_ones(serve: Serve) -> None:
    visitor = serve("")
    before = {run.id for run in read_declared(store_of(visitor), "tiny").runs}
    told = post(visitor, action="extend", count=2).json
    after = {run.id for run in read_declared(store_of(visitor), "tiny").runs}
    assert told["says"].startswith("4 more runs are declared")
    assert before < after
    assert len(after) == 10
    visitor.dashboard.view.feed.look()
    assert visitor.get("/study/tiny.json").json["seeds"] == {"count": 5}


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"action": "extend", "count": "1001"}, "up to 1,000"),
        ({"action": "extend", "count": "-1"}, "whole number"),
        ({"action": "extend", "count": "0"}, "at least 1"),
        ({"action": "extend"}, "at least 1"),
        ({"action": "extend", "init": "2"}, "seeds.init"),
        ({"action": "delete"}, "not 'delete'"),
        ({}, "stop, resume or extend"),
        ({f"x{i}": "1" for i in range(20)}, "8 fields"),
    ],
)
def test_a_form_that_makes_no_sense_changes_nothing(serve: Serve, form: dict[str, str], told: str) -> None:
    visitor = serve("")
    before = store_of(visitor).keys("")
    reply = post(visitor, **form)
    assert reply.status == 400
    assert told in reply.json["error"]
    assert store_of(visitor).keys("") == before
    assert visitor.ask("POST", "/study/none/control.json", b"action=stop").status == 404


def test_extend_trains_what_is_new_where_the_server_may(serve: Serve) -> None:
    visitor = serve("inline")
    told = post(visitor, action="extend", count=1).json
    driver = visitor.dashboard.view.control._drivers["tiny"]
    assert post(visitor, action="resume").status == 400, "one driver at a time"
    assert driver.wait(timeout=120) == 0, store_of(visitor).get(told["log"]).decode()
    assert store_of(visitor).get(told["log"])
    statuses = seedbed.open(store_of(visitor).root).runs("tiny").arrow()["status"].to_pylist()
    assert statuses == ["finished"] * 8


def test_seeds_that_can_be_raised() -> None:
    assert seed_counts(STUDY) == {"count": 3}
    assert seed_counts("seeds: {design: crossed, init: 4, data: 2}") == {"init": 4, "data": 2}
    assert (
        seed_counts("seeds: 3") == seed_counts(": [") == seed_counts("x") == seed_counts("seeds: {count: true}") == {}
    )
