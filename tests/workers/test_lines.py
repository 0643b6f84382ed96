"""Runs between two others: the ends are the parents, bit for bit; what lies between is made of both."""

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text

from jobs.errors import QueryError, StudyError
from jobs.seeds import Streams
from jobs.store import Store, open_store
from jobs.study_file import parse_study, read_study
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.machine import Machine
from orchestrator.plan import plan
from orchestrator.plots.kinds import KINDS
from orchestrator.questions.on_lines import Lines
from orchestrator.questions.registry import ask
from orchestrator.verify import verify
from tests.bitwise.drives import one_command
from tests.workers.test_forks import PARENTS
from workers.replay import between, plain_module, replay
from workers.similarity import linear_cka
from workers.stored import StoredRun, load_task, stored_run

ENDS = PARENTS.replace("study: parents", "study: ends").replace("steps: 6", "steps: 9")
FORKED = "fork: {study: parents.yaml, steps: [3], redraw: [data]}\n"
LINES = (
    ENDS.replace("study: ends", "study: lines")
    .replace("count: 2", "count: 1")
    .replace("execution: {pack_width: 2}", "execution: {pack_width: 3}")
)
ALL = "fork: {study: ends.yaml, steps: [last], moments: zero, line: {pairs: all, points: 3}}\n"
SIBLINGS = ALL.replace("pairs: all", "pairs: siblings")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parents, two children of each, the lines between all four and between siblings."""
    folder = tmp_path_factory.mktemp("lines")
    (folder / "parents.yaml").write_text(PARENTS)
    (folder / "ends.yaml").write_text(ENDS + FORKED)
    for text in (PARENTS, ENDS + FORKED, LINES + ALL, LINES.replace("study: lines", "study: siblings") + SIBLINGS):
        one_command(folder / "store", text)
    return folder


@pytest.fixture(scope="module")
def library(home: Path) -> Library:
    return Library(open_store(home / "store"))


def losses(library: Library, study: str) -> dict[str, dict[str, float]]:
    rows = [row for row in library.tables(study)["metrics"].to_pylist() if row["step"] == 9]
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["metric"].startswith("heldout"):
            found.setdefault(row["run_id"], {})[row["metric"]] = row["value"]
    return found


def test_a_line_has_its_ends_and_what_lies_between(library: Library) -> None:
    ends, points = losses(library, "ends"), losses(library, "lines")
    runs = library.declared("lines").runs
    pairs = list(combinations([run.id for run in library.declared("ends").runs], 2))
    assert len(pairs) == 6
    assert len(runs) == 3 * len(pairs)
    for run in runs:
        assert run.origin is not None
        assert run.origin.toward is not None
        one, other, fraction = run.origin.run_id, run.origin.toward.run_id, run.origin.toward.fraction
        assert (one, other) in pairs
        assert fraction == run.condition.factors["fork.fraction"]
        if fraction in (0, 1):
            assert points[run.id] == ends[other if fraction else one], "an end is the run itself, to the last bit"
    middle = [run.id for run in runs if run.condition.factors["fork.fraction"] == 0.5]
    assert all(points[run] not in ends.values() for run in middle)


def test_the_middle_is_the_mean_of_both_weights(library: Library) -> None:
    run = next(run for run in library.declared("lines").runs if run.condition.factors["fork.fraction"] == 0.5)
    assert run.origin is not None
    assert run.origin.toward is not None
    one, other = (replay(library.store, end, 9).weights for end in (run.origin.run_id, run.origin.toward.run_id))
    found = replay(library.store, run.id, 9)
    for name, weights in found.weights.items():
        assert torch.equal(weights, ((one[name].double() + other[name].double()) / 2).float()), name
    # The plain module with these weights has the loss that the pack has measured.
    stored = stored_run(library.store, run.id)
    task = load_task(library.store, stored.condition.task)
    module = plain_module(found, task)
    batch = task.held_out(Streams(run.seeds))["heldout"]
    with torch.no_grad():
        logits = module(torch.from_numpy(batch.inputs))
        loss = torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]), torch.from_numpy(batch.targets).reshape(-1), ignore_index=-100
        )
    assert float(loss) == pytest.approx(losses(library, "lines")[run.id]["heldout.loss"], rel=1e-5)


def test_points_cost_no_checkpoint_and_are_verified(library: Library) -> None:
    for study in ("lines", "siblings"):
        assert library.tables(study)["checkpoints"].num_rows == 0
        assert verify(library.store, read_declared(library.store, study), spans=3).findings == []
        runs = library.tables(study)["runs"].to_pylist()
        assert {row["status"] for row in runs} == {"finished"}
        assert all(row["toward_run"] and row["parent_run"] != row["toward_run"] for row in runs)


def test_a_plan_counts_what_is_saved(home: Path, library: Library) -> None:
    machine = Machine(2, 2, "cpu")
    for name, text in (("ends", ENDS + FORKED), ("lines", LINES + ALL)):
        made = plan(parse_study(text, f"{name}.yaml", home), None, machine)
        assert made.total("runs") == len(library.declared(name).runs)
        assert made.total("checkpoints") == library.tables(name)["checkpoints"].num_rows


def test_the_same_command_again_makes_nothing_new(home: Path, library: Library) -> None:
    before = [key for key in library.store.keys("") if key.startswith(("packs/", "attempts/"))]
    one_command(home / "store", LINES + ALL)
    assert [key for key in library.store.keys("") if key.startswith(("packs/", "attempts/"))] == before


def test_siblings_share_the_run_that_they_were_forked_from(library: Library) -> None:
    origins = {run.id: run.origin.run_id for run in library.declared("ends").runs if run.origin}
    pairs = {
        (run.origin.run_id, run.origin.toward.run_id)
        for run in library.declared("siblings").runs
        if run.origin and run.origin.toward
    }
    assert len(pairs) == 2
    assert all(origins[one] == origins[other] for one, other in pairs)


def test_the_question_puts_the_points_of_a_pair_together(library: Library) -> None:
    declared, tables = library.declared("lines"), library.tables("lines")
    found = ask("lines", declared, tables).conditions
    assert list(found) == ["fork.step=9"]
    lines: Lines = found["fork.step=9"]
    assert lines.height == "1 - heldout.accuracy"
    assert lines.losses.shape == (6, 3)
    points = losses(library, "lines")
    for run in declared.runs:
        assert run.origin is not None
        assert run.origin.toward is not None
        ends = [lines.run_ids.index(run.origin.run_id), lines.run_ids.index(run.origin.toward.run_id)]
        pair = lines.ends.tolist().index(ends)
        point = lines.fractions.tolist().index(run.origin.toward.fraction)
        assert lines.losses[pair, point] == pytest.approx(1 - points[run.id]["heldout.accuracy"], abs=0)
    assert lines.barrier.value == pytest.approx(float(np.mean(lines.found.barriers)))
    assert lines.barrier.unit == "parent run", "four ends are forks of two runs: those are the replicates"
    assert lines.clusters is not None
    siblings: Lines = ask("lines", library.declared("siblings"), library.tables("siblings")).conditions["fork.step=9"]
    assert siblings.clusters is None, "not all pairs were measured"
    shared = {tuple(sorted((siblings.run_ids[a], siblings.run_ids[b]))) for a, b in siblings.ends.tolist()}
    both = [pair for pair in lines.ends.tolist() if tuple(sorted(lines.run_ids[end] for end in pair)) in shared]
    again = [lines.losses[lines.ends.tolist().index(pair)].tolist() for pair in both]
    assert sorted(again) == sorted(siblings.losses.tolist()), "a pair is the same in both studies"


def test_the_figure_says_pairs_and_units(library: Library) -> None:
    figure = KINDS["lines"].draw(library.question("lines"))
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "6 pairs" in said
    assert "jackknife over parent runs" in said
    assert "1 - heldout.accuracy" in said


def test_a_study_without_lines_is_told_what_it_needs(library: Library) -> None:
    with pytest.raises(QueryError, match=r"fork: \{line"):
        ask("lines", library.declared("ends"), library.tables("ends"))


def test_who_goes_on_from_a_point_descends_from_both_ends(home: Path, library: Library) -> None:
    longer = LINES.replace("study: lines", "study: onward").replace("steps: 9", "steps: 11")
    one_command(home / "store", longer + SIBLINGS)
    rows = library.tables("onward")["checkpoints"].to_pylist()
    assert {row["step"] for row in rows} == {11}
    assert verify(library.store, read_declared(library.store, "onward"), spans=3).findings == []


def test_halfway_keeps_its_ends() -> None:
    one, other = torch.tensor([1.0, -0.0, 3e-45]), torch.tensor([2.0, 1.0, 1e38])
    assert torch.equal(between(one, other, 0.0), one)
    assert torch.equal(between(one, other, 1.0), other)
    assert between(one, other, 0.25)[0] == 1.25


FAULTY = [
    (ALL.replace("moments: zero, ", ""), "write `moments: zero`"),
    (ALL.replace("moments", "redraw: [data], moments"), "with nothing redrawn"),
    (ALL.replace("points: 3", "points: 2"), "points"),
    (ALL.replace("all", "some"), "pairs"),
    (ALL.replace("points: 3", "points: 3, first: 1"), "first"),
    (ALL.replace("[last]", "[12]"), "12 is no step to fork at"),
    (SIBLINGS.replace("ends.yaml", "alone.yaml"), "no two of its runs are siblings"),
]


@pytest.mark.parametrize(("fork", "told"), FAULTY)
def test_a_faulty_line_is_told(tmp_path: Path, fork: str, told: str) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "ends.yaml").write_text(ENDS + FORKED)
    (tmp_path / "alone.yaml").write_text(ENDS.replace("study: ends", "study: alone"))
    (tmp_path / "lines.yaml").write_text(LINES + fork)
    with pytest.raises(StudyError, match=told):
        read_study(tmp_path / "lines.yaml")


def test_ids_of_forks_do_not_know_of_lines(tmp_path: Path) -> None:
    """What was forked before there were lines has the id that it had."""
    (tmp_path / "parents.yaml").write_text(PARENTS)
    made = parse_study(ENDS + FORKED, "ends.yaml", tmp_path)
    assert all("toward" not in run.spec["origin"] for run in made.runs)
    assert [run.id for run in made.runs] == IDS


IDS = ["r1-93cdf93ef90610cae9f1", "r1-4357329b83d757c1ad5f", "r1-554607753e96d21aae02", "r1-6301c18ab5dd599fb162"]


SIMILAR = LINES.replace("study: lines", "study: similar").replace("probes:", "measure: [similarity]\nprobes:")


def test_layers_are_compared_with_those_of_the_other_end(home: Path, library: Library) -> None:
    one_command(home / "store", SIMILAR + ALL)
    values = library.tables("similar")["metrics"].to_pylist()
    by_run: dict[str, dict[str, float]] = {}
    for row in values:
        by_run.setdefault(row["run_id"], {})[row["metric"]] = row["value"]
    for run in library.declared("similar").runs:
        assert run.origin is not None
        assert run.origin.toward is not None
        found = {name: value for name, value in by_run[run.id].items() if "cka" in name or "svcca" in name}
        assert sorted(found) == [f"heldout.{what}.{layer}" for what in ("cka", "svcca") for layer in (0, 1)]
        if run.origin.toward.fraction == 1:
            assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=1e-9), "it is the other end"
        else:
            assert all(0 <= value < 1 for value in found.values())
    # By hand, from what both ends are: the plain modules' blocks give what the pack has compared.
    run = next(run for run in library.declared("similar").runs if run.condition.factors["fork.fraction"] == 0)
    assert run.origin is not None
    assert run.origin.toward is not None
    stored = stored_run(library.store, run.id)
    task = load_task(library.store, stored.condition.task)
    inputs = torch.from_numpy(task.held_out(Streams(run.seeds))["heldout"].inputs)
    layers = []
    for end in (run.origin.run_id, run.origin.toward.run_id):
        module, seen = plain_module(replay(library.store, end, 9), task), []
        hook = module.blocks[-1].register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        with torch.no_grad():
            module(inputs)
        hook.remove()
        layers.append(seen[0][:, task.first_answer :].reshape(-1, seen[0].shape[-1]))
    assert linear_cka(*layers) == pytest.approx(by_run[run.id]["heldout.cka.1"], abs=1e-4)
    assert verify(library.store, read_declared(library.store, "similar"), spans=2).findings == []


def test_a_pack_replays_each_parent_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each point of a line has two parents, and is compared with one of them once more."""
    asked: list[str] = []

    def counted(store: Store, run_id: str) -> StoredRun:
        asked.append(run_id)
        return stored_run(store, run_id)

    monkeypatch.setattr("workers.replay.stored_run", counted)
    for folder in ("parents.yaml", "ends.yaml"):
        (tmp_path / folder).write_bytes((home / folder).read_bytes())
    shutil.copytree(home / "store", tmp_path / "store")
    text = SIMILAR.replace("study: similar", "study: once").replace("pack_width: 3", "pack_width: 6")
    tables = one_command(tmp_path / "store", text.replace("probes:", "engine: {name: accelerate}\nprobes:") + ALL)
    ends = {run["parent_run"] for run in tables["runs"].to_pylist()} | set(tables["runs"]["toward_run"].to_pylist())
    assert tables["runs"].num_rows == 18
    assert sorted(asked) == sorted([*ends] * 3), "four ends, for the pack of each of three points"


def test_similarity_needs_a_line(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"give fork\.line"):
        parse_study(SIMILAR, "s.yaml", tmp_path)
