"""A real S3 API over HTTP on this machine: moto's server, in its own process and its own environment.

Between a store and the server a test may put a relay that loses replies, or answers 503, as networks do.
"""

import http.client
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

# Its dependencies exclude versions that ours need, so it lives apart (`make setup`).
SERVER = Path(sys.prefix) / "s3" / "bin" / "moto_server"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "CANARYKEY0001", "AWS_SECRET_ACCESS_KEY": "CANARYSECRET0001", "AWS_REGION": "eu-1"}


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """Yield the address of a running server, and end it."""
    if not SERVER.exists():
        raise FileNotFoundError(f"{SERVER} is not there: make setup")
    log = folder / "moto.log"
    with log.open("wb") as sink:
        process = subprocess.Popen([SERVER, "-H", "127.0.0.1", "-p", "0"], stdout=sink, stderr=sink)
        try:
            while not (found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text(errors="replace"))):
                if process.poll() is not None:
                    raise RuntimeError(log.read_text())
                time.sleep(0.05)
            yield found[1]
        finally:
            process.kill()
            process.wait()


def make_bucket(endpoint: str, name: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")):
        pass


Decide = Callable[[str, str, int], str]  # method, path, how many of this method before → what happens


@contextmanager
def relay(endpoint: str, decide: Decide) -> Iterator[str]:
    """Yield the address of a relay to `endpoint`; `decide` says pass, lose-reply, lose-request or 503."""
    host = urlsplit(endpoint).netloc
    seen: dict[str, int] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            number = seen[self.command] = seen.get(self.command, 0) + 1
            verdict = decide(self.command, self.path, number - 1)
            if verdict == "503":
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if verdict != "lose-request":
                upstream = http.client.HTTPConnection(host)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                data = answer.read()
            self.close_connection = True
            if verdict.startswith("lose"):
                return
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding", "server", "date"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = handle_one  # noqa: N815

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
