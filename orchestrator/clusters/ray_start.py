"""Ray's front door: start one on this machine, or attach to one that runs; authenticated, or not at all.

Whoever reaches Ray's ports runs code on every node. So token authentication is on, a Ray from before 2.54 (whose
dashboard could be driven by a web page) is refused, and only `insecure` lets either pass.
"""

import os
import secrets
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jobs.errors import ClusterError
from orchestrator.clusters.ray_notice import draining, signals_ignored_by_children
from orchestrator.clusters.ray_room import free_resources
from orchestrator.machine import Node

OLDEST = (2, 54)
_ROOT = Path(__file__).resolve().parents[2]
_ANSWER_S = 10.0
_COUNTED = ("CPU", "GPU", "memory", "object_store_memory")  # by Ray; what else a node has are custom resources


def start_ray(cpus: int) -> Any:
    """Start a Ray that lives as long as this process, and return its module; raises ClusterError."""
    check_mode(insecure=False)
    # Given in the environment, the token is written to no file; Ray's own would be readable by everyone.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    with signals_ignored_by_children():
        return _initialised({"address": "local", "num_cpus": cpus, "include_dashboard": False})


def attach_ray(address: str, *, insecure: bool) -> Any:
    """Return Ray's module, connected to the Ray at `address`: auto, host:port or ray://host:port.

    Raises ClusterError where it does not answer, lets everyone in, or is too old.
    """
    check_mode(insecure=insecure)
    if not insecure and find_token() is None:
        raise ClusterError(
            "no token for Ray: give RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH in the environment, the same as on the head"
        )
    return _initialised({"address": address, "namespace": "seedbed"})


def check_mode(*, insecure: bool) -> None:
    """Set token authentication as this process's mode; raises ClusterError where the user has turned it off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] != "token" and not insecure:
        raise ClusterError(
            "RAY_AUTH_MODE must be `token`: without it anyone who reaches Ray's ports runs code here. On a network "
            "that nobody else reaches, --insecure goes on all the same"
        )
    import ray

    check_version(str(ray.__version__), "the Ray of this machine", insecure=insecure)


def check_version(version: str, where: str, *, insecure: bool) -> None:
    """Raise ClusterError for a Ray with known holes (CVE-2025-62593, CVE-2026-27482)."""
    digits = [part for part in version.split(".")[:2] if part.isdigit()]
    known = tuple(int(part) for part in digits)
    if (len(known) < 2 or known < OLDEST) and not insecure:
        raise ClusterError(
            f"{where} is {version or 'of no known version'}; before {OLDEST[0]}.{OLDEST[1]} a web page could run code "
            "in it. Update it, or give --insecure"
        )


def find_token() -> str | None:
    """Return the token that Ray would use: of the environment, of the file it names, or of Ray's own file."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def lets_everyone_in(dashboard: str) -> bool:
    """Return whether the Jobs API at http://host:port answers without a token; raises ClusterError."""
    if urlsplit(dashboard).scheme not in ("http", "https"):
        raise ClusterError(f"{dashboard} is not an address such as http://head:8265")
    try:
        with urllib.request.urlopen(f"{dashboard.rstrip('/')}/api/jobs/", timeout=_ANSWER_S):  # noqa: S310
            return True
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return False
        raise ClusterError(f"{dashboard} is not Ray's Jobs API: it answers {error.code}") from None
    except (OSError, ValueError) as error:
        raise ClusterError(f"{dashboard} does not answer: {error}") from None


def read_nodes(ray: Any, held: Mapping[str, Mapping[str, float]] | None = None) -> tuple[Node, ...]:
    """Return the living nodes that have CPUs and stay, those with most first; raises ClusterError.

    A node that is drained takes no pack. How much memory a GPU has, Ray does not say. With `held`, what its owner's
    processes hold on each node, only that and what is free counts.
    """
    try:
        leaving, free = draining(ray), free_resources(ray) if held is not None else {}
        told = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] not in leaving]
    except (ray.exceptions.RayError, RuntimeError, ConnectionError) as error:
        raise ClusterError(f"Ray does not tell its nodes: {str(error).strip().partition(chr(10))[0]}") from error
    nodes = []
    for node in told:
        has = {name: float(amount) for name, amount in node["Resources"].items()}
        if held is not None:
            here, ours = free.get(node["NodeID"], {}), held.get(node["NodeID"], {})
            has = {name: min(all_, here.get(name, 0.0) + ours.get(name, 0.0)) for name, all_ in has.items()}
        if has.get("CPU", 0) >= 1:
            own = tuple(sorted((name, amount) for name, amount in has.items() if name not in _COUNTED))
            labels = tuple(sorted(node.get("Labels", {}).items()))
            nodes.append(Node(int(has["CPU"]), int(has.get("memory", 0)), has.get("GPU", 0.0), 0, own, labels))
    return tuple(sorted(nodes, key=lambda node: (-node.cpus, node.labels, node.resources)))


def _initialised(options: dict[str, Any]) -> Any:
    import ray

    paths = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        ray.init(
            **options,
            log_to_driver=False,
            configure_logging=False,
            # A path and nothing else: what stands here is shown by Ray's dashboard, and written to its logs.
            runtime_env={"env_vars": {"PYTHONPATH": paths}},
        )
    except (RuntimeError, ConnectionError, ValueError, OSError) as error:
        raise ClusterError(f"Ray did not start: {str(error).strip().partition(chr(10))[0]}") from error
    return ray
