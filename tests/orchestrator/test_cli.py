"""The command line as a user meets it: real processes of `seedbed` where exit codes matter, else in process."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.store import open_store
from tests.cli import invoke
from tests.orchestrator.conftest import STUDY

GOLDEN = Path(__file__).parents[1] / "golden"
VERBS = ("plan", "run", "extend", "status", "query", "report", "verify", "replay")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder with a study in it, made the current one."""
    (tmp_path / "tiny.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEEDBED_STORE", raising=False)
    return tmp_path


def seedbed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "from orchestrator.cli import main; main()"
    environment = {key: value for key, value in os.environ.items() if key != "SEEDBED_STORE"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_an_example(verb: str) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", invoke(verb, "--help"))
    assert f"Example: seedbed {verb}" in text
    assert "--json" in text
    assert "--store" in text


def test_a_study_from_plan_to_report(home: Path) -> None:
    plan = json.loads(invoke("plan", "tiny.yaml", "--json"))
    assert (plan["total"]["runs"], plan["total"]["held"]) == (6, 0)
    assert [c["parameters"] for c in plan["conditions"]] == [268 - 24, 920 - 48]
    assert not (home / "seedbed-store").exists(), "a plan writes nothing"

    run = json.loads(invoke("run", "tiny.yaml", "--cluster", "inline", "--json"))
    assert [c["finished"] for c in run["conditions"]] == [3, 3]
    assert Path(run["report"]).read_text().startswith("<!doctype html>")
    assert json.loads(invoke("plan", "tiny.yaml", "--json"))["total"]["held"] == 6

    status = json.loads(invoke("status", "--json"))
    assert status[0]["conditions"] == run["conditions"]
    answer = json.loads(
        invoke("query", "SELECT count(*) AS n FROM metrics WHERE metric = 'heldout.accuracy'", "--json")
    )
    assert answer == [{"n": 24}]
    out = home / "elsewhere"
    written = json.loads(invoke("report", "tiny", "-o", str(out), "--json"))
    assert {Path(path).name for path in written} == {path.name for path in out.iterdir()}
    assert json.loads((GOLDEN / "status.json").read_text()) == _shape(status), "the shape of the JSON is a contract"


def test_a_plan_of_many_conditions_is_cut_and_says_so(home: Path) -> None:
    text = (home / "tiny.yaml").read_text().replace("study: tiny", "study: wide")
    widths = list(range(2, 92, 2))
    grid = next(line for line in text.splitlines() if line.startswith("grid:"))
    (home / "wide.yaml").write_text(text.replace(grid, f"grid: {{model.width: {widths}}}"))
    told = invoke("plan", "wide.yaml")
    assert f"the first 40 of {len(widths)} conditions; --json lists all" in told
    assert f"{3 * len(widths)}" in next(line for line in told.splitlines() if line.startswith("in all")), (
        "sums are of all"
    )
    assert len(json.loads(invoke("plan", "wide.yaml", "--json"))["conditions"]) == len(widths)


def _shape(value: object) -> object:
    """Return the JSON value with each leaf replaced by the name of its type."""
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shape(item) for item in value[:1]]
    return "text" if isinstance(value, str) else "number or null"


def test_the_same_command_again_trains_nothing_new(home: Path) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s")
    before = open_store("s").keys("packs/")
    text = invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s")
    assert open_store("s").keys("packs/") == before
    assert "6/6 runs done" in text
    assert "P(success)" in text


def test_text_output_names_runs_and_next_commands(home: Path) -> None:
    text = invoke("run", "tiny.yaml", "--cluster", "inline", "--store", "s")
    assert "model.width=4" in text
    assert "Report: s.report/tiny/report.html" in text
    assert "seedbed status tiny --store s" in text
    assert "tiny" in invoke("status", "--store", "s")
    assert "model.width=8" in invoke("status", "tiny", "--store", "s")
    assert "finished" in invoke("query", "--store", "s", "SELECT status FROM runs")
    assert invoke("query", "--store", "s", "SELECT 1 AS a", "--format", "csv").strip() == '"a"\n1'
    lists = invoke("query", "--store", "s", "SELECT [0.5, 1] AS a, sum(2::INT) AS b", "--format", "csv")
    assert lists.splitlines() == ['"a","b"', '"[0.5, 1]",2']
    assert json.loads(invoke("query", "--store", "s", "SELECT sum(2::INT) AS b", "--json")) == [{"b": 2}]


