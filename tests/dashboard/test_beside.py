"""The process beside the server: the same numbers as without it, made only where something changed, gone when idle."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import QueryError
from jobs.store import LocalStore
from orchestrator import power_plan
from orchestrator.collected import Collected, on_threads
from orchestrator.dashboard.beside import Beside, Carried
from orchestrator.dashboard.sandbox import Limits
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.summaries import MORE_SEEDS, Summaries, SummaryTask, Summed
from orchestrator.dashboard.tokens import load_tokens
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.summary import summarise
from tests.dashboard.conftest import Visitor
from tests.orchestrator.made import made

PAGES = (
    *(
        f"/study/tiny{chart}"
        for chart in ("", "/fan", "/scores", "/values", "/success", "/counts", "/onsets", "/cells")
    ),
    *("/runs", "/rows", "/compare", "/chosen"),
)
FILES = ("/study/tiny/lines.bin?condition=model.width=4&px=2", "/places.json?filter=score>0.4+width=4")


@pytest.fixture
def large(store: LocalStore, tmp_path: Path) -> Iterator[Visitor]:
    """Return a visitor of a server to which every file is large."""
    dashboard = Dashboard(store, Settings(limits=Limits(seconds=10.0)), load_tokens(tmp_path / "t.json"))
    dashboard.view.feed.beside.few_bytes = -1
    dashboard.view.feed.look()
    yield Visitor(dashboard)
    dashboard.view.feed.stop()
    dashboard.view.sandbox.close()


def test_all_is_the_same_whether_here_or_beside(reader: Visitor, large: Visitor) -> None:
    assert large.dashboard.view.feed.beside.process is not None
    assert reader.dashboard.view.feed.beside.process is None
    for path in PAGES:
        here, there = reader.get(f"{path}.json").json, large.get(f"{path}.json").json
        assert there | {"version": 0} == here | {"version": 0}, path
    assert reader.get(FILES[0]).body == large.get(FILES[0]).body
    assert reader.get(FILES[1]).json["places"] == large.get(FILES[1]).json["places"] == [0, 1, 2]
    text = "SELECT * FROM estimates ORDER BY ALL"
    answers = [each.get(f"/answer.csv?q={text.replace(' ', '+')}").body for each in (reader, large)]
    assert answers[0] == answers[1] != b""


def test_a_process_that_was_killed_is_an_error_and_the_next_one_works() -> None:
    beside = Beside(few_bytes=0)
    try:
        with pytest.raises(QueryError, match="was ended"):
            beside.call(1, os._exit, 9)
        assert beside.call(1, os.getpid) != os.getpid() == beside.call(0, os.getpid)
    finally:
        beside.close()


def test_an_idle_process_leaves() -> None:
    now = [0.0]
    beside = Beside(few_bytes=0, clock=lambda: now[0])
    try:
        first = beside.call(1, os.getpid)
        beside.rest()
        assert beside.process == first
        now[0] = 61.0
        beside.rest()
        assert beside.process is None
    finally:
        beside.close()


def test_no_process_outlives_a_server_that_was_killed() -> None:
    text = (
        "import os, time\nfrom orchestrator.dashboard.beside import Beside\n"
        "if __name__ == '__main__':\n"
        "    print(Beside(few_bytes=0).call(1, os.getpid), flush=True)\n"
        "    time.sleep(60)\n"
    )
    server = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert server.stdout is not None
    beside = int(server.stdout.readline())
    os.kill(beside, 0)
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    for _ in range(500):
        if not _is_alive(beside):
            return
        time.sleep(0.02)
    pytest.fail("it lives on")


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_only_what_changed_is_summed_up_again(store: LocalStore) -> None:
    tasks: list[SummaryTask] = []

    def noting(function: object, given: list[SummaryTask]) -> list[Summed]:
        tasks.extend(given)
        return list(on_threads(function, given))  # type: ignore[arg-type]

    declared, tables = read_declared(store, "tiny"), Library(store).tables("tiny")
    summaries = Summaries(noting)  # type: ignore[arg-type]
    summary, last, bought = summaries.of(declared, tables)
    assert summary.as_dict() == summarise(declared, tables).as_dict()
    assert list(bought) == power_plan.bought(summary, MORE_SEEDS)
    wanted = tables["metrics"].to_pylist()
    rows = [row for row in wanted if row["metric"] == declared.success.metric and row["step"] == 12]
    assert sorted(last.to_pylist(), key=str) == sorted(rows, key=str) != []
    assert len(tasks) == 2
    assert summaries.of(declared, tables)[0].as_dict() == summary.as_dict()
    assert len(tasks) == 2, "nothing is new"
    one = declared.conditions[0].id
    fewer = tuple(p for p in tables.parts if p.part.condition_id != one)
    summaries.of(declared, Collected(tables.small, fewer))
    assert [task.declared.conditions[0].id for task in tasks[2:]] == [one]
    summaries.of(replace(declared, success=declared.success.model_copy(update={"threshold": 0.9})), tables)
    assert len(tasks) == 5, "another rule is another summary"


def test_tables_that_are_no_files_are_carried_as_they_are() -> None:
    tables = made([0.5], seeds=4)[1]
    carried = Carried.of(tables)
    assert carried.size_bytes == 0
    assert carried.tables() == tables
