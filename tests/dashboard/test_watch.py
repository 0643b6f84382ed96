"""`seedbed watch` and `seedbed serve` as commands: lines, JSON, and clear words for what cannot be."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.errors import QueryError
from jobs.store import Store
from orchestrator.cli import app
from orchestrator.dashboard.tokens import Gate, Scope, load_tokens
from tests.cli import invoke


def test_watch_ends_with_the_studies(store: Store) -> None:
    assert "tiny: 6/6 runs done, 100% of all steps" in invoke("watch", "--store", store.url)
    told = json.loads(invoke("watch", "tiny", "--store", store.url, "--once", "--json"))
    assert (told["study"], told["ended"], told["launched"]) == ("tiny", 6, 6)


def test_a_server_that_is_told_to_end_leaves_nothing_behind(store: Store, tmp_path: Path) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = str(sock.getsockname()[1])
    aside = tmp_path / "aside"
    aside.mkdir()
    words = ["serve", store.url, "--port", port, "--tokens", str(tmp_path / "t.json"), "--json"]
    text = "from orchestrator.cli import main; main()"
    server = subprocess.Popen([sys.executable, "-c", text, *words], env=os.environ | {"TMPDIR": str(aside)})
    token = {"authorization": "Bearer " + _token(tmp_path / "t.json")}
    for path in ("home.json", "sql.json?q=SELECT+1"):
        while True:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", headers=token)
            try:
                urllib.request.urlopen(request).close()
                break
            except OSError:
                assert server.poll() is None
                time.sleep(0.05)
    assert list(aside.glob("seedbed-dashboard-*"))
    server.terminate()
    assert server.wait(timeout=60) == 0
    assert list(aside.glob("seedbed-*")) == []


def _token(path: Path) -> str:
    while not path.exists():
        time.sleep(0.05)
    return load_tokens(path)[Scope.READ]


def test_a_new_link_needs_no_running_server(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    said = json.loads(invoke("serve", "--tokens", str(tokens), "--new-link", "--port", "9001", "--json"))
    address, _, code = said["link"].partition("?once=")
    assert address == "http://127.0.0.1:9001/login"
    assert Gate(load_tokens(tokens), lambda: float(code.split(".")[1])).of_link(code) is Scope.READ


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--host", "0.0.0.0"], "nothing is encrypted"),
        (["--alert-webhook", "file:///etc/passwd"], "is an http or https address"),
    ],
)
def test_what_is_unsafe_is_refused(arguments: list[str], told: str) -> None:
    with pytest.raises(QueryError, match=told):
        CliRunner().invoke(app, ["serve", *arguments], catch_exceptions=False)
