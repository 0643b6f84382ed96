"""A real Ray of several nodes on this machine, with a token, whose parts can be killed and started again.

Its GCS keeps its state on the disk (RocksDB, built into Ray), and nodes wait for it for an hour: with Ray's defaults a
minute without a GCS ends every node, and all that trains on it.
"""

import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def free_port() -> int:
    """Return a free port outside of those that Ray gives its workers (10002 to 19999)."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            if not 10000 <= port < 20000:
                return port


def processes_with(mark: str) -> dict[int, str]:
    """Return pid → command line of every process of which the environment or the command line has the mark."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                if mark.encode() in text:
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
    return found


def end_all(mark: str) -> None:
    """End every process that has the mark; never `ray stop`, which ends every Ray of the machine."""
    while left := processes_with(mark):
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Return the processes below this one."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process may end at any moment
        for folder in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):
                for child in (folder / "children").read_text().split():
                    found += [int(child), *children(int(child))]
    return found


def forget_token() -> None:
    """Let Ray read this process's token again: it keeps the first, which another test's Ray may have been given."""
    from ray._raylet import AuthenticationTokenLoader

    AuthenticationTokenLoader.instance().reset_cache()


@dataclass
class Raylets:
    """A head without CPUs for packs, and nodes that have some."""

    cluster: Any
    folder: Path

    @property
    def address(self) -> str:
        """Return host:port of the GCS."""
        return str(self.cluster.address)

    @property
    def nodes(self) -> list[Any]:
        """Return the nodes for packs."""
        return sorted(self.cluster.worker_nodes, key=lambda node: self.raylet(node))

    def add(self, cpus: int = 1) -> None:
        """Start another node."""
        self.cluster.add_node(num_cpus=cpus)

    def raylet(self, node: Any) -> int:
        """Return the pid of a node's raylet."""
        return int(node.all_processes["raylet"][0].process.pid)

    def kill(self, node: Any, *, orphans: bool) -> None:
        """Kill a node's raylet; its workers go with it, or go on as orphans."""
        below = [] if orphans else children(self.raylet(node))
        node.kill_raylet(check_alive=False)
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.cluster.worker_nodes.remove(node)

    def kill_gcs(self) -> None:
        """Kill the GCS and nothing else."""
        self.cluster.head_node.kill_gcs_server()

    def start_gcs(self) -> None:
        """Start it again, where it was."""
        self.cluster.head_node.start_gcs_server()


@contextmanager
def raylets(nodes: int, environment: dict[str, str], cpus: int = 1) -> Iterator[Raylets]:
    """Yield a Ray of a head and so many nodes, whose workers have this in their environment; ends all of it."""
    folder = Path(tempfile.mkdtemp(prefix="sb-"))  # Ray's sockets lie below it, and their paths are short
    (folder / "ray").mkdir()
    mark = secrets.token_hex(8)
    given = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": str(folder),
        "RAY_gcs_storage": "rocksdb",
        "RAY_gcs_storage_path": str(folder / "gcs"),
        "RAY_gcs_rpc_server_reconnect_timeout_s": "3600",
        "SEEDBED_TEST_RAY": mark,
        "PYTHONPATH": str(ROOT),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (given | environment).items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        forget_token()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "dashboard_port": free_port()}
        try:
            cluster = Cluster(initialize_head=True, head_node_args=head | {"gcs_server_port": free_port()})
            made = Raylets(cluster, folder)
            for _ in range(nodes):
                made.add(cpus)
            yield made
            cluster.shutdown()
        finally:
            end_all(mark)
            forget_token()
            shutil.rmtree(folder, ignore_errors=True)
