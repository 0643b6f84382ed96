"""Low-rank adapters and repeated updates: by hand, through packs and kills, and in whatever begins where they end."""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

import seedbed
from jobs.errors import StudyError
from jobs.finetuning import FastForward, LowRank
from jobs.identity import condition_spec
from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.cli import app
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import Killed, final, killed_at, one_command
from tests.workers.test_models import condition, streams
from workers.engines.packed import PackedEngine
from workers.fast_forward import Forward
from workers.low_rank import DOWN, UP, adapters, is_adapter, merged
from workers.models.plain import build

GPT = {"family": "gpt", "layers": 2, "width": 8, "heads": 2}
VOCABULARY, LENGTH = 5, 6
LOW = {"rank": 2, "alpha": 6.0, "targets": ["attention.qkv", "feedforward.down"]}


def engine(seeds: list[int], **training: object) -> PackedEngine:
    made = condition(GPT, training={"steps": 6, "batch_size": 4, **training}, optimizer={"learning_rate": 1e-2})
    rows = np.random.default_rng(0).integers(0, VOCABULARY, (len(seeds), 4, LENGTH))
    given = (rows, rows) if "fast_forward" in training else None
    return PackedEngine(made, VOCABULARY, LENGTH, streams(*seeds), "cpu", 0, given)


def batch(seeds: list[int]) -> tuple[np.ndarray, np.ndarray]:
    rows = np.stack([run.data(0).integers(0, VOCABULARY, (4, LENGTH)) for run in streams(*seeds)])
    return rows, (rows * 3 + 1) % VOCABULARY


def test_an_untrained_adapter_changes_nothing_and_the_base_never_changes() -> None:
    seeds = [3, 1]
    plain, low = engine(seeds), engine(seeds, low_rank=LOW)
    assert all(torch.equal(value, low.weights()[name]) for name, value in plain.weights().items())
    before = {name: tensor.clone() for name, tensor in low.state().items()}
    assert {name for name in before if is_adapter(name)} == {
        f"{kind}.blocks.{block}.{target}{end}"
        for kind in ("model", "adamw.first", "adamw.second")
        for block in (0, 1)
        for target in LOW["targets"]
        for end in (DOWN, UP)
    }
    assert not any(name.startswith("adamw") for name in before if not is_adapter(name))
    for step in range(3):
        low.train_step(step, *batch(seeds))
    for name, tensor in low.state().items():
        assert torch.equal(tensor, before[name]) != is_adapter(name), name
    whole = low.weights()
    assert not torch.equal(whole["model.blocks.0.attention.qkv"], before["model.blocks.0.attention.qkv"])
    a, b = (low.state()[f"model.blocks.1.feedforward.down{end}"][1].double() for end in (DOWN, UP))
    product = before["model.blocks.1.feedforward.down"][1].double() + 3.0 * a @ b
    torch.testing.assert_close(whole["model.blocks.1.feedforward.down"][1].double(), product, rtol=1e-6, atol=1e-6)


def test_the_gradient_is_that_of_a_plain_module_with_adapters() -> None:
    seeds = [3, 1]
    low = engine(seeds, low_rank=LOW)
    for step in range(2):  # while B is 0 nothing reaches A
        low.train_step(step, *batch(seeds))
    start = {name: tensor.clone() for name, tensor in low.state().items()}
    inputs, targets = batch(seeds)
    low.train_step(2, inputs, targets)
    found = dict(zip(low.values, low._gradients, strict=True))
    for slot in range(2):
        module = build(condition(GPT).model, VOCABULARY, LENGTH)
        base = {name.removeprefix("model."): t[slot] for name, t in start.items() if name.startswith("model.")}
        own = {name: value.clone().requires_grad_() for name, value in base.items() if is_adapter(name)}
        whole = {name: value for name, value in base.items() if not is_adapter(name)}
        for name in [name.removesuffix(DOWN) for name in own if name.endswith(DOWN)]:
            whole[name] = whole[name] + 3.0 * own[name + DOWN] @ own[name + UP]
        logits = torch.func.functional_call(module, whole, torch.from_numpy(inputs[slot]))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets[slot]).flatten())
        assert low.losses[slot] == pytest.approx(float(loss.detach()), rel=1e-5)
        norm = torch.sqrt(sum((g**2).sum() for g in torch.autograd.grad(loss, list(own.values()), retain_graph=True)))
        scale = min(1.0, 1.0 / float(norm))
        for name, gradient in zip(own, torch.autograd.grad(loss, list(own.values())), strict=True):
            torch.testing.assert_close(found[name][slot], gradient * scale, rtol=1e-3, atol=1e-6)


