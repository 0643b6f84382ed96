"""Two hosts as network namespaces, with a `ray start` on each, and the cable between them: cut for 5 s, and for good.

The store is on a disk that both reach, so whoever is cut off from the head goes on writing: the fence must hold.
Only the machine's owner may make namespaces; elsewhere these tests are skipped, and test_chaos.py cuts the way to the
store instead.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.layout import PackKeys
from jobs.store import LocalStore, committed, get_record, open_store
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.scheduler import drive
from tests.e2e.chaos import PACE, SEEDBED, STUDY, read_study, same_bytes, write_study
from tests.raylets import ROOT, end_all, forget_token, free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]
RAY = Path(sys.executable).parent / "ray"
CUT_S, CUTS = 5.0, 2
HERE, THERE = "10.213.77.1", "10.213.77.2"
SMALL = STUDY.replace("pack_width: 2", "pack_width: 1").replace("count: 6", "count: 2")


@dataclass
class Hosts:
    """This host, one behind a cable, and what both have in their environment."""

    name: str
    gcs: int
    environment: dict[str, str]

    @property
    def cable(self) -> str:
        """Return this host's end of it."""
        return f"{self.name}a"

    def ray_start(self, *arguments: str, there: bool = False) -> None:
        """Start a node."""
        inside = ["ip", "netns", "exec", self.name] if there else []
        command = [*inside, str(RAY), "start", f"--node-ip-address={THERE if there else HERE}", *arguments]
        ports = [f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]
        done = subprocess.run([*command, *ports], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def cut(self, state: str) -> None:
        """Cut the cable (down), or mend it (up)."""
        ip("link", "set", self.cable, state)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hosts]:
    name = f"sb{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        pytest.skip("this machine lets nobody make a network namespace")
    folder, mark, gcs = Path(tempfile.mkdtemp(prefix="sb-")), secrets.token_hex(8), free_port()
    for variable, value in {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(folder),
        # Ray needs up to a minute to find a silent node; so it needs some 12 s, and survives 5.
        "RAY_health_check_period_ms": "1000",
        "RAY_health_check_timeout_ms": "2000",
        "RAY_health_check_failure_threshold": "4",
        "SEEDBED_TEST_RAY": mark,
        PACE: str(tmp_path / "pace"),
        "PYTHONPATH": str(ROOT),
    }.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    forget_token()
    made = Hosts(name, gcs, dict(os.environ))
    inside = ("netns", "exec", name, "ip")
    try:
        ip("link", "add", made.cable, "type", "veth", "peer", "name", f"{name}b")
        ip("link", "set", f"{name}b", "netns", name)
        ip("addr", "add", f"{HERE}/24", "dev", made.cable)
        ip("link", "set", made.cable, "up")
        ip(*inside, "addr", "add", f"{THERE}/24", "dev", f"{name}b")
        ip(*inside, "link", "set", f"{name}b", "up")
        ip(*inside, "link", "set", "lo", "up")
        client = f"--ray-client-server-port={free_port()}"
        made.ray_start("--head", f"--port={gcs}", "--num-cpus=1", f"--temp-dir={folder}", client, *no_dashboard())
        made.ray_start(f"--address={HERE}:{gcs}", "--num-cpus=1", there=True)
        yield made
    finally:
        end_all(mark)
        forget_token()
        subprocess.run(["ip", "link", "del", made.cable], capture_output=True)
        subprocess.run(["ip", "netns", "del", name], capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


def no_dashboard() -> tuple[str, str]:
    return "--include-dashboard=false", f"--dashboard-port={free_port()}"


def is_there(pid: int) -> bool:
    """Return whether a process is on the other host."""
    return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def saved(store: LocalStore, pack_id: str) -> int:
    keys = committed(store, PackKeys(pack_id).checkpoints)
    return max((int(key.rpartition("/")[2].partition(".")[0]) for key in keys), default=-1)


def wait_until(ready: Callable[[], bool]) -> None:
    """Wait; the test's own timeout is the limit."""
    while not ready():
        time.sleep(0.1)


def test_a_host_that_is_cut_off_for_5_s_keeps_its_pack_and_one_cut_off_for_good_is_fenced(
    hosts: Hosts, tmp_path: Path
) -> None:
    pace = tmp_path / "pace"
    pace.write_text("0")
    file = write_study(tmp_path, SMALL)
    made, store = read_study(file), open_store(tmp_path / "store", create=True)
    calm = open_store(tmp_path / "calm", create=True)
    register(calm, made, file.name)
    inline = InlineCluster(cpus=1)
    drive(made, calm, inline, calibrate=False)
    inline.close()
    pace.write_text("0.05")
    where = ["--store", store.url, "--address", f"{HERE}:{hosts.gcs}", "--no-report", "--json"]
    with subprocess.Popen([*SEEDBED, "run", str(file), *where], env=hosts.environment) as driver:
        try:
            wait_until(lambda: len({key.split("/")[1] for key in committed(store, "packs/")}) == 2)
            packs = sorted({key.split("/")[1] for key in committed(store, "packs/")})
            (away,) = [p for p in packs if is_there(int(get_record(store, PackKeys(p).claim)["pid"]))]
            for _ in range(CUTS):
                hosts.cut("down")
                before = {pack_id: saved(store, pack_id) for pack_id in packs}
                time.sleep(CUT_S)
                wait_until(lambda: all(saved(store, pack_id) > before[pack_id] for pack_id in packs))  # noqa: B023
                hosts.cut("up")
                before = {pack_id: saved(store, pack_id) for pack_id in packs}
                time.sleep(CUT_S)
                wait_until(lambda: all(saved(store, pack_id) > before[pack_id] for pack_id in packs))  # noqa: B023
            (run_id,) = [run.id for run in made.runs if attempts_of(store, run.id)[0].pack_id == away]
            assert len(attempts_of(store, run_id)) == 1, "5 s without a word are no loss"
            hosts.ray_start(f"--address={HERE}:{hosts.gcs}", "--num-cpus=1")
            hosts.cut("down")
            began, before_cut = time.monotonic(), saved(store, away)
            wait_until(lambda: len(attempts_of(store, run_id)) == 2)
            took_s = time.monotonic() - began
            assert saved(store, away) > before_cut, "who was cut off wrote on"
            assert attempts_of(store, run_id)[1].resumed_step >= before_cut
            hosts.cut("up")
            pace.write_text("0")
            assert driver.wait() == 0
        finally:
            driver.kill()
    print(f"\na host cut off from Ray → its run trains elsewhere: {took_s:.1f} s")  # noqa: T201
    same_bytes(store, calm, made)
