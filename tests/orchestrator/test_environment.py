"""A resume under another environment goes on, is recorded and marked; with `strict` it is refused."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import EnvironmentChanged
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.scheduler import drive
from orchestrator.verify import verify
from tests.bitwise.drives import STUDY, final, killed_at, one_command
from workers import pack
from workers.determinism import Environment

NO_RETRY = STUDY.replace("retries: 3", "retries: 0")


@pytest.fixture
def half_trained(tmp_path: Path) -> Path:
    """Return a store whose runs were killed at step 3."""
    with killed_at(3):
        one_command(tmp_path / "store", NO_RETRY)
    return tmp_path / "store"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return what moves everything that follows to a machine with another torch."""
    here = pack.fingerprint

    def moved(device: str, packages: Sequence[str]) -> Environment:
        facts: dict[str, Any] = here(device, packages).facts | {"torch": "9.9.9", "commit": "other"}
        return Environment(facts)

    return lambda: monkeypatch.setattr(pack, "fingerprint", moved)


def test_it_goes_on_and_every_estimate_says_so(half_trained: Path, elsewhere: Callable[[], None]) -> None:
    elsewhere()
    tables = one_command(half_trained)
    assert tables["runs"]["mixed_environment"].to_pylist() == [True, True]
    assert len(set(tables["attempts"]["environment"].to_pylist())) == 2
    library = Library(open_store(half_trained))
    (condition,) = library.summary("small").conditions
    assert condition.success.cohort.mixed == 2
    kinds = [finding.kind for finding in verify(library.store, read_declared(library.store, "small"), 0).findings]
    assert kinds == ["mixed_environment"] * 2


def test_strict_refuses_and_leaves_everything_as_it_was(half_trained: Path, elsewhere: Callable[[], None]) -> None:
    elsewhere()
    store = open_store(half_trained)
    attempts = sorted(store.keys("attempts/"))
    cluster = InlineCluster(cpus=1)
    with pytest.raises(EnvironmentChanged, match=r"torch was '.*' and is '9\.9\.9'"):
        drive(parse_study(STUDY, "s.yaml", Path()), store, cluster, calibrate=False, strict=True)
    cluster.close()
    assert sorted(store.keys("attempts/")) == attempts


def test_another_commit_of_the_same_source_is_the_same_environment(
    half_trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = pack.fingerprint
    monkeypatch.setattr(pack, "fingerprint", lambda *asked: Environment(here(*asked).facts | {"commit": "other"}))
    tables = one_command(half_trained)
    assert not any(tables["runs"]["mixed_environment"].to_pylist())
    monkeypatch.undo()
    assert final(tables) == final(one_command(tmp_path / "calm"))