def test_a_run_goes_on_while_its_loss_falls_and_takes_the_last_back() -> None:
    """L(w) = (w - t)²: from w₀ by steps of d it falls while another step ends nearer to t."""
    goal, before = torch.tensor([10.0, 3.4, 0.0, 5.0, 1000.0]), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0])
    step = torch.tensor([1.0, 1.0, 1.0, float("nan"), 1.0])
    weights = (before + step)[:, None].repeat(1, 4)
    made = Forward(FastForward(set="any", most=20), 5, torch.device("cpu"), 7)
    alive = torch.tensor([True, True, True, True, True])
    made.go_on(weights, before[:, None].repeat(1, 4), alive, lambda: (weights[:, 0] - goal) ** 2)
    assert weights[:3, 2].tolist() == [10.0, 3.0, 1.0], "11, 4 and 2 would be further away"
    assert made.repeated.tolist() == [9, 2, 0, 0, 20]
    assert made.tried.tolist() == [1 + 10, 1 + 3, 1 + 1, 1, 1 + 20]
    assert weights[4, 0] == 21.0
    assert made.is_due(5)
    assert not made.is_due(0)


def test_the_validation_loss_falls_and_a_diverged_run_stays() -> None:
    seeds = [3, 1, 2]
    forward = {"every": 1, "set": "heldout", "items": 4}
    made, plain = engine(seeds, fast_forward=forward, low_rank=LOW), engine(seeds, low_rank=LOW)
    for step in range(4):
        for one in (made, plain):
            one.train_step(step, *batch(seeds))
        if step == 0:
            assert made.forward is not None
            repeated = made.forward.repeated.clone()
            for name, value in plain.values.items():
                moved = value.detach() - (plain._drawn(one) if (one := _parameter(plain, name)) else 0)
                for slot, times in enumerate(repeated.tolist()):
                    wanted = value[slot] + times * moved[slot]
                    torch.testing.assert_close(made.values[name][slot], wanted, rtol=1e-4, atol=1e-5)
    assert repeated.sum() > 0


def _parameter(made: PackedEngine, name: str):
    return {p.name: p for p in adapters(LowRank.model_validate(LOW), made.family.parameters)}[name]