@pytest.mark.parametrize("name", ["answer.csv", "answer.json", "answer.parquet"])
def test_answers_go_into_files(home: Path, name: str) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report")
    invoke("query", "SELECT run_id, status FROM runs", "-o", name)
    import pandas as pd

    readers = {".csv": pd.read_csv, ".json": pd.read_json, ".parquet": pd.read_parquet}
    frame = readers[Path(name).suffix](home / name)
    assert len(frame) == 6
    assert set(frame["status"]) == {"finished"}


def test_a_faulty_study_is_one_message_with_every_fault_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(STUDY.replace("width: 8", "widht: 8").replace("steps: 12", "steps: -1"))
    for verb in ("plan", "run"):
        done = seedbed(verb, "bad.yaml", cwd=tmp_path)
        assert done.returncode == 2
        assert "bad.yaml:4: model.widht: unknown key; did you mean 'width'?" in done.stderr
        assert "bad.yaml:6: training.steps:" in done.stderr
        assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["run", "tinny.yaml"], 2, "did you mean 'tiny.yaml'"),
        (["plan", "."], 2, "is a folder"),
        (["status", "--store", "nowhere"], 1, "there is no store here"),
        (["status", "--store", "."], 1, "not a Seedbed store"),
        (["run", "tiny.yaml", "--store", "."], 1, "not a Seedbed store"),
        (["query", "SELECT 1", "--store", "nowhere"], 1, "there is no store here"),
        (["run"], 2, "Missing argument"),
        (["rnu"], 2, "No such command"),
    ],
)
def test_bad_input_is_an_answer(tmp_path: Path, arguments: list[str], code: int, told: str) -> None:
    (tmp_path / "tiny.yaml").write_text(STUDY)
    done = seedbed(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert told in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_bad_questions_to_a_good_store(home: Path) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s")
    for arguments, told in (
        (["query", "DROP VIEW runs", "--store", "s"], "exactly one SELECT"),
        (["query", "SELECT widht FROM runs", "--store", "s"], "widht"),
        (["status", "tinny", "--store", "s"], "it holds tiny"),
        (["query", "SELECT 1", "--store", "s", "-o", "no/such/folder.csv"], "cannot be written"),
    ):
        done = seedbed(*arguments, cwd=home)
        assert done.returncode in (1, 2)
        assert told in done.stderr
        assert "Traceback" not in done.stderr


def test_failed_runs_are_named_and_the_exit_code_says_so(home: Path) -> None:
    source = "from jobs.tasks.parity import Parity\n\nclass Odd(Parity):\n    def batch(self, streams, step, size):\n"
    source += "        if streams.seeds.data == 1:\n            raise ValueError('odd')\n"
    (home / "odd.py").write_text(source + "        return super().batch(streams, step, size)\n")
    text = STUDY.replace("name: parity", 'name: "odd.py:Odd"')
    (home / "tiny.yaml").write_text(text)
    done = seedbed("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s", cwd=home)
    assert done.returncode == 1
    told = re.findall(r"failed: run (r1-\w+), step 0: task: ValueError: odd; log: (s/packs/\S+/log.txt)", done.stdout)
    assert len(told) == 2
    for run, log in told:
        assert f"run {run}, step 0" in (home / log).read_text()
    status = json.loads(seedbed("status", "--store", "s", "--json", cwd=home).stdout)
    assert [(c["finished"], c["failed"]) for c in status[0]["conditions"]] == [(2, 1), (2, 1)]


def test_ctrl_c_loses_at_most_the_work_since_the_last_checkpoint(home: Path) -> None:
    (home / "tiny.yaml").write_text(STUDY.replace("steps: 12", "steps: 100000"))
    code = "from orchestrator.cli import main; main()"
    arguments = ["run", "tiny.yaml", "--cluster", "inline", "--store", "s", "--cpus", "1"]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list((home / "s").glob("packs/*/checkpoints/*0.safetensors.manifest.json")):
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    status = json.loads(invoke("status", "--json", "--store", "s"))
    assert sum(c["running"] for c in status[0]["conditions"]) > 0


def test_a_shipped_study_goes_by_its_name(home: Path) -> None:
    assert json.loads(invoke("plan", "demo", "--json"))["study"] == "demo"


def test_more_seeds_and_values_train_only_what_is_new(home: Path) -> None:
    text = STUDY.replace("question: does it?", "question: does it?  # a remark that stays")
    (home / "tiny.yaml").write_text(text)
    invoke("run", "tiny.yaml", "--cluster", "inline", "--json")
    attempts = sorted(open_store(home / "seedbed-store").keys("attempts/"))
    arguments = ("extend", "tiny.yaml", "--seeds", "+1", "--grid", "model.width=16", "--cluster", "inline")
    shown = invoke(*arguments, "--dry")
    assert "6 runs and 6 more" in shown
    assert (home / "tiny.yaml").read_text() == text
    run = json.loads(invoke(*arguments, "--json"))
    assert [c["finished"] for c in run["conditions"]] == [4, 4, 4]
    changed = (home / "tiny.yaml").read_text()
    assert changed == text.replace("[4, 8]", "[4, 8, 16]").replace("count: 3", "count: 4")
    after = sorted(open_store(home / "seedbed-store").keys("attempts/"))
    assert set(attempts) < set(after)
    assert len(after) == 12, "one attempt for each run, old or new"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["extend", "tiny.yaml"], "say what to add"),
        (["extend", "tiny.yaml", "--seeds", "8"], "more seeds are +8"),
        (["extend", "tiny.yaml", "--seeds", "+0"], "more seeds are +8"),
        (["extend", "tiny.yaml", "--seeds", "init=+2"], "seeds.init"),
        (["extend", "tiny.yaml", "--grid", "model.depth=2"], "grid.model.depth"),
        (["extend", "tiny.yaml", "--grid", "model.width"], "more values are"),
        (["extend", "tiny.yaml", "--grid", "model.width=8"], "duplicate condition"),
        (["extend", "demo", "--seeds", "+8"], "comes with Seedbed"),
    ],
)
def test_a_faulty_extension_changes_nothing(home: Path, arguments: list[str], told: str) -> None:
    done = seedbed(*arguments, cwd=home)
    assert done.returncode == 2
    assert told in done.stderr
    assert (home / "tiny.yaml").read_text() == STUDY
    assert not (home / "seedbed-store").exists()


