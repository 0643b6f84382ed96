"""Answers as they go out, compressed and kept: two hundred open pages ask the same after every piece of news.

What is kept is of one version of a study; equal questions that come while the first is answered wait for its answer.
"""

import asyncio
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

_MOST_KEPT, _MOST_BYTES = 200, 16 * 1024**2
_LEVEL = 5
Key = tuple[str, int]


@dataclass(slots=True)
class Kept:
    """The newest answers of JSON, by address and version."""

    _bodies: dict[Key, bytes] = field(default_factory=dict)
    _coming: dict[Key, asyncio.Task[bytes]] = field(default_factory=dict)

    async def json(self, request: Request, version: int, make: Callable[[], Any]) -> Response:
        """Return what `make` gives, as JSON; it is called once for each address and version."""
        key = (f"{request.url.path}?{request.url.query}", version)
        body = self._bodies.get(key)
        if body is None:
            task = self._coming.get(key)
            if task is None:
                task = self._coming[key] = asyncio.create_task(run_in_threadpool(_packed, make))
                task.add_done_callback(lambda done: self._keep(key, done))
            body = await asyncio.shield(task)  # whoever leaves does not take the answer from the others
        headers = {"vary": "Accept-Encoding", "content-type": "application/json"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(body, headers=headers | {"content-encoding": "gzip"})
        return Response(await run_in_threadpool(gzip.decompress, body), headers=headers)

    def _keep(self, key: Key, done: asyncio.Task[bytes]) -> None:
        self._coming.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        self._bodies[key] = done.result()
        size = sum(map(len, self._bodies.values()))
        for oldest in list(self._bodies)[:-1]:
            if len(self._bodies) <= _MOST_KEPT and size <= _MOST_BYTES:
                break
            size -= len(self._bodies.pop(oldest))


def _packed(make: Callable[[], Any]) -> bytes:
    text = json.dumps(make(), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return gzip.compress(text.encode(), _LEVEL, mtime=0)
