"""A script as a pack: what it reports is kept, how it ends is told, and no process of it is left behind."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import workers.pack
from jobs.claims import attempts_of, claim
from jobs.errors import ScriptLost, StudyInterrupted, Superseded
from jobs.layout import PackKeys, file_key
from jobs.pack import RunOutcome
from jobs.records import Status
from jobs.store import LocalStore, read_manifest
from jobs.study import Run
from jobs.study_file import parse_study
from orchestrator.policy import Blame, blame
from tests.workers.conftest import Pack
from workers.checkpoint import checkpoints_of
from workers.checkpoint_files import lay_out, restore, state_of
from workers.pack import run_pack
from workers.scripted import follow

STUDY = """\
study: mine
engine: {command: python train.py}
training: {steps: 6, batch_size: 1}
probes: {every: 2}
checkpoints: {milestones: [4]}
seeds: {design: paired, count: 1, first: 7}
"""
WELL = """\
import sys, seedbed
run = seedbed.given()
for step in range(run.resume_step + 1, run.steps + 1):
    seedbed.log(step, {"loss": run.seeds.init / step, "heldout.accuracy": (step, 6)})
    if run.saves_at(step):
        (seedbed.checkpoint_folder(step) / "state").write_text(str(step))
        seedbed.checkpoint(step)
"""
FOREVER = """\
import os, time, seedbed
seedbed.log(1, loss=0.5)
open(os.environ["SEEDBED_TEST_MARK"], "w").write(str(os.getpid()))
while True:
    time.sleep(0.01)
