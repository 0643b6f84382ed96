"""What visitors may cost, over real sockets: slow and oversized requests are cut, the idle keep nobody out."""

import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from jobs.store import LocalStore
from orchestrator.dashboard import limits
from orchestrator.dashboard.server import Dashboard, Settings, raise_limit_of_files
from orchestrator.dashboard.tokens import Scope, load_tokens

HEAD = "GET /home.json HTTP/1.1\r\nhost: 127.0.0.1\r\n"


@pytest.fixture
def served(store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dashboard]:
    """Return a server in a thread whose patience is short."""
    monkeypatch.setattr(limits, "REQUEST_S", 1.0)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = int(sock.getsockname()[1])
    dashboard = Dashboard(store, Settings(port=port), load_tokens(tmp_path / "t.json"))
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    while not dashboard.is_serving:
        assert thread.is_alive()
        time.sleep(0.01)
    yield dashboard
    dashboard.stop()
    thread.join()


def connect(dashboard: Dashboard) -> socket.socket:
    return socket.create_connection(("127.0.0.1", dashboard.settings.port), timeout=30)


def whole(sock: socket.socket) -> bytes:
    """Return all that comes until the other side hangs up."""
    found = b""
    with suppress(ConnectionResetError):  # it hung up before it had read everything
        while data := sock.recv(65_536):
            found += data
    return found


def token(dashboard: Dashboard) -> str:
    return f"authorization: Bearer {dashboard.tokens[Scope.READ]}\r\n"


def ask(dashboard: Dashboard) -> bytes:
    with connect(dashboard) as sock:
        sock.sendall(f"{HEAD}{token(dashboard)}connection: close\r\n\r\n".encode())
        return whole(sock)


@pytest.mark.parametrize("said", [b"", b"GET", HEAD.encode(), HEAD.encode() + b"x: " + b"y" * 1_000])
def test_a_request_that_does_not_arrive_is_hung_up_on(served: Dashboard, said: bytes) -> None:
    with connect(served) as sock:
        sock.sendall(said)
        assert whole(sock) == b""
    assert ask(served).startswith(b"HTTP/1.1 200")


def test_a_head_that_drips_is_hung_up_on(served: Dashboard) -> None:
    sent, head = 0, HEAD + token(served) + "x: " + "y" * 2_000
    with connect(served) as sock, suppress(BrokenPipeError, ConnectionResetError):
        for byte in head:
            sock.sendall(byte.encode())
            sent += 1
            time.sleep(0.02)
    assert sent < len(head)


def test_a_connection_that_said_all_it_wanted_is_closed(served: Dashboard) -> None:
    with connect(served) as sock:
        sock.sendall(f"{HEAD}{token(served)}\r\n".encode())
        assert whole(sock).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("x: " + "y" * 600_000 + "\r\n", b"", b"400"),
        ("content-length: 10\r\n", b"abc", b"408"),
        ("content-length: 400000\r\n", b"x" * 300_000, b"413"),
        ("transfer-encoding: chunked\r\n", b"40000\r\n" + b"x" * 0x40000 + b"\r\n1\r\nx\r\n", b"413"),
        ("content-length: 3\r\ncontent-length: 4\r\n", b"abcd", b"400"),
    ],
)
def test_what_is_too_large_or_half_is_refused(served: Dashboard, head: str, body: bytes, status: bytes) -> None:
    with connect(served) as sock:
        start = "POST /login HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://127.0.0.1\r\n"
        sock.sendall(start.encode() + head.encode() + b"\r\n")
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(body)
        told = whole(sock)
        hung_up = not told and len(head + body.decode()) > limits.MOST_HEAD_BYTES  # without reading it all
        assert hung_up or told.split(b" ")[1] == status
    assert ask(served).startswith(b"HTTP/1.1 200")


def test_thousands_of_idle_connections_keep_nobody_out(served: Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REQUEST_S", 60.0)  # else time would clear them away
    raise_limit_of_files()
    # Ours and the server's ends are both in this process.
    count = min(10_000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - limits.MOST_CONNECTIONS - 500)
    assert count > limits.MOST_CONNECTIONS, "raise ulimit -n"
    with connect(served) as stream, ExitStack() as idle:
        stream.sendall(f"{HEAD.replace('home.json', 'events')}{token(served)}\r\n".encode())
        assert stream.recv(64).startswith(b"HTTP/1.1 200")
        for _ in range(count):
            idle.enter_context(connect(served))
        assert ask(served).startswith(b"HTTP/1.1 200")
        assert served._server is not None
        while len(served._server.server_state.connections) > limits.MOST_CONNECTIONS:
            time.sleep(0.01)
        assert served.view.broadcast._readers, "who listens is not idle"
