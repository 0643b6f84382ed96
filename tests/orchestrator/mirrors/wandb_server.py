"""A stand-in for the server of W&B: it takes runs and their history, or hangs, errs, or hangs up.

`keeps quiet` takes a history and never says so, as a server does whose answer is lost on the way.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class WandbServer:
    """What was heard. manner: works, hangs, errors, drops or keeps quiet."""

    manner: str = "works"
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: dict[str, dict[int, str]] = field(default_factory=dict)  # run → line → text
    operations: list[str] = field(default_factory=list)
    requests: int = 0
    url: str = ""
    release: threading.Event = field(default_factory=threading.Event)

    def rows(self, run_id: str) -> list[dict[str, Any]]:
        """Return the rows of a run's history in the order of its lines."""
        lines = self.history.get(run_id, {})
        return [json.loads(lines[number]) for number in sorted(lines)]

    def answer(self, name: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Return the data of a GraphQL operation."""
        self.operations.append(name)
        if name == "UpsertBucket":
            return {"upsertBucket": self._upsert(variables)}
        if name in ("RunResumeStatus", "RunStatus"):
            return {"model": self._resume(variables)}
        if name == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "x", "uploadHeaders": [], "files": files}}
        if name == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if name == "Viewer":
            return {"viewer": {"id": "v", "entity": "team", "username": "one", "flags": "{}", "teams": {"edges": []}}}
        return {}

    def _upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        run_id = given.get("name") or given.get("id") or ""
        inserted = run_id not in self.runs
        known = self.runs.setdefault(run_id, {})
        known |= {key: value for key, value in given.items() if value is not None}
        project = {"id": "p", "name": given.get("project") or "", "entity": {"id": "e", "name": "team"}}
        bucket = {"id": f"id-{run_id}", "name": run_id, "displayName": known.get("displayName") or run_id}
        bucket |= {"description": "", "config": "{}", "sweepName": None, "project": project}
        bucket |= {"historyLineCount": len(self.history.get(run_id, {}))}
        return {"bucket": bucket, "inserted": inserted}

    def _resume(self, given: dict[str, Any]) -> dict[str, Any]:
        run_id = given["name"]
        model: dict[str, Any] = {"id": "p", "name": given.get("project"), "entity": {"id": "e", "name": "team"}}
        if run_id not in self.runs:
            return model | {"bucket": None}
        lines = self.history.get(run_id, {})
        tail = json.dumps([lines[max(lines)]] if lines else [])
        bucket = {"id": f"id-{run_id}", "name": run_id, "historyLineCount": len(lines), "historyTail": tail}
        bucket |= {"eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]", "summaryMetrics": "{}"}
        return model | {"bucket": bucket | {"config": "{}", "tags": [], "wandbConfig": json.dumps({"t": 1})}}

    def take(self, run_id: str, body: dict[str, Any]) -> None:
        """Take lines of the history of a run; a line at a place that it has is written over."""
        part = body.get("files", {}).get("wandb-history.jsonl")
        if part:
            lines = self.history.setdefault(run_id, {})
            lines.update({part["offset"] + index: line for index, line in enumerate(part["content"])})


class _Quiet(ThreadingHTTPServer):
    """Says nothing of clients that were killed."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def wandb_server(manner: str = "works") -> Iterator[WandbServer]:
    """Serve on a free port of this machine."""
    state = WandbServer(manner)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.requests += 1
            if state.manner == "hangs":
                state.release.wait()
                return
            if state.manner == "drops":
                self.close_connection = True
                return
            if state.manner == "errors":
                self.reply(500, {"errors": [{"message": "out of order"}]})
                return
            answer = self.handle_body(body)
            if state.manner == "keeps quiet" and state.history:
                state.release.wait()
            self.reply(200, answer)

        def handle_body(self, body: bytes) -> dict[str, Any]:
            if self.path.startswith("/graphql"):
                asked = json.loads(body)
                found = re.search(r"(?:query|mutation)\s+(\w+)", asked["query"])
                return {"data": state.answer(found[1] if found else "", asked.get("variables") or {})}
            if self.path.endswith("/file_stream"):
                state.take(self.path.split("/")[-2], json.loads(body))
            return {}

        def reply(self, code: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = _Quiet(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        state.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
