"""What one visitor may cost: how long a request may take to arrive, how large it may be, how many may wait.

uvicorn waits for ever for the rest of a request's head, so the protocol here hangs up; bodies are cut in ASGI.
"""

import asyncio
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from orchestrator.dashboard.guard import App, Message, Receive, Send

REQUEST_S = 10.0
MOST_BODY_BYTES = 256 * 1024
MOST_HEAD_BYTES = 32 * 1024
MOST_CONNECTIONS = 900  # at once; more than all streams of news


class ImpatientProtocol(H11Protocol):
    """HTTP/1.1 whose connections are closed when, looked at every `REQUEST_S`, no answer is under way.

    That ends idle connections, and requests whose head arrives byte by byte; the first one or any later one. Where
    there are too many, whoever came first and is idle makes room at once: ten thousand visitors who say nothing
    keep nobody out.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._clock = asyncio.get_running_loop().call_later(REQUEST_S, self._look)
        self._open = _OPEN.setdefault(self.server_state, {})
        self._open[self] = None
        if len(self._open) > MOST_CONNECTIONS:
            next((other for other in self._open if other.is_idle), self).close()

    @property
    def is_idle(self) -> bool:
        """Return whether no answer is under way."""
        return self.cycle is None or self.cycle.response_complete

    def close(self) -> None:
        """Hang up."""
        self._open.pop(self, None)
        self.transport.close()

    def _look(self) -> None:
        if self.is_idle:
            self.close()
        else:
            self._clock = asyncio.get_running_loop().call_later(REQUEST_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop looking."""
        self._clock.cancel()
        self._open.pop(self, None)
        super().connection_lost(exc)


# Of each server its open connections, oldest first. Its own set has those, too, that are being closed.
_OPEN: WeakKeyDictionary[ServerState, dict[ImpatientProtocol, None]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """Refuses a body that is too large (413) and one that does not arrive (408)."""

    app: App
    most_bytes: int = MOST_BODY_BYTES

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Read the whole body first, then hand on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), REQUEST_S)
        except TimeoutError:
            await _refuse(send, 408, "the request did not arrive in time")
            return
        if body is None:
            await _refuse(send, 413, f"a request has at most {self.most_bytes:,} bytes")
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        body: bytes = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self.most_bytes:
                return None
            if message["type"] != "http.request" or not message.get("more_body"):
                return body


async def _refuse(send: Send, status: int, why: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"{status}: {why}\n".encode()})