PARENTS = """\
study: parents
task: {name: parity, bits: 6, subset: 2, test_size: 64}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 4, batch_size: 8}
probes: {every: 4}
seeds: {design: paired, count: 1}
"""
TUNED = """\
study: tuned
task: {name: parity, bits: 6, subset: 2, test_size: 64}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training:
  steps: 12
  batch_size: 8
  low_rank: {rank: 2, alpha: 4}
  fast_forward: {every: 3, set: heldout, items: 32, most: 5}
probes: {every: 2}
checkpoints: {milestones: [8], rolling: {every: 2}}
fork: {study: parents.yaml, steps: [last], redraw: [init, data], moments: zero}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""
COUNTED = f"{TUNED}measure: [cost]\n"
LATER = """\
study: later
task: {name: parity, bits: 6, subset: 2, test_size: 64}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 14, batch_size: 8}
fork: {study: tuned.yaml, steps: [last], moments: zero}
seeds: {design: paired, count: 1}
"""


def tuned(folder: Path, text: str = TUNED) -> dict[str, pa.Table]:
    folder.mkdir(exist_ok=True)
    (folder / "parents.yaml").write_text(PARENTS)
    (folder / "tuned.yaml").write_text(TUNED)
    one_command(folder / "store", PARENTS)
    return one_command(folder / "store", text)


def test_many_seeds_from_one_checkpoint_end_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    tables = tuned(tmp_path / "3", COUNTED)
    ends = [final(tables), final(tuned(tmp_path / "1", COUNTED.replace("width: 3}", "width: 1}")))]
    with killed_at(9), suppress(Killed):
        tuned(tmp_path / "killed", COUNTED.replace("width: 3}", "width: 3, retries: 0}"))
    ends.append(final(tuned(tmp_path / "killed", COUNTED)))
    assert ends[0] == ends[1] == ends[2]
    library = Library(open_store(tmp_path / "3" / "store"))
    assert verify(library.store, library.declared("tuned"), spans=3).findings == []
    rows = {(row["run_id"], row["step"], row["metric"]): row["value"] for row in tables["metrics"].to_pylist()}
    runs = sorted({run for run, _, _ in rows})
    last = [rows[run, 12, "fast_forward.tried"] for run in runs]
    parameters = sum(t.numel() for t in seedbed.open(tmp_path / "3" / "store").run(runs[0]).weights(12).values())
    assert [rows[run, 12, "fast_forward.flops"] for run in runs] == [2 * parameters * 32 * 7 * one for one in last]
    assert all(rows[run, 12, "fast_forward.repeated"] <= one for run, one in zip(runs, last, strict=True))
    assert sum(last) >= 3 * 3, "three times a run looks at the set"
    assert [rows[run, 12, "cost.examples"] for run in runs] == [8 * 8] * 3, "eight updates of eight since the fork"
    adapted, own = 8 * 24, 2 * (8 + 24)  # of `attention.qkv`: a gradient is computed, and values are trained
    by_updates = 8 * 8 * 7 * (4 * (parameters + own) + 2 * (adapted + own))
    by_hand = [by_updates + rows[run, 12, "fast_forward.flops"] for run in runs]
    assert [rows[run, 12, "cost.flops"] for run in runs] == pytest.approx(by_hand, abs=1)
    assert all(rows[run, 4, "cost.flops"] == 0 for run in runs)


def test_what_begins_where_adapters_end_has_them_in_its_matrices(tmp_path: Path) -> None:
    tables = tuned(tmp_path)
    run = tables["runs"].to_pylist()[0]["run_id"]
    store = seedbed.open(tmp_path / "store")
    whole, base = store.run(run).weights(12), store.run(run).weights(4)
    assert set(whole) == set(base)
    assert {name for name in whole if not np.array_equal(whole[name], base[name])} == {"blocks.0.attention.qkv"}
    later = one_command(tmp_path / "store", LATER)
    assert {one["status"] for one in later["runs"].to_pylist()} == {"finished"}
    children = {one["run_id"]: one for one in later["runs"].to_pylist()}
    firsts = [store.run(child).weights(12) for child in children]
    assert any(all(np.array_equal(first[name], whole[name]) for name in whole) for first in firsts)


BETWEEN = """\
study: between
task: {name: parity, bits: 6, subset: 2, test_size: 64}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 12, batch_size: 8}
measure: [similarity]
fork: {study: tuned.yaml, steps: [last], moments: zero, line: {pairs: all, points: 3}}
seeds: {design: paired, count: 1}
"""


def test_lines_between_tuned_runs_compare_layers_with_adapters_in_their_matrices(tmp_path: Path) -> None:
    tuned(tmp_path)
    found = one_command(tmp_path / "store", BETWEEN)["metrics"].to_pylist()
    declared = Library(open_store(tmp_path / "store")).declared("between")
    fraction = {run.id: run.origin.toward.fraction for run in declared.runs if run.origin and run.origin.toward}
    alike = {(row["run_id"], row["metric"]): row["value"] for row in found if ".cka." in row["metric"]}
    assert {round(value, 6) for (run, _), value in alike.items() if fraction[run] == 1.0} == {1.0}
    assert min(value for (run, _), value in alike.items() if fraction[run] == 0.0) < 1 - 1e-6


def test_merging_without_adapters_is_nothing() -> None:
    values = {"w": torch.ones(2, 3, 3)}
    assert merged(None, values) == values
    assert merged(LowRank(rank=1, alpha=1.0), values) == values


def test_keys_that_are_not_used_are_not_in_an_id() -> None:
    assert "low_rank" not in condition_spec(condition(GPT))["training"]
    assert "fast_forward" not in condition_spec(condition(GPT))["training"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("moments: zero", "moments: kept", "adapters have none yet: write `moments: zero`"),
        ("fork: {study: parents.yaml, steps: [last], redraw: [init, data], moments: zero}\n", "", "give a fork"),
        ("rank: 2", "rank: 0", "greater than or equal to 1"),
        ("alpha: 4", "alpha: 4, targets: [attention.q]", "attention.qkv"),
        ("probes:", "engine: {name: accelerate}\nprobes:", "is of seed-batched models"),
        ("set: heldout", "set: helduot", r"yaml:9: training\.fast_forward\.set: no held-out set is called 'helduot'"),
        ("set: heldout", "set: helduot", r"there are heldout; did you mean 'heldout'\?"),
    ],
)
def test_what_cannot_be_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in TUNED
    (tmp_path / "parents.yaml").write_text(PARENTS)
    with pytest.raises(StudyError, match=told):
        parse_study(TUNED.replace(old, new), "tuned.yaml", tmp_path)


OWN = """\
import numpy as np
from jobs.tasks.task import IGNORE, Batch, Task


