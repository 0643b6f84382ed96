"""Linear probes and their control task: labels that are there linearly, or not, or by heart; forks without steps."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import StudyError
from jobs.seeds import Seeds, Streams
from jobs.store import open_store
from jobs.study_file import parse_study, read_study
from jobs.tasks import IGNORE
from jobs.tasks.dependencies import Dependencies
from jobs.tasks.task import Batch, Mean, Score
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command
from workers.linear_probe import MOST_CLASSES, accuracy, fitted, places_of, probe_measures

STREAMS = Streams(Seeds(0, 0, 0, 0))
ITEMS = 240


def drawn(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learns(rows: int) -> np.ndarray:
    return np.arange(rows) % 2 == 0


def test_a_label_that_is_there_linearly_is_found_and_one_that_is_not_is_not() -> None:
    x = drawn(400, 4)
    linear = (x @ torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64) > 0.3).long().numpy()
    assert accuracy(x, linear, learns(400)) >= 195
    assert accuracy(x * 1e3 + 7, linear, learns(400)) >= 195, "scale and place of features do not matter"
    xor = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long().numpy()
    assert 70 <= accuracy(x, xor, learns(400)) <= 130, "known to a table of four cells, to no plane"
    assert accuracy(torch.cat([x, x[:, :1] * x[:, 1:2]], dim=1), xor, learns(400)) >= 185, "with the product it is"


def test_three_classes_and_a_constant_feature() -> None:
    classes = np.arange(300) % 3
    x = torch.cat([torch.eye(3, dtype=torch.float64)[classes] + 0.1 * drawn(300, 3), torch.ones(300, 1)], dim=1)
    assert accuracy(x, classes, learns(300)) == 150


def test_the_fit_is_the_optimum_of_its_penalised_loss() -> None:
    x, y = drawn(60, 3), torch.arange(60) % 2
    weights, bias = fitted(x, y, 2)
    error = torch.softmax(x @ weights + bias, 1) - torch.eye(2, dtype=torch.float64)[y]
    assert (x.T @ error / 60 + 1e-3 * weights).abs().max() < 1e-5
    assert error.mean(0).abs().max() < 1e-5


def sentences(width: int = 12) -> tuple[Batch, torch.Tensor]:
    """Return sentences of 40 tokens in pairs of classes; a layer in which the class stands in one direction."""
    rng = np.random.default_rng(1)
    inputs = rng.integers(0, 40, size=(ITEMS, 6))
    classes = inputs % 2
    layer = 0.2 * drawn(ITEMS * 6, width)
    layer[:, 0] += torch.from_numpy(2.0 * classes.reshape(-1) - 1)
    return Batch(inputs, classes), layer


def by_metric(found: list[Score | Mean]) -> dict[str, float]:
    return {one.metric: one.correct / one.total if isinstance(one, Score) else one.value for one in found}


def test_what_a_layer_encodes_is_selective_and_what_it_only_holds_apart_is_learnt_by_heart() -> None:
    batch, layer = sentences()
    names = torch.eye(40, dtype=torch.float64)[torch.from_numpy(batch.inputs.reshape(-1))]  # each token by itself
    found = by_metric(probe_measures("s", batch, {"target": batch.targets}, [layer, names], STREAMS))
    assert found["s.probe.target.0"] > 0.97
    assert found["s.control.target.0"] < 0.65, "a direction for the class says nothing of labels drawn for tokens"
    assert found["s.selectivity.target.0"] == pytest.approx(found["s.probe.target.0"] - found["s.control.target.0"])
    assert found["s.probe.target.1"] == 1.0
    assert found["s.control.target.1"] == 1.0, "one direction a token learns any label by heart"
    assert found["s.selectivity.target.1"] == 0.0
    assert 0.4 < found["s.majority.target"] < 0.6


def test_control_labels_are_one_for_each_token_with_the_labels_frequencies() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 500, size=(200, 10))
    labels = np.where(rng.random((200, 10)) < 0.2, 1, 0)
    places = places_of(inputs, labels, np.random.default_rng(3))
    seen: dict[int, set[int]] = {}
    for token, control in zip(inputs[places.items, places.at].tolist(), places.control.tolist(), strict=True):
        seen.setdefault(token, set()).add(control)
    assert all(len(one) == 1 for one in seen.values())
    assert 0.14 < np.mean([next(iter(one)) for one in seen.values()]) < 0.26
    again = places_of(inputs, labels, np.random.default_rng(3))
    assert np.array_equal(places.control, again.control)


def test_before_a_separator_a_type_is_all_that_stands_up_to_it() -> None:
    inputs = np.array([[0, 1, 9], [0, 1, 9], [1, 1, 9], [1, 0, 9]] * 10)
    labels = np.full_like(inputs, IGNORE)
    labels[:, -1] = inputs[:, 0]
    places = places_of(inputs, labels, np.random.default_rng(0))
    assert (places.at == 2).all()
    of = places.control.reshape(10, 4)
    assert (of == of[0]).all()
    assert of[0, 0] == of[0, 1]


def test_a_layer_may_have_the_last_positions_alone_and_labels_elsewhere_do_not_count() -> None:
    batch, layer = sentences()
    last = layer.view(ITEMS, 6, -1)[:, 4:].reshape(ITEMS * 2, -1)
    early = np.where(np.arange(6) < 4, batch.targets, IGNORE)
    found = probe_measures("s", batch, {"early": early, "target": batch.targets}, [layer, last], STREAMS)
    asked = {one.metric: one.total for one in found if isinstance(one, Score)}
    assert asked["s.probe.target.0"] == ITEMS * 3
    assert asked["s.probe.target.1"] == ITEMS
    assert by_metric(found)["s.probe.target.1"] > 0.95, "rows are those of their places"
    assert "s.probe.early.1" not in asked


@pytest.mark.parametrize("classes", [1, MOST_CLASSES + 1])
def test_what_is_no_question_is_left_out(classes: int) -> None:
    batch, layer = sentences()
    few = np.full((ITEMS, 6), IGNORE)
    few[:30, 0] = np.arange(30) % 2
    many = np.arange(ITEMS * 6).reshape(ITEMS, 6) % classes
    labels = {"none": np.full((ITEMS, 6), IGNORE), "few": few, "many": many}
    assert probe_measures("s", batch, labels, [layer], STREAMS) == []


def test_a_task_with_trees_asks_for_relations() -> None:
    task = Dependencies(test_size=30, trees=40, objects="plain")
    batch = task.held_out(STREAMS)["trees"]
    assert batch.trees is not None
    labels = task.labels(batch)["relation"]
    assert ((labels == IGNORE) == (batch.trees.relations < 0)).all()


COPIES = """\
import numpy as np
from jobs.tasks.parity import Parity