"""
Make = Callable[[str], str]


@pytest.fixture
def run(store: LocalStore, tmp_path: Path) -> Callable[[str], Run]:
    """Return a function that puts a script into the store and gives a run of it."""

    def make(text: str) -> Run:
        (tmp_path / "train.py").write_text(text)
        study = parse_study(STUDY, "mine.yaml", tmp_path)
        engine = study.points[0].spec["engine"]
        if not store.exists(file_key(engine["files"]["train.py"])):
            store.put(file_key(engine["files"]["train.py"]), text.encode())
        return study.runs[0]

    return make


@pytest.fixture
def packed(run: Callable[[str], Run], pack: Pack) -> Make:
    """Return a function that asks for a pack of a script, and gives its id."""
    return lambda text: pack.request([run(text)], rolling_every=2)


def ended(store: LocalStore, pack_id: str) -> RunOutcome:
    (outcome,) = run_pack(store.url, pack_id).runs
    return outcome


def log_of(store: LocalStore, pack_id: str) -> str:
    return store.get(PackKeys(pack_id).log).decode()


def test_rows_checkpoints_and_the_end_of_a_script(store: LocalStore, pack: Pack, packed: Make) -> None:
    pack_id = packed(WELL + "print('all is well')\n")
    outcome = ended(store, pack_id)
    assert (outcome.status, outcome.step, outcome.reason) == (Status.FINISHED, 6, "")
    rows = pack.rows(pack_id).to_pylist()
    assert [(r["step"], r["value"]) for r in rows if r["metric"] == "loss"] == [(s, 7 / s) for s in range(1, 7)]
    assert [(r["correct"], r["total"]) for r in rows if r["metric"] == "heldout.accuracy"][2] == (3, 6)
    assert pack.steps(pack_id) == [4, 6], "milestones stay, the rolling one at 2 goes"
    assert "script: all is well" in log_of(store, pack_id)


@pytest.mark.parametrize(
    ("text", "status", "step", "expected"),
    [
        (
            "print('nothing')",
            Status.FAILED,
            0,
            "script: ended without having reported a step, and the study declares 6",
        ),
        ("import seedbed; seedbed.log(4, a=1)", Status.FAILED, 4, "script: ended at step 4, and the study declares 6"),
        (
            "import nothing_like_this",
            Status.FAILED,
            0,
            "script: ended with code 1: ModuleNotFoundError: No module named",
        ),
        ("import sys; sys.exit('no data')", Status.FAILED, 0, "script: ended with code 1: no data"),
        (
            "import seedbed; seedbed.log(3, a=1); seedbed.log(2, a=1)",
            Status.FAILED,
            3,
            "script: line 2 of its report: step is 2 after 3: steps never go back",
        ),
        (
            "import os; open(os.environ['SEEDBED_REPORT'], 'w').write('loss: 3\\n')",
            Status.FAILED,
            0,
            "script: line 1 of its report: is no JSON: 'loss: 3'",
        ),
        ("import seedbed; seedbed.checkpoint(2)", Status.FAILED, 2, "is said to be whole, and 2/ holds no file"),
        ("import seedbed; seedbed.log(5, loss=float('nan'))", Status.DIVERGED, 5, "loss stopped being finite"),
        ("import seedbed; seedbed.diverged(2, 'too large')", Status.DIVERGED, 2, "too large"),
    ],
    ids=["nothing", "early", "import", "exit", "back", "garbage", "empty", "nan", "diverged"],
)
def test_a_script_that_is_wrong_ends_its_run_and_says_why(
    store: LocalStore, packed: Make, text: str, status: Status, step: int, expected: str
) -> None:
    outcome = ended(store, packed(text))
    assert (outcome.status, outcome.step) == (status, step)
    assert expected in outcome.reason


def test_a_program_that_is_not_there(store: LocalStore, pack: Pack, tmp_path: Path) -> None:
    study = parse_study(STUDY.replace("python train.py", "no-such-program"), "mine.yaml", tmp_path)
    outcome = ended(store, pack.request([study.runs[0]]))
    assert outcome.status is Status.FAILED
    assert "no-such-program cannot be started: [Errno 2]" in outcome.reason


@pytest.mark.parametrize("ending", ["sys.exit(3)", "os.kill(os.getpid(), 9)"])
def test_a_script_that_dies_after_it_had_begun_is_a_crash(store: LocalStore, packed: Make, ending: str) -> None:
    pack_id = packed(f"import os, sys, seedbed; seedbed.log(1, a=1); print('alas'); {ending}")
    told = "with code 3: alas" if "exit" in ending else "by signal 9: alas"
    with pytest.raises(ScriptLost, match=f"script: ended {told}") as raised:
        run_pack(store.url, pack_id)
    assert blame(raised.value, 1) is Blame.CRASH
    assert "script: alas" in log_of(store, pack_id)


def test_half_a_checkpoint_is_never_taken_up(store: LocalStore, pack: Pack, run: Callable[[str], Run]) -> None:
    """The first attempt dies while it writes the files of step 4; the second goes on from step 2."""
    dies = "    if step == 4 and run.attempt == 1:\n"
    dies += "        (seedbed.checkpoint_folder(4) / 'state').write_text('ha'); sys.exit(1)\n"
    head, body = WELL.split("    if run.saves_at(step):\n")
    mine = run(head + dies + "    if run.saves_at(step):\n" + body)
    first, second = (pack.request([mine], rolling_every=2) for _ in range(2))
    with pytest.raises(ScriptLost):
        run_pack(store.url, first)
    assert pack.steps(first) == [2]
    assert ended(store, second).status is Status.FINISHED
    attempts = attempts_of(store, mine.id)
    assert [attempt.resumed_step for attempt in attempts] == [-1, 2]
    assert set(pack.rows(second)["step"].to_pylist()) == {3, 4, 5, 6}
    parents = read_manifest(store, PackKeys(second).checkpoint(4)).extra["runs"][0]["parents"]
    assert [(link["step"], link["run_id"]) for link in parents] == [(2, mine.id)]


def test_a_script_that_does_not_take_its_checkpoint_up_is_told(
    store: LocalStore, pack: Pack, run: Callable[[str], Run]
) -> None:
    mine = run(WELL.replace("run.resume_step + 1", "1") + "    if step == 5 and run.attempt == 1: sys.exit(1)\n")
    first, second = (pack.request([mine], rolling_every=2) for _ in range(2))
    with pytest.raises(ScriptLost):
        run_pack(store.url, first)
    outcome = ended(store, second)
    assert outcome.status is Status.FAILED
    assert "step is 1, but the run goes on from its checkpoint at 4" in outcome.reason


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Return whether a process ends within that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def pid_in(mark: Path, seconds: float = 30.0) -> int:
    """Return the process that a script has named, once it has."""
    end = time.monotonic() + seconds
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return int(mark.read_text())


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDBED_TEST_MARK", str(tmp_path / "mark"))
    return tmp_path / "mark"


def stopped(store: LocalStore, pack_id: str, mark: Path) -> int:
    """Stop a pack once its script runs; returns the script's process."""
    stop, caught = threading.Event(), []

    def carry_out() -> None:
        try:
            run_pack(store.url, pack_id, stop)
        except StudyInterrupted as error:
            caught.append(error)

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    pid = pid_in(mark)
    stop.set()
    thread.join(20)
    assert len(caught) == 1
    return pid