def test_verify_and_replay_from_the_terminal(home: Path) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--json")
    verdict = json.loads(invoke("verify", "--json", "--spans", "2"))
    assert verdict["findings"] == []
    assert (verdict["runs"], len(verdict["spans"])) == (6, 2)
    assert "Everything fits." in invoke("verify", "--spans", "0")
    run = verdict["spans"][0]["run_id"]
    told = json.loads(invoke("replay", f"{run}@12", "--out", "end.safetensors", "--from", "0", "--json"))
    assert (told["equals_checkpoint"], told["trained_from"]) == (True, 0)
    assert "no checkpoint there to compare with" in invoke("replay", f"{run[:12]}@7")
    assert (home / f"{run}@7.safetensors").exists()
    store = open_store(home / "seedbed-store")
    key = next(key for key in store.keys("packs/") if key.endswith("000000000012.safetensors"))
    store.local(key).write_bytes(store.get(key)[:-1])
    done = seedbed("verify", "--json", cwd=home)
    assert done.returncode == 1
    assert key in {finding["key"] for finding in json.loads(done.stdout)["findings"]}
    assert "findings" in seedbed("verify", "--spans", "0", cwd=home).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["replay", "r1-0"], 2, "RUN@STEP"),
        (["replay", "r9-0@3"], 1, "is no run of this store"),
        (["replay", "r1-@3"], 2, "begins the ids of 6 runs"),
        (["verify", "nothing"], 1, "is no study of this store"),
        (["verify", "--span", "r1-0@9"], 2, "RUN@START-END"),
    ],
)
def test_bad_questions_about_runs(home: Path, arguments: list[str], code: int, told: str) -> None:
    invoke("run", "tiny.yaml", "--cluster", "inline", "--json")
    done = seedbed(*arguments, cwd=home)
    assert (done.returncode, told in done.stderr) == (code, True), done.stderr
