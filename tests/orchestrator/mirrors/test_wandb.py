"""W&B: what it is shown equals the rows, its key is nowhere, and what it does touches nothing else."""

import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

from jobs.errors import MirrorError
from jobs.store import open_store
from orchestrator.imports.wandb_files import read_offline
from orchestrator.library import Library
from orchestrator.mirrors.beside import Beside, Round, send
from orchestrator.mirrors.sent import read_sent
from tests.cli import invoke
from tests.orchestrator.conftest import STUDY
from tests.orchestrator.mirrors.wandb_server import WandbServer, wandb_server

CANARY = "c4a4a4y0" * 5  # 40 characters, as a key has
Cell = tuple[str, int, str, float]


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Return a store with a small study, trained; W&B's own files lie in the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.chdir(tmp_path)
    small = STUDY.replace("[4, 8]", "[4]").replace("count: 3", "count: 2")
    (tmp_path / "tiny.yaml").write_text(small)
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--json", "--store", "store")
    return Library(open_store(tmp_path / "store"))


def committed(library: Library) -> list[Cell]:
    table = Library(library.store).tables("tiny")["metrics"]
    columns = (table[name].to_pylist() for name in ("run_id", "step", "metric", "value"))
    return sorted(zip(*columns, strict=True))


def go(library: Library, folder: Path, patience_s: float = 60.0) -> Round:
    return send("wandb", library.store.url, "tiny", folder, lambda _: None, patience_s=patience_s)


def online(server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("WANDB_MODE", "online")


def arrived(server: WandbServer) -> list[Cell]:
    return sorted(
        (run, row["_step"], name, float(value))
        for run in server.history
        for row in server.rows(run)
        for name, value in row.items()
        if not name.startswith("_")
    )


def test_offline_runs_hold_the_rows(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    told = json.loads(invoke("sync", "wandb", "tiny", "--store", "store", "--json"))
    assert told["runs"] == 2
    table = read_offline(Path(told["folder"]))
    columns = (table[name].to_pylist() for name in ("run", "step", "metric", "value"))
    assert sorted(zip(*columns, strict=True)) == committed(library)
    assert json.loads(invoke("sync", "wandb", "tiny", "--store", "store", "--json"))["runs"] == 0
    assert len(list(Path(told["folder"]).rglob("*.wandb"))) == 2


def test_what_an_interrupted_try_left_is_not_sent_twice(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert go(library, tmp_path / "w").error == ""
    for key in library.store.keys("mirrors/"):  # it died before it could say so
        library.store.delete(key)
    assert go(library, tmp_path / "w").sent == 2
    table = read_offline(tmp_path / "w")
    assert max(Counter(zip(*(table[n].to_pylist() for n in ("run", "step", "metric")), strict=True)).values()) == 1


def test_online_runs_have_the_rows_and_say_what_they_are(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server() as server:
        online(server, monkeypatch)
        assert go(library, tmp_path / "w") == Round(2, 2, len(committed(library)), "")
        assert arrived(server) == committed(library)
        run = library.declared("tiny").runs[0]
        bucket = server.runs[run.id]
        assert (bucket["groupName"], bucket["project"]) == ("model.width=4", "tiny")
        config = json.loads(bucket["config"])
        assert config["seeds"]["value"] == run.seeds.as_dict()
        assert config["model"]["value"]["width"] == 4
        before = server.requests
        assert go(library, tmp_path / "w").runs == 0
        assert server.requests == before
    assert [path.name for path in (tmp_path / "w").iterdir()] == [".lock"]


@pytest.mark.parametrize("manner", ["hangs", "errors", "drops"])
def test_a_server_in_trouble_costs_a_while_and_no_row(
    manner: str, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server(manner) as server:
        online(server, monkeypatch)
        failed = go(library, tmp_path / "w", patience_s=6.0)
        assert failed.error
        assert failed.sent == 0
        assert read_sent(library.store, "wandb", "tiny") == {}
        server.manner = "works"
        server.release.set()
        assert go(library, tmp_path / "w").error == ""
        assert arrived(server) == committed(library)


def test_rows_whose_arrival_nobody_confirmed_are_not_doubled(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server("keeps quiet") as server:
        online(server, monkeypatch)
        assert go(library, tmp_path / "w", patience_s=6.0).sent == 0
        assert arrived(server)  # of the first run
        server.manner = "works"
        server.release.set()
        assert go(library, tmp_path / "w").error == ""
        assert arrived(server) == committed(library)


def test_without_a_key_it_says_so(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(MirrorError, match=r"key|log in|login"):
        invoke("sync", "wandb", "tiny", "--store", "store")


def test_the_key_is_in_no_file_and_in_no_list_of_processes(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def look(_: Round) -> None:
        seen.append(subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout)

    with wandb_server() as server:
        online(server, monkeypatch)
        done = send("wandb", library.store.url, "tiny", tmp_path / "w", look)
        assert done.error == ""
        assert any("orchestrator.mirrors" in listed for listed in seen)
        server.manner = "errors"
        invoke("sync", "wandb", "tiny", "--store", "store", "--json")
        invoke("report", "tiny", "--store", "store")
        said = json.dumps([done.error, server.operations])
    assert (tmp_path / "store.report" / "tiny" / "report.html").exists()
    told = [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert told == []
    assert not any(CANARY in text for text in [*seen, said])


def test_training_does_not_notice_a_server_that_hangs(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wandb_server("hangs") as server:
        online(server, monkeypatch)
        beside = Beside(("wandb",), library.store.url, "tiny", lambda _: tmp_path / "w", every_s=0.05)
        with beside:
            while not server.requests:
                time.sleep(0.05)
            (tmp_path / "tiny.yaml").write_text((tmp_path / "tiny.yaml").read_text().replace("count: 2", "count: 3"))
            run = json.loads(
                invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--json", "--store", "store")
            )
            assert run["conditions"][0]["finished"] == 3
            assert beside.finish(last_round_s=0.5)["wandb"].error
    left = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) not in left
