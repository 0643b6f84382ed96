"""A study goes on from the store alone; verbs that work from any machine that reaches it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.errors import StudyError, TaskError
from jobs.requests import request_stop
from jobs.store import open_store
from jobs.study_file import read_study
from jobs.study_files import files_of, laid_out
from orchestrator.cli import app
from orchestrator.declared import register, studies
from orchestrator.stored_study import stored_study
from tests.orchestrator.conftest import STUDY

ODD = "from jobs.tasks.parity import Parity\n\n\nclass Odd(Parity):\n    pass\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a study whose task is the user's own, one folder up."""
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "odd.py").write_text(ODD)
    (folder / "tiny.yaml").write_text(STUDY.replace("name: parity", 'name: "../tasks/odd.py:Odd"'))
    monkeypatch.chdir(folder)
    return folder


def invoke(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


def test_a_study_is_whole_in_the_store(home: Path) -> None:
    store = open_store("s", create=True)
    study = read_study(Path("tiny.yaml"))
    before = register(store, study, "tiny.yaml")
    assert before.files == {"../tasks/odd.py": ODD}
    (home / "tiny.yaml").unlink()
    (home.parent / "tasks" / "odd.py").unlink()
    with stored_study(store, "tiny") as (again, declared):
        assert [run.id for run in again.runs] == [run.id for run in study.runs]
        assert register(store, again, declared.file).revision == before.revision == 1


def test_a_fork_takes_its_parents_along(home: Path) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s")
    own = STUDY.replace("study: tiny", "study: child").replace("name: parity", 'name: "../tasks/odd.py:Odd"')
    (home / "child.yaml").write_text(own + "fork: {study: tiny.yaml, steps: [10], redraw: [data]}\n")
    study = read_study(home / "child.yaml")
    assert set(files_of(study)) == {"../tasks/odd.py", "tiny.yaml"}
    store = open_store("s")
    register(store, study, "child.yaml")
    for path in (home / "tiny.yaml", home / "child.yaml", home.parent / "tasks" / "odd.py"):
        path.unlink()
    with stored_study(store, "child") as (again, _):
        assert [run.id for run in again.runs] == [run.id for run in study.runs]


def test_a_file_that_would_lie_outside_is_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path / "x.py"), "../" * 20 + "x.py"):
        with pytest.raises(StudyError, match="not at a relative path"), laid_out({path: "evil"}, "tiny.yaml"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_stop_list_logs_and_resume_from_the_store_alone(home: Path) -> None:
    said = json.loads(invoke("submit", "tiny.yaml", "--store", "s", "--json"))
    assert (said["study"], said["job"]) == ("tiny", None), "it is put into the store, and nobody is asked to train it"
    store = open_store("s")
    request_stop(store, "tiny")
    (home / "tiny.yaml").unlink()
    assert json.loads(invoke("stop", "--store", "s", "--json")) == {"study": "tiny", "request": 2, "driver": None}
    arguments = ("resume", "tiny", "--store", "s", "--cluster", "inline", "--no-report", "--json")
    done = CliRunner().invoke(app, [*arguments, "--stops-seen", "1"])
    assert "stopped" in str(done.exception), "a request that is newer than the drive stops it"
    listed = json.loads(invoke("list", "--store", "s", "--json"))
    assert listed[0]["status"]["finished"] == 0
    said = json.loads(invoke(*arguments))
    assert [c["finished"] for c in said["conditions"]] == [3, 3]

    listed = json.loads(invoke("list", "--store", "s", "--json"))
    assert (listed[0]["study"], listed[0]["runs"], listed[0]["driver"]) == ("tiny", 6, None)
    assert listed[0]["status"]["finished"] == 6
    assert "tiny" in invoke("list", "--store", "s")
    packs = {key.split("/")[1] for key in store.keys("packs/") if key.endswith("outcome.json")}
    logs = invoke("logs", "tiny", "-f", "--store", "s")
    assert all(f"==> {pack}" in logs for pack in packs)
    assert logs.count("ended:") == len(packs)
    run = store.keys("attempts/")[0].removeprefix("attempts/").partition(".")[0]
    assert invoke("logs", run[:12], "--store", "s").count("==> ") >= 1
    assert len(invoke("logs", sorted(packs)[0], "-n", "1", "--store", "s").splitlines()) == 2
    assert studies(store) == ["tiny"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["logs", "nothing", "--store", "s"], 1, "is no study, no run and no pack of this store; it holds tiny"),
        (["stop", "tinny", "--store", "s"], 1, "it holds tiny"),
        (["resume", "tinny", "--store", "s"], 1, "it holds tiny"),
        (["resume", "tiny", "--store", "s", "--cluster", "inline", "--address", "auto"], 1, "give one of them"),
        (["list", "--store", "s3://key:secret@bucket/x"], 1, "no credentials"),
        (["submit", "tiny.yaml", "--address", "head:8265", "--store", "s"], 1, "such as http://head:8265"),
        (["submit", "tiny.yaml", "--address", "http://127.0.0.1:9", "--store", "s"], 1, "does not answer"),
    ],
)
def test_bad_input_is_an_answer(home: Path, arguments: list[str], code: int, told: str) -> None:
    register(open_store("s", create=True), read_study(Path("tiny.yaml")), "tiny.yaml")
    command = [sys.executable, "-c", "from orchestrator.cli import main; main()", *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert told in " ".join(done.stderr.split())
    assert "secret" not in done.stderr


@pytest.mark.parametrize("name", ["jobs", "workers"])
def test_a_module_that_would_hide_ours_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / f"{name}.py").write_text(ODD)
    (tmp_path / "tiny.yaml").write_text(STUDY.replace("name: parity", f'name: "{name}.py:Odd"'))
    with pytest.raises((StudyError, TaskError), match="rename it"):
        read_study(tmp_path / "tiny.yaml")
    # Found first, as `python -m` does it with the working folder.
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; import orchestrator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert f"is called `{name}` as a part of Seedbed is" in done.stderr
