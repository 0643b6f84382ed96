"""Runs that begin where others were: the past is shared by reference, and nothing of it is trained or kept twice."""

from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.errors import StudyError
from jobs.seeds import Streams
from jobs.store import LocalStore, open_store
from jobs.study_file import parse_study, read_study
from orchestrator.declared import read_declared
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command
from workers.replay import engine_of, is_redrawn, replay
from workers.stored import load_task, stored_run

PARENTS = """\
study: parents
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 6, batch_size: 8}
probes: {every: 3}
checkpoints: {milestones: [3], rolling: {every: 2}}
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""
LONGER = PARENTS.replace("study: parents", "study: children").replace("steps: 6", "steps: 9")


def children(folder: Path, fork: str, text: str = LONGER) -> Library:
    """Train the parents, then their children; returns the library of the store that both are in."""
    (folder / "parents.yaml").write_text(PARENTS)
    one_command(folder / "store", PARENTS)
    one_command(folder / "store", f"{text}fork: {fork}\n")
    return Library(open_store(folder / "store"))


def digest(store: LocalStore, run_id: str, step: int) -> str:
    return replay(store, run_id, step).sha256


def metrics(library: Library, study: str, run_id: str) -> dict[tuple[int, str], float]:
    rows = library.tables(study)["metrics"].to_pylist()
    return {(r["step"], r["metric"]): r["value"] for r in rows if r["run_id"] == run_id}


def test_children_with_other_data_share_their_past_by_reference(tmp_path: Path) -> None:
    library = children(tmp_path, "{study: parents.yaml, steps: [3], redraw: [data]}")
    store = library.store
    parents = library.declared("parents").runs
    runs = library.declared("children").runs
    assert [(r.origin.run_id, r.seeds.init, r.seeds.data) for r in runs if r.origin] == [
        (parent.id, parent.seeds.init, data) for parent in parents for data in (0, 1)
    ]
    checkpoints = library.tables("children")["checkpoints"].to_pylist()
    assert {row["step"] for row in checkpoints} == {9}, "step 3 is the parent's file, and no copy of it"
    for run in runs:
        origin = run.origin
        assert origin is not None
        assert digest(store, run.id, 3) == digest(store, origin.run_id, 3)
        assert min(step for step, _ in metrics(library, "children", run.id)) == 3
        mine, theirs = metrics(library, "children", run.id), metrics(library, "parents", origin.run_id)
        assert mine[3, "heldout.loss"] == theirs[3, "heldout.loss"]
        # A child with its parent's own data seed is its parent, byte for byte; with another it is not.
        same_data = run.seeds.data == next(p.seeds.data for p in parents if p.id == origin.run_id)
        assert (digest(store, run.id, 6) == digest(store, origin.run_id, 6)) == same_data
    assert verify(store, read_declared(store, "children"), spans=4).findings == []


def test_a_continuation_ends_where_a_longer_run_would_have(tmp_path: Path) -> None:
    library = children(tmp_path, "{study: parents.yaml, steps: [last]}", LONGER.replace("count: 2", "count: 1"))
    one_command(tmp_path / "store", LONGER.replace("study: children", "study: long"))
    long = library.declared("long").runs
    for run, whole in zip(library.declared("children").runs, long, strict=True):
        assert run.id != whole.id
        assert digest(library.store, run.id, 9) == digest(library.store, whole.id, 9)
        assert replay(library.store, run.id, 2).run.run_id != run.id, "a step before the fork is the parent's"


def test_named_modules_are_drawn_anew_and_the_rest_is_kept(tmp_path: Path) -> None:
    fork = "{study: parents.yaml, steps: [6], redraw: [init], reinitialise: [blocks.1], moments: zero}"
    library = children(tmp_path, fork, LONGER.replace("count: 2", "count: 3"))
    store = library.store
    runs = library.declared("children").runs
    assert len(runs) == 6
    for run in runs:
        assert run.origin is not None
        before, after = replay(store, run.origin.run_id, 6).state, replay(store, run.id, 6).state
        stored = stored_run(store, run.id)
        task = load_task(store, stored.condition.task)
        fresh = engine_of(stored.condition, task, [Streams(run.seeds)]).state()
        redrawn = {name for name in before if is_redrawn(name.partition(".")[2], run.origin)}
        assert redrawn
        for name in before:
            if name.startswith("model."):
                expected = fresh if is_redrawn(name.removeprefix("model."), run.origin) else before
                assert torch.equal(after[name], expected[name]), name
            elif name.startswith("adamw."):
                assert not after[name].any(), "moments: zero"
    assert len({digest(store, run.id, 9) for run in runs}) == 6
    assert verify(store, read_declared(store, "children"), spans=4).findings == []


def test_a_coefficient_may_change_from_a_step_on(tmp_path: Path) -> None:
    changed = LONGER.replace("batch_size: 8", "batch_size: 8, z_loss: {piecewise: [[0, 0.0], [7, 0.1]]}")
    library = children(tmp_path, "{study: parents.yaml, steps: [3]}", changed.replace("count: 2", "count: 1"))
    held = LONGER.replace("children", "held").replace("count: 2", "count: 1")
    one_command(tmp_path / "store", f"{held}fork: {{study: parents.yaml, steps: [3]}}\n")
    one, other = (library.declared(name).runs[0] for name in ("children", "held"))
    assert one.origin == other.origin
    equal = [digest(library.store, one.id, step) == digest(library.store, other.id, step) for step in (6, 7, 8, 9)]
    assert equal == [True, True, False, False], "update 7 is the first with the other weight"


@pytest.mark.parametrize("step", [4, 7])
def test_a_child_that_is_killed_ends_with_the_same_bytes(tmp_path: Path, step: int) -> None:
    text = f"{LONGER}fork: {{study: parents.yaml, steps: [3], redraw: [data]}}\n"
    ends = []
    for name in ("calm", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "parents.yaml").write_text(PARENTS)
        one_command(folder / "store", PARENTS)
        if name == "killed":
            with killed_at(step):
                tables = one_command(folder / "store", text.replace("pack_width: 2", "pack_width: 2, retries: 0"))
            assert set(tables["runs"]["status"].to_pylist()) == {"failed"}
        ends.append(final(one_command(folder / "store", text)))
    assert ends[0] == ends[1]
    assert issubclass(Killed, BaseException)


FAULTY: list[tuple[str, str]] = [
    ("{study: parents.yaml, steps: [9], redraw: [data]}", "9 is no step to fork at"),
    ("{study: parents.yaml, steps: [3, 3], redraw: [data]}", "or is there twice"),
    ("{study: parents.yaml, steps: [3], redraw: [init]}", "name some in reinitialise"),
    ("{study: parents.yaml, steps: [3], redraw: [data], reinitialise: [head]}", "put init into redraw"),
    ("{study: parents.yaml, steps: [3]}", "2 clones of every child"),
    ("{study: parent.yaml, steps: [3], redraw: [data]}", "no such file"),
    ("{study: children.yaml, steps: [3], redraw: [data]}", "is this study itself"),
    ("{study: parents.yaml, steps: [3], redraw: [date]}", "redraw"),
    ("{study: parents.yaml, steps: [], redraw: [data]}", "steps"),
]


@pytest.mark.parametrize(("fork", "told"), FAULTY)
def test_a_faulty_fork_is_told(tmp_path: Path, fork: str, told: str) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "children.yaml").write_text(f"{LONGER}fork: {fork}\n")
    with pytest.raises(StudyError, match=told):
        read_study(tmp_path / "children.yaml")


def test_parents_of_another_shape_are_none(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    text = LONGER.replace("width: 8", "width: 16") + "fork: {study: parents.yaml, steps: [3], redraw: [data]}\n"
    with pytest.raises(StudyError, match="no condition with the same task and model"):
        parse_study(text, "children.yaml", tmp_path)


def test_parents_that_were_never_started_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    store = open_store(tmp_path / "store", create=True)
    before: list[Any] = store.keys("")
    with pytest.raises(StudyError, match=r"2 parents were never started in this store.*seedbed run parents\.yaml"):
        one_command(tmp_path / "store", f"{LONGER}fork: {{study: parents.yaml, steps: [3], redraw: [data]}}\n")
    assert store.keys("") == before


OTHER = "{study: parents.yaml, steps: [6], redraw: [data], moments: zero, task: other}"


def test_children_of_another_task_begin_in_their_parents_weights_and_learn_their_own(tmp_path: Path) -> None:
    text = LONGER.replace("subset: 2", "subset: 3").replace("count: 2", "count: 3")
    library = children(tmp_path, OTHER, text)
    store, runs = library.store, library.declared("children").runs
    assert len(runs) == 2 * 3
    assert {row["status"] for row in library.tables("children")["runs"].to_pylist()} == {"finished"}
    for run in runs:
        assert run.origin is not None
        parent, child = (replay(store, one, 6) for one in (run.origin.run_id, run.id))
        assert child.run.condition.task.parameters["subset"] == 3
        assert all(torch.equal(parent.weights[name], value) for name, value in child.weights.items())
    own = metrics(library, "children", runs[0].id)
    theirs = metrics(library, "parents", runs[0].origin.run_id)  # type: ignore[union-attr]
    assert own[6, "heldout.loss"] != theirs[6, "heldout.loss"], "the same weights are asked something else"
    assert verify(store, library.declared("children"), spans=2).findings == []


@pytest.mark.parametrize(
    ("task", "positions", "told"),
    [
        ("bits: 7, subset: 2", "learned", "sequences of 8 tokens, and of the parents' 7: that needs positions"),
        ("bits: 7, subset: 2", "rotary", ""),
    ],
)
def test_tokens_and_places_of_another_task_have_to_be_the_parents(
    tmp_path: Path, task: str, positions: str, told: str
) -> None:
    parents, text = (one.replace("heads: 2}", f"heads: 2, positions: {positions}}}") for one in (PARENTS, LONGER))
    (tmp_path / "parents.yaml").write_text(parents)
    text = text.replace("bits: 6, subset: 2", task) + f"fork: {OTHER}\n"
    if not told:
        assert len(parse_study(text, "c.yaml", tmp_path).runs) == 4
        return
    with pytest.raises(StudyError, match=rf"c\.yaml:10: fork\.task: {told}"):
        parse_study(text, "c.yaml", tmp_path)


def test_other_tokens_and_lines_are_told(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    text = LONGER.replace("{name: parity, bits: 6, subset: 2, test_size: 16}", "{name: addition, digits: 2}")
    with pytest.raises(StudyError, match=r"tokens of both tasks have to be the same; there are 1\d and "):
        parse_study(text + f"fork: {OTHER}\n", "c.yaml", tmp_path)
    line = "{study: parents.yaml, steps: [last], moments: zero, task: other, line: {pairs: all, points: 3}}"
    with pytest.raises(StudyError, match="runs on a line are measured on the task of both their ends"):
        parse_study(f"{LONGER}fork: {line}\n", "c.yaml", tmp_path)
