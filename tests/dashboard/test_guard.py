"""The door: every route and method, every kind of connection, hostile hosts and sites, links, cookies, headers."""

import logging
import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from jobs.errors import QueryError
from orchestrator.dashboard.app import make_app
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import LINK_LIFE_S, Gate, Scope, load_tokens, make_link_code
from tests.dashboard.conftest import HOST, Visitor, call

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "NONSENSE")
BAD_HOSTS = (
    "evil.com",
    "evil.com:8765",
    "127.0.0.1.evil.com",
    "127.0.0.1.",
    "localhost.",
    "localhost.evil.com:8765",
    "127.0.0.1:8765@evil.com",
    "evil.com#127.0.0.1",
    "127.0.0.1:evil",
    "127.0.0.1:",
    "127.0.0.1:999999",
    "0.0.0.0:8765",
    "127.1:8765",
    "2130706433",
    "[::1",
    "[::1]evil.com",
    "127.0.0.1, evil.com",
    "",
    " ",
)


def routes(dashboard: Dashboard) -> list[str]:
    app: Starlette = make_app(dashboard.view, "seedbed")
    found = []
    for route in app.routes:
        if isinstance(route, Mount):
            assert route.path == "/static", "a mount is a hole in this list"
            continue
        assert isinstance(route, Route)
        found.append(re.sub(r"{(\w+)}", "x", route.path))
    return found


def test_every_route_with_every_method_is_401_without_a_token(dashboard: Dashboard) -> None:
    paths = [path for path in routes(dashboard) if path != "/login"]
    assert {"/", "/sql", "/events", "/answer.x", "/study/x/x.x", "/study/x/lines.bin"} <= set(paths)
    for path in [*paths, "/nowhere", "/static/../home", "/static\\..\\home", "//home", "/login/x", "/LOGIN"]:
        for method in METHODS:
            reply = call(dashboard.app, method, path, {"sec-fetch-site": "same-origin"})
            assert reply.status == 401, (method, path)
            assert "study" not in reply.text.lower()


@pytest.mark.parametrize(
    "credential",
    [
        {"authorization": "Bearer wrong"},
        {"authorization": "Basic eDp5"},
        {"authorization": "Bearer "},
        {"cookie": "seedbed_8765=read.1.x.y"},
        {"cookie": "seedbed_8765=control.9999999999.AAAA." + "0" * 64},
        {"cookie": "seedbed_8765=nobody.1.x.y"},
        {"cookie": "=" * 5000},
    ],
)
def test_a_wrong_credential_is_none(dashboard: Dashboard, credential: dict[str, str]) -> None:
    assert call(dashboard.app, "GET", "/home.json", credential).status == 401


def test_a_token_opens_and_only_control_controls(dashboard: Dashboard) -> None:
    for scope in Scope:
        assert Visitor(dashboard, scope).get("/home.json").status == 200
    assert Scope.CONTROL.covers(Scope.READ)
    assert not Scope.READ.covers(Scope.CONTROL)


def test_websockets_are_refused_even_with_a_token(dashboard: Dashboard) -> None:
    headers = {"authorization": f"Bearer {dashboard.tokens[Scope.CONTROL]}"}
    for path in ("/", "/events", "/nowhere"):
        assert call(dashboard.app, "GET", path, headers, kind="websocket").status == 4401


@pytest.mark.parametrize("host", BAD_HOSTS)
def test_a_hostile_host_is_421_even_with_a_token(reader: Visitor, host: str) -> None:
    assert reader.get("/home.json", host=host).status == 421
    assert call(reader.dashboard.app, "GET", "/login", {"host": host}).status == 421


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9000", "localhost:8765", "[::1]:8765", "LOCALHOST:1"])
def test_this_machine_may_be_called_by_its_names_through_any_tunnel(reader: Visitor, host: str) -> None:
    assert reader.get("/home.json", host=host).status == 200


def cookie_of(dashboard: Dashboard, scope: Scope = Scope.READ) -> dict[str, str]:
    return {"cookie": f"seedbed_8765={dashboard.view.gate.cookie(scope)}"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.com"},
        {"origin": "null"},
        {"origin": f"http://{HOST}.evil.com"},
        {"origin": f"ftp://{HOST}"},
        {"origin": f"http://{HOST}", "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"user-agent": "curl/8"},
        {},
    ],
)
def test_another_site_changes_nothing_with_a_valid_cookie(
    dashboard: Dashboard, method: str, headers: dict[str, str]
) -> None:
    cookie = cookie_of(dashboard, Scope.CONTROL)
    assert call(dashboard.app, method, "/logout", cookie | headers).status == 403


def test_another_site_reads_nothing_with_a_valid_cookie(dashboard: Dashboard) -> None:
    cookie = cookie_of(dashboard)
    for site in ("cross-site", "same-site"):
        headers = cookie | {"sec-fetch-site": site, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}
        assert call(dashboard.app, "GET", "/home.json", headers).status == 403
    assert call(dashboard.app, "GET", "/home.json", cookie | {"origin": "http://evil.com"}).status == 403
    own = cookie | {"sec-fetch-site": "same-origin", "origin": f"http://{HOST}"}
    assert call(dashboard.app, "POST", "/logout", own).status == 303


