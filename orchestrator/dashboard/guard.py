"""The door: one pure ASGI wrapper around everything, for every kind of connection, that denies by default.

In this order: a Host that is not ours is 421; a path outside the public ones without a valid token or cookie is 401,
whatever its method and whether it exists; a request that another site caused is 403. WebSockets and anything
unknown are refused: there is none here. What passes carries its scope; every answer carries the same headers.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any

from orchestrator.dashboard.tokens import Gate, Scope

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_SAFE = ("GET", "HEAD")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:]+\]|[a-z0-9.-]+)(?::(?P<port>\d{1,5}))?", re.ASCII)
CSP = (
    "default-src 'self'; img-src 'self' blob:; base-uri 'none'; object-src 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", CSP.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def is_public(path: str) -> bool:
    """Return whether a path is open to everybody: the door's own page, and files that say nothing of any study."""
    return path == "/login" or (path.startswith("/static/") and ".." not in path and "\\" not in path)


@dataclass(frozen=True, slots=True)
class Guard:
    """The wrapper.

    hosts   the names under which the server may be called; a port may follow them
    cookie  the name of the cookie
    """

    app: App
    gate: Gate
    hosts: frozenset[str]
    cookie: str

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer, refuse, or hand on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 4401})

    async def _http(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = _Headers(scope["headers"])
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal, is_page=headers.one("accept").startswith("text/html"))
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                private = () if is_public(scope["path"]) else ((b"cache-control", b"private, no-cache"),)
                extra = [pair for pair in (*HEADERS, *private) if pair[0] not in given]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self.app(scope, receive, send_with_headers)

    def _refusal(self, scope: MutableMapping[str, Any], headers: "_Headers") -> tuple[int, str] | None:
        """Return (status, why) where the request must not pass; else put the visitor's scope into `scope`."""
        host = headers.one("host").lower()
        match = _HOST.fullmatch(host)
        if match is None or match["name"] not in self.hosts:
            return 421, "this server does not answer to that name; --allow-host NAME adds one"
        bearer = headers.one("authorization").partition("Bearer ")[2].strip()
        visitor = self.gate.of_token(bearer) if bearer else self.gate.of_cookie(self._cookie_of(headers))
        if visitor is None and not is_public(scope["path"]):
            return 401, "open the link that `seedbed serve` printed, or make a new one with `seedbed serve --new-link`"
        by_script = bool(bearer) and visitor is not None
        if not by_script and _is_foreign(scope["method"], host, headers):
            return 403, "another site caused this request"
        scope["visitor"] = visitor
        return None

    def _cookie_of(self, headers: "_Headers") -> str:
        try:
            found = SimpleCookie(headers.one("cookie"))
        except CookieError:
            return ""
        return found[self.cookie].value if self.cookie in found else ""


def _is_foreign(method: str, host: str, headers: "_Headers") -> bool:
    """Return whether another site may be behind a request; what changes anything must prove that none is."""
    origin, site = headers.one("origin"), headers.one("sec-fetch-site")
    if origin == "null" and site == "same-origin":
        origin = ""  # our own form: who names no referrer names no origin; the browser says whose it is
    if origin and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return True
    if method in _SAFE:
        follows_a_link = headers.one("sec-fetch-mode") == "navigate" and headers.one("sec-fetch-dest") == "document"
        return site in ("cross-site", "same-site") and not follows_a_link
    return site not in ("", "same-origin") or not (origin or site)


def visitor_of(scope: MutableMapping[str, Any]) -> Scope | None:
    """Return what the visitor behind a request may do."""
    found: Scope | None = scope.get("visitor")
    return found


async def _answer(send: Send, status: int, why: str, *, is_page: bool) -> None:
    if status == 401 and is_page:  # a person is led to the door; the answer stays a refusal
        body = (
            b'<!doctype html><meta charset="utf-8"><title>Seedbed</title><a href="/login">Log in</a> to see this page.'
        )
        kind = b"text/html; charset=utf-8"
    else:
        body, kind = f"{status}: {why}\n".encode(), b"text/plain; charset=utf-8"
    length = str(len(body)).encode()
    headers = [(b"content-type", kind), (b"content-length", length), (b"cache-control", b"no-store"), *HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Headers:
    """A request's headers; one that came twice is as good as none, since two readers may take different ones."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._found: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            self._found.setdefault(name.lower(), []).append(value)

    def one(self, name: str) -> str:
        values = self._found.get(name.encode(), [])
        return values[0].decode("latin-1") if len(values) == 1 else ""
