"""A real Chromium before a real server: where it is missing the suite says how to install it, and fails."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from jobs.store import LocalStore
from orchestrator.dashboard.sandbox import Limits
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens
from tests.dashboard.conftest import train
from tests.orchestrator.conftest import STUDY

# Without the GPU's canvas: emulated in software, a million points take 64 s instead of 0.5 s.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-accelerated-2d-canvas",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHARED = "success: {metric: heldout.accuracy, threshold: 0.5, sustained: 2}\n"


@pytest.fixture(scope="session")
def chromium() -> str:
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if not found:
        pytest.fail("no Chromium: apt-get install -y chromium, or name one in the variable CHROMIUM", pytrace=False)
    return found


@pytest.fixture(scope="session")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield launched
        launched.close()


@dataclass
class Served:
    """A dashboard that runs in a thread, at a port of its own, and can be stopped and started again."""

    store: LocalStore
    port: int
    tokens: dict[Scope, str]
    dashboard: Dashboard = field(init=False)
    thread: threading.Thread = field(init=False)

    def start(self) -> None:
        self.dashboard = Dashboard(self.store, Settings(port=self.port, limits=Limits(seconds=10.0)), self.tokens)
        self.thread = threading.Thread(target=self.dashboard.serve)
        self.thread.start()
        while not self.dashboard.is_serving:
            assert self.thread.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        self.dashboard.stop()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LocalStore:
    return train(tmp_path_factory.mktemp("browser") / "store", STUDY + SHARED)


@pytest.fixture
def served(trained: LocalStore, tmp_path: Path) -> Iterator[Served]:
    """Return a server over a copy of the store, which a test may change."""
    shutil.copytree(trained.root, tmp_path / "store")
    made = Served(LocalStore(tmp_path / "store"), free_port(), load_tokens(tmp_path / "tokens.json"))
    made.start()
    yield made
    made.stop()


@dataclass
class Watched:
    """A page, and everything that must not happen on it."""

    page: Page
    faults: list[str]

    def open(self, address: str) -> None:
        self.page.goto(address)
        self.page.wait_for_selector("html[data-ready=yes]")


def watch(context: BrowserContext, base: str) -> Watched:
    page = context.new_page()
    faults: list[str] = []
    page.on("console", lambda m: faults.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (faults.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda r: None if r.url.startswith((base, "blob:")) else faults.append(f"left for {r.url}"))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective))"
    )
    return Watched(page, faults)


@pytest.fixture
def visitor(browser: Browser, served: Served) -> Iterator[Watched]:
    """Return a page that came in by the one-time link."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    watched = watch(context, served.url)
    watched.page.goto(served.dashboard.link(Scope.READ))
    watched.page.wait_for_url(served.url + "/")
    yield watched
    context.close()