def test_a_script_that_hears_of_the_end_saves_first(store: LocalStore, pack: Pack, packed: Make, mark: Path) -> None:
    saves = "seedbed.stopping()\n" + FOREVER.replace("    time.sleep(0.01)", "    if seedbed.stopping(): break")
    saves += "(seedbed.checkpoint_folder(1) / 'state').write_text('1')\nseedbed.checkpoint(1)\n"
    pack_id = packed("import seedbed\n" + saves)
    assert gone(stopped(store, pack_id, mark))
    assert pack.steps(pack_id) == [1]


def test_a_script_that_does_not_leave_is_ended(
    store: LocalStore, packed: Make, mark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.pack, "follow", partial(follow, grace_s=0.2))
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    assert gone(stopped(store, packed(deaf + FOREVER), mark))


def test_what_a_superseded_script_still_says_does_not_count(
    store: LocalStore, pack: Pack, run: Callable[[str], Run], mark: Path
) -> None:
    late = FOREVER.replace("while True:\n    time.sleep(0.01)", "while not os.path.exists('go'): time.sleep(0.01)")
    late = late.replace("'go'", "os.environ['SEEDBED_TEST_MARK'] + '.go'")
    late += "seedbed.log(2, loss=99.0)\n(seedbed.checkpoint_folder(2) / 's').write_text('2')\nseedbed.checkpoint(2)\n"
    mine = run(late + "while True: time.sleep(0.01)\n")
    pack_id = pack.request([mine])
    failed: list[BaseException] = []

    def carry_out() -> None:
        try:
            run_pack(store.url, pack_id)
        except Superseded as error:
            failed.append(error)

    thread = threading.Thread(target=carry_out, daemon=True)
    thread.start()
    pid = pid_in(mark)
    claim(store, mine.id, "other.0001", (-1, ""), mine.spec, after=1)
    Path(f"{mark}.go").touch()
    thread.join(20)
    assert len(failed) == 1
    assert gone(pid)
    assert pack.steps(pack_id) == []
    assert not checkpoints_of(store, attempts_of(store, mine.id))


def test_files_of_any_size_and_place_come_back_as_they_were(
    store: LocalStore, pack: Pack, run: Callable[[str], Run], tmp_path: Path
) -> None:
    write = "    folder = seedbed.checkpoint_folder(step); (folder / 'a/b').mkdir(parents=True)\n"
    write += "        (folder / 'a/b/empty').touch(); (folder / 'é.bin').write_bytes(bytes(range(256)) * 300)\n"
    mine = run(WELL.replace("    (seedbed.checkpoint_folder(step)", write + "        (folder"))
    ended(store, pack.request([mine]))
    found = checkpoints_of(store, attempts_of(store, mine.id))
    lay_out(store, found[4], tmp_path / "out")
    assert list(state_of(tmp_path / "out")) == ["file.a/b/empty", "file.state", "file.é.bin"]
    assert (tmp_path / "out" / "é.bin").read_bytes() == bytes(range(256)) * 300
    newest = store.local(found[6].manifest.key)
    with newest.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\0")
    (saved,) = restore(store, attempts_of(store, mine.id), tmp_path / "again")
    assert saved.step == 4, "one that cannot be read is left out"
    assert (tmp_path / "again" / "state").read_text() == "4"


PROVES = """\
import os, seedbed
run = seedbed.given()
seedbed.prove(INIT)
seedbed.log(1, loss=1.0)
if run.attempt == 1 and run.seeds.init == 7:
    os._exit(3)
seedbed.log(6, loss=1.0)
"""


@pytest.mark.parametrize(
    ("init", "expected"),
    [
        ("init=[0.5, run.seeds.init]", ["", ""]),
        ("init=[0.5]", ["", "init seed 8 made the same as seed 7 of run"]),
        ("evaluation=run.seeds.init", ["", "evaluation seed 0 made something else in run"]),
    ],
)
def test_what_seeds_made_is_compared_over_runs(
    store: LocalStore, pack: Pack, tmp_path: Path, run: Callable[[str], Run], init: str, expected: list[str]
) -> None:
    """The first run is cut off, and says the same again in its second attempt."""
    run(PROVES.replace("INIT", init))
    two = parse_study(STUDY.replace("count: 1", "count: 2"), "mine.yaml", tmp_path).runs
    with pytest.raises(ScriptLost):
        run_pack(store.url, pack.request([two[0]]))
    ends = [ended(store, pack.request([one])) for one in two]
    assert [end.status for end in ends] == [Status.FAILED if told else Status.FINISHED for told in expected]
    assert all(told in end.reason for told, end in zip(expected, ends, strict=True))
    assert (two[0].id in ends[1].reason) == bool(expected[1])
