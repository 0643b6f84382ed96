"""The dashboard as a process: feed, alarms, sandbox and guard put together, and served by uvicorn."""

import asyncio
import contextlib
import resource
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn

from jobs.errors import QueryError
from jobs.store import Store
from orchestrator.dashboard.alerts import Alarm, Pace, Stalls
from orchestrator.dashboard.app import make_app
from orchestrator.dashboard.beside import spare_memory
from orchestrator.dashboard.control import Control
from orchestrator.dashboard.feed import Feed
from orchestrator.dashboard.guard import LOOPBACK, App, Guard
from orchestrator.dashboard.limits import MOST_HEAD_BYTES, BodyLimit, ImpatientProtocol
from orchestrator.dashboard.news import Broadcast
from orchestrator.dashboard.pictures import Pictures
from orchestrator.dashboard.sandbox import Limits, Sandbox
from orchestrator.dashboard.tokens import Gate, Scope
from orchestrator.dashboard.view import View
from orchestrator.library import Library

_MOST_REQUESTS = 4_000  # at once; above limits.MOST_CONNECTIONS and all that may be accepted before they are counted
_JUDGE_EVERY_S = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How to serve.

    host         the address to listen at
    names        further names under which the server may be called
    alert_file   gets a line for each alert; None: no file
    webhook      gets a POST for each alert; empty: none
    stall_s      seconds without news after which a running study counts as stalled
    drive_at     where a page may start drivers: `inline`, `ray`, an address; empty: nowhere
    """

    host: str = "127.0.0.1"
    port: int = 8765
    names: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    alert_file: Path | None = None
    webhook: str = ""
    stall_s: float = 600.0
    drive_at: str = ""

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine can reach the server."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def hosts(self) -> frozenset[str]:
        """Return the names under which the server may be called."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        wild = self.host in ("0.0.0.0", "::")  # noqa: S104  (compared, not bound)
        return frozenset({*LOOPBACK, *(name.lower() for name in self.names), *(() if wild else (own,))})

    @property
    def cookie(self) -> str:
        """Return the cookie's name: cookies know no ports, and two servers may run on one machine."""
        return f"seedbed_{self.port}"


@dataclass(slots=True)
class Dashboard:
    """A dashboard that can be started and stopped, in a thread or as the whole process."""

    store: Store
    settings: Settings
    tokens: dict[Scope, str]
    view: View = field(init=False)
    app: App = field(init=False)
    _server: uvicorn.Server | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        feed, broadcast = Feed(Library(self.store)), Broadcast()
        alarm = Alarm(settings.alert_file, settings.webhook, send=[broadcast.alert])
        feed.listen(broadcast.publish)
        feed.listen(alarm.on_news)
        sandbox = Sandbox(settings.limits)
        gate, control = Gate(self.tokens, time.time), Control(self.store, settings.drive_at)
        name = self.store.url.rstrip("/").rpartition("/")[2]
        self.view = View(feed, sandbox, alarm, broadcast, gate, control, Pictures(feed.beside), name)
        inner = BodyLimit(make_app(self.view, settings.cookie))
        self.app = Guard(self._with_loop(inner), self.view.gate, settings.hosts, settings.cookie)

    def _with_loop(self, inner: App) -> App:
        async def app(scope, receive, send):  # type: ignore[no-untyped-def]
            self.view.broadcast.loop = asyncio.get_running_loop()
            await inner(scope, receive, send)

        return app

    def link(self, scope: Scope) -> str:
        """Return an address that opens the dashboard once, within ten minutes."""
        return link_to(self.settings, self.view.gate.link_code(scope))

    def serve(self) -> None:
        """Serve until interrupted; raises QueryError where the address cannot be had."""
        sock = self._bind()
        raise_limit_of_files()
        spare_memory()
        self.view.feed.start()
        watcher = threading.Thread(target=self._judge, name="seedbed-pace", daemon=True)
        watcher.start()
        try:
            self._server = uvicorn.Server(self._config())
            self._server.run(sockets=[sock])
        finally:
            self._ended.set()
            watcher.join()
            self.view.feed.stop()
            self.view.sandbox.close()
            self.view.pictures.close()
            sock.close()

    def stop(self) -> None:
        """Let `serve` return."""
        if self._server is not None:
            self._server.should_exit = True
            self._server.force_exit = True

    @property
    def is_serving(self) -> bool:
        """Return whether requests are answered."""
        return self._server is not None and self._server.started

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.app,
            http=ImpatientProtocol,
            ws="none",
            lifespan="off",
            access_log=False,  # an access log would hold the links, and links open the door
            log_level="warning",
            server_header=False,
            limit_concurrency=_MOST_REQUESTS,
            h11_max_incomplete_event_size=MOST_HEAD_BYTES,
            timeout_graceful_shutdown=1,
            proxy_headers=False,
        )

    def _bind(self) -> socket.socket:
        family = socket.AF_INET6 if ":" in self.settings.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((self.settings.host, self.settings.port))
        except OSError as error:
            sock.close()
            where = f"{self.settings.host}:{self.settings.port}"
            raise QueryError(f"{where} cannot be listened at: {error.strerror}; --port N takes another port") from None
        return sock

    def _judge(self) -> None:
        judges: dict[str, tuple[Pace, Stalls]] = {}
        while not self._ended.wait(_JUDGE_EVERY_S):
            stalled = self.view.feed.signs.stalled()
            for name in self.view.feed.names():
                pace, stalls = judges.setdefault(name, (Pace(self.settings.stall_s), Stalls()))
                shelf, now = self.view.feed.shelf(name), time.time()
                for alert in (pace.judge(shelf, now), stalls.judge(shelf, stalled, now)):
                    if alert is not None:
                        self.view.alarm.raise_(alert)


def link_to(settings: Settings, code: str) -> str:
    """Return the address that a code opens."""
    name = settings.names[0] if settings.names and not settings.is_loopback else "127.0.0.1"
    return f"http://{name}:{settings.port}/login?once={code}"


def raise_limit_of_files() -> None:
    """Let this process hold as many connections as the system allows it to ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (hard if hard != resource.RLIM_INFINITY else max(soft, 65_536), hard)
        )