class Bits(Parity):
    def labels(self, batch):
        return {"first": np.broadcast_to(batch.inputs[:, :1], batch.inputs.shape)WRONG}
"""


@pytest.mark.parametrize(("wrong", "status"), [("", "finished"), ("[:, :1]", "failed"), (" * 0.5", "failed")])
def test_a_users_task_says_what_is_looked_for(tmp_path: Path, wrong: str, status: str) -> None:
    (tmp_path / "bits.py").write_text(COPIES.replace("WRONG", wrong))
    text = PARENTS.replace("name: parity", "name: bits.py:Bits").replace("probes:", "measure: [linear-probe]\nprobes:")
    tables = one_command(tmp_path / "store", text)
    runs = tables["runs"].to_pylist()
    assert {run["status"] for run in runs} == {status}
    if wrong:
        assert "labels 'first' are integers [128, 7]" in runs[0]["reason"]
    else:
        last = [row for row in tables["metrics"].to_pylist() if row["step"] == 8]
        found = {row["metric"]: row["value"] for row in last if row["run_id"] == runs[0]["run_id"]}
        assert found["heldout.probe.first.0"] > 0.6, "the layer reads the first bit where it stands, and after it"


PARENTS = """\
study: parents
task: {name: parity, bits: 6, subset: 2, test_size: 128}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 8, batch_size: 16}
probes: {every: 4}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""
PROBED = """\
study: probed
task: {name: parity, bits: 6, subset: 2, test_size: 128}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 8, batch_size: 16}
measure: [linear-probe]
fork: {study: parents.yaml, steps: [0, 3, last], train: false}
seeds: {design: paired, count: 1}
execution: {pack_width: 3}
"""


def test_chosen_steps_of_finished_runs_are_probed_as_jobs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "probed.yaml").write_text(PROBED)
    study = read_study(tmp_path / "probed.yaml")
    assert [(run.point.first_step, run.point.condition.training.steps) for run in study.runs] == [
        (step, step) for step in (0, 3, 8) for _ in range(3)
    ]
    one_command(tmp_path / "store", PARENTS)
    tables = one_command(tmp_path / "store", PROBED)
    rows = tables["metrics"].to_pylist()
    found = {(row["step"], row["metric"]) for row in rows}
    for step in (0, 3, 8):
        for layer in (0, 1):
            assert {(step, f"heldout.{what}.target.{layer}") for what in ("probe", "control", "selectivity")} <= found
    assert all(row["total"] == 64 for row in rows if row["metric"] == "heldout.probe.target.1")
    assert tables["checkpoints"].num_rows == 0, "nothing was trained, so nothing is kept"


def test_rows_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    text = PARENTS.replace("probes:", "measure: [linear-probe]\ncheckpoints: {rolling: {every: 2}}\nprobes:")
    ends = [final(one_command(tmp_path / str(w), text.replace("width: 3}", f"width: {w}}}"))) for w in (3, 1)]
    with killed_at(5), suppress(Killed):
        one_command(tmp_path / "killed", text.replace("width: 3}", "width: 3, retries: 0}"))
    ends.append(final(one_command(tmp_path / "killed", text)))
    assert ends[0] == ends[1] == ends[2]
    library = Library(open_store(tmp_path / "3"))
    assert verify(library.store, library.declared("parents"), spans=3).findings == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("train: false", "train: false, redraw: [data]", "without training"),
        ("[0, 3, last]", "[0, 9]", "9 is no step to fork at"),
        ("train: false", "train: true", "8 is no step to fork at"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    with pytest.raises(StudyError, match=told):
        parse_study(PROBED.replace(old, new), "probed.yaml", tmp_path)
