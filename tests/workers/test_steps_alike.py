"""A run beside its own past: activations made by hand, true weights loaded by hand, and looks as jobs of their own."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.errors import StudyError
from jobs.measures import StepsSpec
from jobs.seeds import Streams
from jobs.store import open_store
from jobs.study_file import parse_study, read_study
from jobs.tasks.addition import Addition
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command
from tests.cli import invoke
from workers.engines.packed import PackedEngine
from workers.polca import Past
from workers.replay import replay
from workers.similarity import linear_cka, svcca
from workers.steps_alike import rows_over_steps

ROOT = Path(__file__).parents[2]
WAVES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # two features that have nothing in common
MADE = {
    0: torch.zeros(2, 2),  # the same of everything
    1: torch.tensor([[1.0, 0.0], [0.0, 0.0]]),  # the first feature alone
    2: torch.tensor([[0.0, 0.0], [0.0, 3.0]]),  # the second alone
    3: torch.tensor([[0.6, -0.8], [0.8, 0.6]]),  # both, turned
}


class Fake:
    """An engine of two runs whose one layer is the waves times its weights."""

    def __init__(self) -> None:
        self.kept = {"model.w": torch.full((2, 2, 2), 7.0)}

    def weights(self) -> dict[str, Tensor]:
        return self.kept

    def state(self) -> dict[str, Tensor]:
        return self.kept

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.kept["model.w"].copy_(state["model.w"])

    def hidden(self, inputs: np.ndarray) -> list[Tensor]:
        return [WAVES @ self.kept["model.w"]]


def looked(**options: Any) -> list[dict[tuple[int, str], float]]:
    """Return (step, metric) → value of a run that was MADE, and of one that never moved."""
    pasts = [
        Past(lambda step: {"w": MADE[step]}, nn.Identity, 3),
        Past(lambda _: {"w": MADE[3]}, nn.Identity, 3),
    ]
    engine, told = Fake(), list[str]()
    spec = StepsSpec(steps=(0, 1, 2, 3), **options)
    found = rows_over_steps(spec, engine, np.zeros((2, 4, 1), np.int64), pasts, told.append)  # type: ignore[arg-type]
    assert (engine.kept["model.w"] == 7).all(), "it ends with the weights that it had"
    assert told == ["a look at a step"] * 4, "each step is looked at once"
    rows = [{(step, metric): value for step, metric, value in mine} for mine in found]
    assert [len(mine) for mine in rows] == [len(mine) for mine in found]
    return rows


def test_with_the_last_step() -> None:
    moved, still = looked(to="last")
    # Of two features of equal size one is there: |y'x|² / (|x'x| |y'y|) = 16 / (4 · √32).
    half = 16 / (4 * 32**0.5)
    assert {key: round(value, 6) for key, value in moved.items() if "cka" in key[1]} == {
        (1, "heldout.cka.0.to_last"): round(half, 6),
        (2, "heldout.cka.0.to_last"): round(half, 6),
        (3, "heldout.cka.0.to_last"): 1.0,
    }
    assert moved[1, "heldout.svcca.0.to_last"] == pytest.approx(1), "what is kept of it lies in the other whole"
    assert all(value == pytest.approx(1) for value in still.values())
    assert {step for step, _ in still} == {0, 1, 2, 3}


def test_with_the_step_before() -> None:
    moved, still = looked(to="before")
    assert moved[2, "heldout.cka.0.to_before"] == pytest.approx(0)
    assert moved[2, "heldout.svcca.0.to_before"] == pytest.approx(0, abs=1e-12)
    assert {step for step, _ in moved} == {2, 3}, "step 0 makes the same of everything"
    assert {step for step, _ in still} == {1, 2, 3}


def test_each_with_each() -> None:
    moved, still = looked(to=["each", "before"], set="x")
    steps = range(4)
    assert {(s, f"x.{what}.0.to_{t}") for s in steps for t in steps for what in ("cka", "svcca")} < set(still)
    for one in range(1, 4):
        assert moved[one, f"x.cka.0.to_{one}"] == pytest.approx(1)
        for other in range(1, one):
            assert moved[one, f"x.cka.0.to_{other}"] == moved[other, f"x.cka.0.to_{one}"]
    assert moved[2, "x.cka.0.to_1"] == moved[2, "x.cka.0.to_before"] == pytest.approx(0)
    assert not any("to_0" in metric or step == 0 for step, metric in moved)


PARENTS = """\
study: parents
task: {name: addition, digits: 1, test_size: 40}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 12, batch_size: 16}
probes: {every: 4}
checkpoints: {milestones: {every: 4}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""
LOOK = """\
study: look
task: {name: addition, digits: 1, test_size: 40}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 12, batch_size: 16}
measure: [{similarity: {steps: {every: 3}, to: [last, before, each], items: 30}}]
fork: {study: parents.yaml, steps: [last], train: false}
seeds: {design: paired, count: 1}
execution: {pack_width: 3}
"""


def test_a_look_is_what_weights_loaded_by_hand_show(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    (tmp_path / "look.yaml").write_text(LOOK)
    study = read_study(tmp_path / "look.yaml")
    one_command(tmp_path / "store", PARENTS)
    tables = one_command(tmp_path / "store", LOOK)
    assert set(tables["runs"]["status"].to_pylist()) == {"finished"}
    assert tables["checkpoints"].num_rows == 0
    store, task = open_store(tmp_path / "store"), Addition(digits=1, test_size=40)
    rows = tables["metrics"].to_pylist()
    for run in study.runs:
        assert run.origin is not None
        streams = Streams(run.seeds)
        inputs = task.held_out(streams)["heldout"].inputs[None, :30]
        shown = {}
        for step in (3, 12):
            weights = replay(store, run.origin.run_id, step).weights
            engine = PackedEngine(
                run.point.condition, len(task.vocabulary), task.length, [streams], "cpu", task.first_answer
            )
            engine.load(engine.state() | {f"model.{name}": tensor[None] for name, tensor in weights.items()})
            shown[step] = [layer[0] for layer in engine.hidden(inputs)]
        mine = {(row["step"], row["metric"]): row["value"] for row in rows if row["run_id"] == run.id}
        assert {step for step, metric in mine if metric == "heldout.cka.1.to_last"} == {0, 3, 6, 9, 12}
        for layer, (one, other) in enumerate(zip(shown[3], shown[12], strict=True)):
            assert mine[3, f"heldout.cka.{layer}.to_last"] == linear_cka(one, other)
            assert mine[3, f"heldout.svcca.{layer}.to_last"] == svcca(one, other)
            for what in ("cka", "svcca"):
                with_end = mine[3, f"heldout.{what}.{layer}.to_last"]
                assert mine[3, f"heldout.{what}.{layer}.to_12"] == pytest.approx(with_end, rel=1e-9)
        assert 0 < mine[0, "heldout.cka.1.to_last"] < 0.99
        assert mine[12, "heldout.loss"] > 0, "what the run is at its end is measured as ever"
    library = Library(store)
    assert verify(store, library.declared("look"), spans=3).findings == []


def test_rows_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    stores = [tmp_path / name for name in ("3", "1", "killed")]
    for store in stores:
        one_command(store, PARENTS)
    ends = [
        final(one_command(s, LOOK.replace("width: 3", f"width: {w}"))) for s, w in zip(stores, (3, 1), strict=False)
    ]
    with killed_at(5), suppress(Killed):
        one_command(stores[2], LOOK.replace("width: 3", "width: 3, retries: 0"))
    ends.append(final(one_command(stores[2], LOOK)))
    assert ends[0] == ends[1] == ends[2]


def test_the_example_is_trained_looked_back_at_asked_and_drawn_by_one_command_each(tmp_path: Path) -> None:
    for name in ("sums", "sums-looked-back"):
        text = (ROOT / "docs" / "examples" / f"{name}.yaml").read_text()
        for old, new in (("600", "12"), ("[100,", "[4,"), ("every: 100", "every: 4"), ("count: 6", "count: 3")):
            text = text.replace(old, new)
        (tmp_path / f"{name}.yaml").write_text(text.replace("test_size: 300", "test_size: 40"))
    store = tmp_path / "store"
    with killed_at(3), suppress(Killed):
        parents = (tmp_path / "sums.yaml").read_text()
        one_command(store, parents.replace("pack_width: 6", "pack_width: 6, retries: 0"))
    place = ("--store", str(store))
    file = str(tmp_path / "sums-looked-back.yaml")
    told = " ".join(invoke("run", file, *place, "--cluster", "inline", "--cpus", "1").split())
    assert "begins where runs of sums were, which the store has not whole" in told
    tables = Library(open_store(store)).tables("sums-looked-back")
    assert tables["runs"]["status"].to_pylist() == ["finished"] * 6
    rows = {(row["step"], row["metric"]) for row in tables["metrics"].to_pylist()}
    assert {(4, "heldout.cka.1.to_12"), (12, "heldout.svcca.1.to_4"), (12, "heldout.shapley_share")} <= rows
    asked = ("sums-looked-back", *place, "--condition", "fork.step=12")
    assert "3 of 3" in invoke("estimate", "mean", *asked, "--metric", "heldout.shapley_share")
    picture = tmp_path / "steps.svg"
    invoke("plot", "steps", *asked, "--metric", "heldout.cka.1.to_*", "-o", str(picture))
    assert "the step in the metric" in picture.read_text()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("fork: {study: parents.yaml, steps: [last], train: false}\n", "", "give a fork with `train: false`"),
        ("train: false", "moments: zero, line: {pairs: all, points: 3}", "without a line"),
        ("{steps: {every: 3}, to", "{step: {every: 3}, to", r"similarity.step: unknown key; did you mean 'steps'\?"),
        ("[last, before, each]", "[lst]", r"'last', 'before' or 'each' \(given: 'lst'\)"),
        ("{similarity:", "{similarty:", r"measure.0.similarty: unknown key; did you mean 'similarity'\?"),
        ("items: 30", "items: 300", "less than or equal to 256"),
        ("}}]", "}}, {similarity: {steps: pythia}}]", "reads one set twice"),
        ("measure: [{similarity: {steps: {every: 3}", "measure: [similarity, {shapley: {itms: 3", "itms: unknown key"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, old: str, new: str, told: str) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    with pytest.raises(StudyError, match=told):
        parse_study(LOOK.replace(old, new), "look.yaml", tmp_path)
