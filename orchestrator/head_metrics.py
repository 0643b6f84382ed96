"""A store's figures for Prometheus: runs by status, steps, packs, retries by reason, checkpoints.

A pure function from tables to the text format 0.0.4, and a server of it on this machine alone. Rates are
Prometheus's work: it has the clock. Whoever reaches the store can serve it; no driver and no Ray is asked.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.compute as pc

from jobs.errors import Corrupt, NotFound
from jobs.pack import Saves, get_outcome
from jobs.records import Status
from jobs.store import Store
from orchestrator.collector import Tables

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
METRICS = {
    "seedbed_runs": ("gauge", "Runs by status."),
    "seedbed_run_steps_total": ("counter", "Training steps that are in the store, over all runs."),
    "seedbed_run_steps_planned": ("gauge", "Training steps of all declared runs."),
    "seedbed_packs_live": ("gauge", "Packs of which a run is running."),
    "seedbed_attempts_total": ("counter", "Attempts that were claimed."),
    "seedbed_retries_total": ("counter", "Attempts after the first, by what ended the one before."),
    "seedbed_checkpoints_total": ("counter", "Checkpoints of runs, by kind."),
    "seedbed_checkpoint_files_total": ("counter", "Checkpoint files that packs saved, of packs that ended."),
    "seedbed_checkpoint_seconds_total": ("counter", "Seconds until they were durable, of the thread that writes."),
    "seedbed_checkpoint_bytes_total": ("counter", "Their bytes, also of those that were let go since."),
    "seedbed_findings": ("gauge", "Rows of the audit."),
}
Sample = tuple[str, tuple[tuple[str, str], ...], float]  # name, labels, value
_MOST_REASON = 60  # characters: a reason is a label, and every new label is a new series


def exposition(studies: Mapping[str, Tables], saves: Mapping[str, Saves]) -> str:
    """Return the figures of the studies, by name, in Prometheus's text format; what is equal gives equal text.

    saves  by study: what the checkpoints of its packs took
    """
    samples: dict[str, list[str]] = {name: [] for name in METRICS}
    for study in sorted(studies):
        for name, labels, value in [*_samples(studies[study]), *_saved(saves.get(study, Saves()))]:
            inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in (("study", study), *labels))
            samples[name].append(f"{name}{{{inner}}} {value}")
    lines = []
    for name, (kind, about) in METRICS.items():
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *samples[name]]
    return "\n".join(lines) + "\n"


def _saved(saves: Saves) -> Iterator[Sample]:
    yield "seedbed_checkpoint_files_total", (), saves.count
    yield "seedbed_checkpoint_seconds_total", (), round(saves.seconds, 6)
    yield "seedbed_checkpoint_bytes_total", (), saves.size_bytes


class SavesReader:
    """Reads what checkpoints took from the outcomes in a store, each of them once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Saves] = {}

    def saves(self, tables: Tables) -> Saves:
        """Return it for all packs of a study; those that have not ended, or whose outcome is unreadable, have none."""
        packs = sorted(set(tables["attempts"]["pack_id"].to_pylist()))
        for pack_id in packs:
            if pack_id not in self._known:
                with suppress(NotFound, Corrupt):
                    self._known[pack_id] = get_outcome(self._store, pack_id).saves
        return sum((self._known[pack_id] for pack_id in packs if pack_id in self._known), Saves())


def _samples(tables: Tables) -> Iterator[Sample]:
    runs, attempts = tables["runs"], tables["attempts"]
    counted = Counter(runs["status"].to_pylist())
    for status in Status:
        yield "seedbed_runs", (("status", str(status)),), counted[str(status)]
    yield "seedbed_run_steps_total", (), pc.sum(pc.max_element_wise(runs["last_step"], 0)).as_py() or 0
    yield "seedbed_run_steps_planned", (), pc.sum(runs["planned_steps"]).as_py() or 0
    rows = attempts.select(["run_id", "attempt", "pack_id", "status", "reason"]).to_pylist()
    yield "seedbed_packs_live", (), len({row["pack_id"] for row in rows if row["status"] == Status.RUNNING})
    yield "seedbed_attempts_total", (), len(rows)
    newest = Counter[str]()
    for row in rows:
        newest[row["run_id"]] = max(newest[row["run_id"]], row["attempt"])
    ended = Counter(_reason(row["reason"]) for row in rows if row["attempt"] < newest[row["run_id"]])
    for reason, count in sorted(ended.items()):
        yield "seedbed_retries_total", (("reason", reason),), count
    for kind, count in sorted(Counter(tables["checkpoints"]["kind"].to_pylist()).items()):
        yield "seedbed_checkpoints_total", (("kind", kind),), count
    yield "seedbed_findings", (), tables["audit"].num_rows


def _reason(text: str) -> str:
    return text.partition(":")[0].strip()[:_MOST_REASON] or "lost"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metrics_server(port: int, read: Callable[[], str]) -> ThreadingHTTPServer:
    """Return a server of GET /metrics on 127.0.0.1, not yet started; port 0: any. Raises OSError where it is taken."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer /metrics, to this machine's own names alone: a web page elsewhere cannot read them."""
            name = (self.headers.get("Host") or "").rpartition(":")[0]
            if self.path != "/metrics" or name not in ("127.0.0.1", "localhost"):
                self.send_error(404 if self.path != "/metrics" else 421)
                return
            body = read().encode()
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing: a scrape every few seconds is no news."""

    return ThreadingHTTPServer(("127.0.0.1", port), Handler)
