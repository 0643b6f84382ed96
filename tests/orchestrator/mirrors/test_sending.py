"""What a mirror is sent: every committed row once, whatever fails in between."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.errors import MirrorError
from jobs.store import open_store
from orchestrator.library import Library
from orchestrator.mirrors import MirroredRun
from orchestrator.mirrors.sending import send_news
from orchestrator.mirrors.sent import Sent, forget_sent, note_sent, read_sent
from tests.cli import invoke
from tests.orchestrator.conftest import STUDY

Cell = tuple[str, int, str, float]


@dataclass
class Notebook:
    """A tracker that keeps what it is sent; it refuses the run with the number `refuses`, at its end."""

    refuses: int = -1
    runs: list[MirroredRun] = field(default_factory=list)
    kept: list[Cell] = field(default_factory=list)
    ended: dict[str, str] = field(default_factory=dict)
    _now: list[Cell] = field(default_factory=list)

    def begin(self, run: MirroredRun) -> None:
        self.runs.append(run)
        self._now = []

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._now += [(self.runs[-1].id, step, metric, value) for metric, value in values.items()]

    def end(self, status: str) -> None:
        if len(self.runs) - 1 == self.refuses:
            raise MirrorError("out of paper")
        self.kept += self._now
        self.ended[self.runs[-1].id] = status

    def abandon(self) -> None:
        self._now = []

    def close(self) -> None:
        pass


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Return a store with the tiny study, trained."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--json", "--store", "store")
    return Library(open_store(tmp_path / "store"))


def send(library: Library, notebook: Notebook) -> int:
    return send_news(library, "tiny", "notebook", notebook, lambda *_: None)


def committed(library: Library) -> list[Cell]:
    table = Library(library.store).tables("tiny")["metrics"]
    columns = (table[name].to_pylist() for name in ("run_id", "step", "metric", "value"))
    return sorted(zip(*columns, strict=True))


def test_every_row_is_sent_once(library: Library) -> None:
    notebook = Notebook()
    assert send(library, notebook) == len(notebook.kept) > 0
    assert sorted(notebook.kept) == committed(library)
    assert set(notebook.ended.values()) == {"finished"}
    assert send(library, notebook) == 0
    assert len(notebook.runs) == 6


def test_a_run_is_told_by_its_condition_its_seeds_and_its_spec(library: Library) -> None:
    notebook = Notebook()
    send(library, notebook)
    told = {(run.condition, run.seeds["init"]): run for run in notebook.runs}
    one = told["model.width=8", 2]
    assert (one.name, one.first_step) == ("model.width=8 · seed 2", 0)
    assert one.config["model"]["width"] == 8
    assert one.config["seeds"] == {"init": 2, "data": 2, "dropout": 2, "evaluation": 0}


def test_after_a_failure_the_rest_is_sent_and_nothing_twice(library: Library) -> None:
    first, second = Notebook(refuses=2), Notebook()
    with pytest.raises(MirrorError):
        send(library, first)
    assert len(read_sent(library.store, "notebook", "tiny")) == 2
    send(library, second)
    assert sorted(first.kept + second.kept) == committed(library)


def test_only_what_is_new_is_sent(library: Library) -> None:
    notebook = Notebook()
    send(library, notebook)
    (library.store.local("format.json").parents[1] / "tiny.yaml").write_text(STUDY.replace("count: 3", "count: 4"))
    invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--json", "--store", "store")
    before = len(notebook.runs)
    send(Library(library.store), notebook)
    assert len(notebook.runs) == before + 2
    assert sorted(notebook.kept) == committed(library)


def test_a_run_that_went_on_is_sent_from_where_it_was(library: Library) -> None:
    notebook = Notebook()
    run = library.declared("tiny").runs[0].id
    note_sent(library.store, "notebook", "tiny", Sent(run, 4, "running"), None)
    send(library, notebook)
    mine = next(one for one in notebook.runs if one.id == run)
    assert mine.first_step == 5
    assert {step for run_id, step, _, _ in notebook.kept if run_id == run} == {8, 12}
    assert read_sent(library.store, "notebook", "tiny")[run] == Sent(run, 12, "finished")
    assert len(library.store.keys("mirrors/notebook/tiny/")) == 6


def test_a_new_status_alone_is_news(library: Library) -> None:
    notebook = Notebook()
    run = library.declared("tiny").runs[0].id
    note_sent(library.store, "notebook", "tiny", Sent(run, 12, "running"), None)
    send(library, notebook)
    assert notebook.ended[run] == "finished"
    assert run not in {cell[0] for cell in notebook.kept}


def test_two_mirrors_know_nothing_of_each_other_and_one_can_begin_anew(library: Library) -> None:
    send(library, Notebook())
    assert send_news(library, "tiny", "other", Notebook(), lambda *_: None) > 0
    assert forget_sent(library.store, "notebook", "tiny") == 6
    assert send(library, Notebook()) > 0
    assert len(read_sent(library.store, "other", "tiny")) == 6


def test_event_files_by_the_command_line(library: Library, tmp_path: Path) -> None:
    from orchestrator.imports.tensorboard import read_events

    told = json.loads(invoke("sync", "tensorboard", "tiny", "--store", "store", "--json"))
    assert (told["runs"], told["rows"]) == (6, len(committed(library)))
    assert json.loads(invoke("sync", "tensorboard", "tiny", "--store", "store", "--json"))["runs"] == 0
    table = read_events(Path(told["folder"]))
    found = zip(*(table[name].to_pylist() for name in ("run", "step", "metric", "value")), strict=True)
    assert sorted((run.rpartition("/")[2], *rest) for run, *rest in found) == committed(library)


def test_a_study_that_is_tracked_is_there_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY + "track: tensorboard\n")
    told = json.loads(invoke("run", "tiny.yaml", "--cluster", "inline", "--no-report", "--json", "--store", "store"))
    assert told["mirrors"]["tensorboard"]["error"] == ""
    assert told["mirrors"]["tensorboard"]["sent"] == 6
    assert len(list((tmp_path / "store.tensorboard" / "tiny").rglob("*tfevents*"))) == 6
