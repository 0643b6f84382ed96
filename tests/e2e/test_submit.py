"""A study submitted to a separately started head, its store in a bucket: killed, resumed, and the same to the byte."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.errors import ClusterError
from jobs.lease import holder, sight
from jobs.process import is_surely_dead
from jobs.store import Store, committed, get_record, open_store
from orchestrator.cli import app
from orchestrator.clusters.ray_jobs import entrypoint, submit_job
from orchestrator.clusters.ray_start import check_mode, check_version
from tests.orchestrator.conftest import STUDY
from tests.raylets import end_all, forget_token, free_port, processes_with
from tests.s3 import CREDENTIALS

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# It waits half-way until the test has done what it does to those that train.
ODD = """\
import os
import time
from pathlib import Path

from jobs.tasks.parity import Parity


class Odd(Parity):
    def batch(self, streams, step, size):
        while step > 700 and not Path(os.environ["SEEDBED_TEST_GATE"]).exists():
            time.sleep(0.05)
        return super().batch(streams, step, size)
"""


@dataclass(frozen=True)
class Head:
    """A running head: its dashboard, the environment of its clients, and where its logs lie."""

    dashboard: str
    environment: dict[str, str]
    folder: Path


@pytest.fixture
def head(bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Head]:
    folder = Path(tempfile.mkdtemp(prefix="sb-"))  # Ray's sockets lie below it, and their paths are short
    mark = f"SEEDBED_TEST_HEAD={secrets.token_hex(8)}"
    for name, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "PYTHONPATH": str(ROOT),
        "SEEDBED_TEST_GATE": str(tmp_path / "gate"),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    forget_token()
    gcs, dashboard = free_port(), free_port()
    arguments = ["start", "--head", f"--port={gcs}", f"--dashboard-port={dashboard}", "--dashboard-host=127.0.0.1"]
    arguments += [f"--temp-dir={folder}", "--num-cpus=2", f"--ray-client-server-port={free_port()}"]
    arguments += [f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]
    environment = dict(os.environ)
    name, _, value = mark.partition("=")
    try:
        started = subprocess.run(
            [BIN / "ray", *arguments], env=environment | {name: value}, capture_output=True, text=True
        )
        assert started.returncode == 0, started.stdout + started.stderr
        yield Head(f"http://127.0.0.1:{dashboard}", environment, folder)
    finally:
        end_all(mark)
        forget_token()
        shutil.rmtree(folder, ignore_errors=True)


def seedbed(head: Head, *arguments: str) -> str:
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=head.environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def here(*arguments: str) -> str:
    """Return what a verb prints that needs no cluster."""
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait; the test's own timeout is the limit."""
    while not ready():
        time.sleep(0.2)


def driver_of(store: Store) -> int:
    """Return the pid of whoever drives the study, or 0."""
    seen = sight(store, "tiny")
    return 0 if seen.released else int(holder(store, "tiny", seen.epoch).get("pid", 0))


def weights(store: Store) -> dict[tuple[str, int], list[str]]:
    """Return (run, step) → the digests that the store has of it, at the study's milestones and its end."""
    found: dict[tuple[str, int], list[str]] = {}
    for key in committed(store, "packs/"):
        if key.endswith(".safetensors"):
            extra = json.loads(store.get(f"{key}.manifest.json"))["extra"]
            for run in extra["runs"]:
                found.setdefault((run["run_id"], extra["step"]), []).append(run["sha256"])
    return found


