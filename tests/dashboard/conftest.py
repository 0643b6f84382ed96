"""A dashboard over a store that was really trained, spoken to as a server would: in ASGI, without a socket."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.store import LocalStore, open_store
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.dashboard.guard import App
from orchestrator.dashboard.sandbox import Limits
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens
from orchestrator.declared import Declared, register
from orchestrator.scheduler import drive
from tests.orchestrator.conftest import STUDY

HOST = "127.0.0.1:8765"


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def call(
    app: App, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"", kind: str = "http"
) -> Reply:
    """Return what the app answers; `path` may hold a query."""
    place, _, query = path.partition("?")
    given = {"host": HOST, **(headers or {})}
    scope = {
        "type": kind,
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": place,
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items() if value],
        "server": ("127.0.0.1", 8765),
        "client": ("127.0.0.1", 50_000),
        "root_path": "",
    }
    sent: list[Any] = []
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if not pending:
            await asyncio.Event().wait()  # the visitor stays on the line
        return pending.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    if kind == "websocket":
        return Reply(sent[0]["code"], {}, sent[0]["type"].encode())
    start = sent[0]
    joined = b"".join(message.get("body", b"") for message in sent[1:])
    return Reply(start["status"], {k.decode().lower(): v.decode("latin-1") for k, v in start["headers"]}, joined)


def train(folder: Path, text: str) -> LocalStore:
    study = parse_study(text, "tiny.yaml", Path())
    store = open_store(folder, create=True)
    register(store, study, "tiny.yaml")
    cluster = InlineCluster(cpus=1)
    drive(study, store, cluster)
    cluster.close()
    return store


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    text = STUDY + "success: {metric: heldout.accuracy, threshold: 0.5, sustained: 2}\n"
    return train(tmp_path_factory.mktemp("dashboard") / "store", text)


@pytest.fixture(scope="session")
def dashboard(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    tokens = load_tokens(tmp_path_factory.mktemp("tokens") / "tokens.json")
    made = Dashboard(store, Settings(limits=Limits(seconds=10.0)), tokens)
    made.view.feed.look()
    yield made
    made.view.feed.stop()
    made.view.sandbox.close()


def with_factors(declared: Declared, runs: pa.Table) -> pa.Table:
    """Return the runs of a made study with the factors of their conditions, as a collector writes them."""
    factors = {condition.id: json.dumps(condition.factors) for condition in declared.conditions}
    column = [factors[condition_id] for condition_id in runs["condition_id"].to_pylist()]
    return runs.set_column(runs.schema.get_field_index("factors"), runs.schema.field("factors"), pa.array(column))


@dataclass(frozen=True)
class Visitor:
    """Somebody with a token."""

    dashboard: Dashboard
    scope: Scope = Scope.READ

    def get(self, path: str, **headers: str) -> Reply:
        return self.ask("GET", path, **headers)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        token = self.dashboard.tokens[self.scope]
        own = {"authorization": f"Bearer {token}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return call(self.dashboard.app, method, path, own, body)


@pytest.fixture
def reader(dashboard: Dashboard) -> Visitor:
    return Visitor(dashboard)


@pytest.fixture(scope="session")
def two_studies(store: LocalStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """Return a visitor of a store with a second study that shares all runs of the first and has two more."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(store.root, folder / "store")
    larger = STUDY.replace("study: tiny", "study: larger").replace("count: 3", "count: 4")
    both = train(folder / "store", larger + "success: {metric: heldout.accuracy, threshold: 0.5, sustained: 2}\n")
    made = Dashboard(both, Settings(limits=Limits(seconds=10.0)), load_tokens(folder / "tokens.json"))
    made.view.feed.look()
    yield Visitor(made)
    made.view.feed.stop()
    made.view.sandbox.close()