class Own(Task):
    silent: bool

    @property
    def vocabulary(self):
        return ("a", "b")

    @property
    def length(self):
        return 3

    def batch(self, streams, step, size):
        rows = streams.data(step).integers(0, 2, (size, 3))
        return Batch(rows, rows)

    def held_out(self, streams):
        if not self.silent:
            raise ValueError("no items")
        rows = streams.evaluation("all").integers(0, 2, (4, 3))
        return {"quiet": Batch(rows, np.full_like(rows, IGNORE))}
"""


def test_a_wrong_set_is_told_with_the_other_faults_and_by_plan(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    path = tmp_path / "tuned.yaml"
    path.write_text(TUNED.replace("set: heldout", "set: helduot").replace("rolling: {every: 2}", "rolling: {evry: 2}"))
    found = CliRunner().invoke(app, ["plan", str(path)])
    with pytest.raises(StudyError) as told:
        parse_study(path.read_text(), "tuned.yaml", tmp_path)
    assert found.exit_code
    assert [(fault.line, fault.key) for fault in told.value.faults] == [
        (9, "training.fast_forward.set"),
        (11, "checkpoints.rolling.every"),
        (11, "checkpoints.rolling.evry"),
    ]
    assert str(found.exception) == str(told.value).replace("tuned.yaml", str(path))


def test_a_set_that_is_chosen_in_the_grid_is_told_there(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    grid = "grid: {training.fast_forward.set: [heldout, seen]}\n"
    with pytest.raises(
        StudyError, match=r"t\.yaml:15: grid\.training\.fast_forward\.set: no held-out set is called 'seen'"
    ):
        parse_study(TUNED + grid, "t.yaml", tmp_path)


@pytest.mark.parametrize(
    ("silent", "told"),
    [("true", "'quiet' asks for nothing"), ("false", "sets cannot be drawn: ValueError: no items")],
)
def test_a_set_whose_loss_cannot_fall_is_told(tmp_path: Path, silent: str, told: str) -> None:
    (tmp_path / "own.py").write_text(OWN)
    task = f"{{name: own.py:Own, silent: {silent}}}"
    text = TUNED.replace("{name: parity, bits: 6, subset: 2, test_size: 64}", task).replace(
        "set: heldout", "set: quiet"
    )
    text = re.sub(r"fork:.*\n|  low_rank:.*\n", "", text)
    with pytest.raises(StudyError, match=told):
        parse_study(text, "tuned.yaml", tmp_path)