def test_submitted_killed_and_resumed_ends_as_if_it_had_not_been(
    head: Head, bucket_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text(ODD)
    text = STUDY.replace("name: parity", 'name: "odd.py:Odd"').replace("steps: 12", "steps: 1500")
    text = text.replace("probes: {every: 4}", "probes: {every: 300}").replace(
        "{rolling: {every: 5}}", "{rolling: {every: 150}}"
    )
    Path("tiny.yaml").write_text(text.replace("count: 3", "count: 2").replace("[4, 8]", "[4]"))
    where = ("--store", bucket_url, "--address", head.dashboard)
    job = json.loads(seedbed(head, "submit", "tiny.yaml", *where, "--json"))
    assert job["job"].startswith("seedbed-tiny-")
    Path("tiny.yaml").rename("moved.yaml")  # what was submitted needs neither file any more
    Path("odd.py").rename("moved.py")
    store = open_store(bucket_url)

    wait_until(lambda: any(k.endswith("000600.safetensors") for k in committed(store, "packs/")))
    killed = driver_of(store)
    os.kill(killed, signal.SIGKILL)
    check_secrets(head, store)
    seedbed(head, "resume", "tiny", *where)
    wait_until(lambda: driver_of(store) not in (0, killed))
    claims = [key for key in store.keys("packs/") if key.endswith("/claim.json")]
    assert not any(is_surely_dead(get_record(store, key)) for key in claims), "they train on without a driver"
    for key in claims:
        os.kill(get_record(store, key)["pid"], signal.SIGKILL)
    Path("gate").touch()
    wait_until(lambda: driver_of(store) == 0)

    listed = json.loads(here("list", "--store", bucket_url, "--json"))[0]
    assert listed["status"] == {"waiting": 0, "running": 0, "finished": 2, "diverged": 0, "failed": 0}
    again = [key for key in store.keys("attempts/") if key.endswith(".0002.json")]
    assert len(again) == 2, "both lost their processes, and none of them lost it with the driver"
    Path("moved.py").rename("odd.py")
    Path("moved.yaml").rename("tiny.yaml")
    here("run", "tiny.yaml", "--cluster", "inline", "--cpus", "1", "--store", "here", "--no-report", "--json")
    inline, submitted = weights(open_store("here")), weights(store)
    ends = [key for key in inline if key[1] == 1500]
    assert len(ends) == 2
    assert [set(submitted[key]) for key in ends] == [set(inline[key]) for key in ends]
    asked = "SELECT run_id, step, metric, value FROM metrics WHERE metric != 'train.seconds' ORDER BY ALL"
    rows = [json.loads(here("query", asked, "--json", "--store", s)) for s in (bucket_url, "here")]
    assert rows[0] == rows[1] != []
    check_secrets(head, store)


def check_secrets(head: Head, store: Store) -> None:
    """Look for the keys wherever Ray, Seedbed or `ps` show anything."""
    secret = [*(value for value in CREDENTIALS.values() if "CANARY" in value), head.environment["RAY_AUTH_TOKEN"]]
    from ray.job_submission import JobSubmissionClient

    jobs = JobSubmissionClient(head.dashboard).list_jobs()
    assert jobs
    shown = [repr((job.entrypoint, job.runtime_env, job.metadata, job.message)) for job in jobs]
    shown += [line for line in processes_with(str(head.folder)).values() if line]
    shown += [p.read_text(errors="replace") for p in (head.folder).glob("session_*/logs/**/*") if p.is_file()]
    shown += [store.get(key).decode("latin-1") for key in store.keys("") if key.endswith((".json", ".txt", ".py"))]
    assert len(shown) > 20
    assert not [text[:200] for text in shown for word in secret if word in text]


def test_a_head_that_asks_for_no_token_and_an_old_ray_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Open(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"[]")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Open)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 32)
    with pytest.raises(ClusterError, match="without a token"):
        submit_job(f"http://127.0.0.1:{server.server_address[1]}", "tiny", "s3://b/x", 0, insecure=False)
    server.shutdown()
    server.server_close()
    for version in ("2.53.9", "1.13.0", "", "weird"):
        with pytest.raises(ClusterError, match="--insecure"):
            check_version(version, "the Ray there", insecure=False)
        check_version(version, "the Ray there", insecure=True)
    for version in ("2.54.0", "2.60.0", "3.0.0"):
        check_version(version, "the Ray there", insecure=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ClusterError, match="RAY_AUTH_MODE must be"):
        check_mode(insecure=False)
    check_mode(insecure=True)


def test_a_jobs_command_is_safe_in_a_shell() -> None:
    assert entrypoint("a b", "s3://b/$(x)", 3) == (
        "seedbed resume 'a b' --store 's3://b/$(x)' --address auto --stops-seen 3 --no-report --json"
    )
