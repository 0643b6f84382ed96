"""What the suites over clusters share: a store, a Ray of several nodes, and the three kinds of cluster."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobs.store import LocalStore, open_store
from orchestrator.clusters import Cluster
from orchestrator.clusters.inline import InlineCluster
from orchestrator.clusters.ray import RayCluster
from orchestrator.clusters.ray_start import check_mode
from tests.fakes import FakeCluster


@contextmanager
def nodes_of_ray(head_cpus: int, **head: Any) -> Iterator[Any]:
    """Yield a Ray with a token, a head with so many CPUs for packs, to which nodes may be added."""
    # Before Ray is imported, which reads the mode once; another test of this process may have set the token.
    check_mode(insecure=False)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    from ray.cluster_utils import Cluster as Nodes

    made = Nodes(initialize_head=True, head_node_args={"num_cpus": head_cpus, "dashboard_port": 0} | head)
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def attached(nodes: Any) -> Iterator[RayCluster]:
    """Return a head on the Ray of the module's `nodes`."""
    made = RayCluster(address=nodes.address)
    yield made
    made.close()


@pytest.fixture(params=["fake", "inline", pytest.param("ray", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Return each kind of cluster; Ray's is the module's own `ray_cluster`."""
    if request.param == "ray":
        yield request.getfixturevalue("ray_cluster")
        return
    made: Cluster = FakeCluster() if request.param == "fake" else InlineCluster(cpus=2)
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    """Return an empty store."""
    return open_store(tmp_path / "store", create=True)