def test_a_link_works_once_and_becomes_a_strict_cookie(dashboard: Dashboard) -> None:
    path = "/login?once=" + dashboard.view.gate.link_code(Scope.READ)
    first = call(dashboard.app, "GET", path)
    assert first.status == 200
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert not any(token in cookie + first.text for token in dashboard.tokens.values())
    value = cookie.partition(";")[0]
    assert call(dashboard.app, "GET", "/home.json", {"cookie": value}).status == 200
    again = call(dashboard.app, "GET", path)
    assert again.status == 401
    assert "set-cookie" not in again.headers


def test_links_and_cookies_end(tmp_path: Path) -> None:
    now = [1_000.0]
    tokens = load_tokens(tmp_path / "t.json")
    gate = Gate(tokens, lambda: now[0])
    early = make_link_code(tokens, Scope.READ, 900)
    code, late, cookie = gate.link_code(Scope.CONTROL), gate.link_code(Scope.READ), gate.cookie(Scope.READ)
    assert gate.of_link(early) is None, "made before the server began: it may have been used"
    assert gate.of_link(code.replace("control", "read")) is None
    assert gate.of_link(cookie) is None
    assert gate.of_cookie(code) is None
    assert gate.of_link(code) is Scope.CONTROL
    assert gate.of_link(code) is None
    now[0] += LINK_LIFE_S + 1
    assert gate.of_link(late) is None
    assert gate.of_cookie(cookie) is Scope.READ
    assert Gate(tokens, lambda: now[0]).of_cookie(cookie) is Scope.READ, "a restart is survived"
    assert Gate(load_tokens(tmp_path / "u.json"), lambda: now[0]).of_cookie(cookie) is None
    now[0] += 31 * 86_400
    assert gate.of_cookie(cookie) is None


def test_a_pasted_token_lets_in_and_a_wrong_one_does_not(dashboard: Dashboard) -> None:
    headers = {"origin": f"http://{HOST}", "content-type": "application/x-www-form-urlencoded"}
    for token, status in ((dashboard.tokens[Scope.READ], 200), ("wrong", 401)):
        reply = call(dashboard.app, "POST", "/login", headers, f"token={token}".encode())
        assert reply.status == status
        assert ("set-cookie" in reply.headers) is (status == 200)
        assert token not in reply.text


def test_token_files_are_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokens.json"
    tokens = load_tokens(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_tokens(path) == tokens
    assert len(set(tokens.values())) == 2
    path.chmod(0o640)
    with pytest.raises(QueryError, match="can be read by others"):
        load_tokens(path)
    path.chmod(0o600)
    for text in ("", "[]", '{"read": "short", "control": "short2"}', '{"read": "x"}'):
        path.write_text(text)
        with pytest.raises(QueryError):
            load_tokens(path)


def test_every_answer_carries_the_headers(dashboard: Dashboard, reader: Visitor) -> None:
    replies = [reader.get(path) for path in ("/", "/home.json", "/nowhere", "/study/none", "/static/main.js")]
    replies += [call(dashboard.app, "GET", path) for path in ("/", "/login")]
    for reply in replies:
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in reply.headers
    assert "no-cache" in replies[0].headers["cache-control"]


def test_no_page_has_inline_code_or_style(dashboard: Dashboard, reader: Visitor) -> None:
    run = reader.get("/rows.json").json
    run_id = run["data"][run["columns"].index("run_id")][0]
    for path in ("/", "/study/tiny", "/runs", f"/run/{run_id}", "/cluster", "/sql?q=SELECT+1", "/compare", "/nowhere"):
        text = reader.get(path).text
        assert not re.search(r"<[^>]+\son\w+\s*=", text), path
        assert not re.search(r"<[^>]+\sstyle\s*=|<style|javascript:", text), path
        assert not re.search(r"<script(?![^>]*(?:src=|application/json))", text), path
        assert not re.search(r"""(?:src|href)="(?:https?:)?//""", text), path


def test_tokens_are_in_no_page_and_no_log(
    dashboard: Dashboard, reader: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = dashboard.tokens[Scope.READ]
    for path in ("/", "/home.json", "/sql?q=" + secret[:5], "/study/none", f"/login?once={secret}"):
        assert secret not in reader.get(path).text
    assert secret not in caplog.text
    assert dashboard._config().access_log is False


def test_elsewhere_means_named_hosts(dashboard: Dashboard) -> None:
    assert Settings().is_loopback
    assert not Settings(host="0.0.0.0").is_loopback
    assert Settings(host="0.0.0.0", names=("lab.example",)).hosts == Settings().hosts | {"lab.example"}
    assert "10.0.0.7" in Settings(host="10.0.0.7").hosts
