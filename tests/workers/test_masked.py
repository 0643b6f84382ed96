"""Masked language modelling: what is hidden, a model that sees both ways, and bits that depend on no pack."""

from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jobs.errors import StudyError
from jobs.seeds import Seeds, Streams
from jobs.study_file import parse_study
from jobs.tasks.masking import masked
from jobs.tasks.task import IGNORE, Batch
from tests.bitwise.drives import Killed, final, killed_at, one_command, same_in_packs_and_after_a_kill
from tests.workers.test_engine import digests, one_thread_afterwards
from tests.workers.test_models import condition, streams
from workers.engines.packed import PackedEngine
from workers.models import plain

__all__ = ["one_thread_afterwards"]
FULL = [
    {"family": "gpt", "layers": 2, "width": 16, "heads": heads, "positions": positions, "attention": "full"}
    for heads, positions in product((4, 1), ("learned", "rotary"))
]


def test_a_share_of_the_targets_is_asked_for_and_most_of_it_hidden() -> None:
    inputs = np.tile(np.arange(5, 25), (4000, 1))
    targets = np.where(inputs < 7, IGNORE, inputs)
    batch = masked(Batch(inputs, targets), 0.15, Streams(Seeds(0, 3, 0, 0)).masking(7), 1, 30)
    asked = batch.targets != IGNORE
    assert not asked[:, :2].any(), "what is no target is never hidden"
    assert (batch.targets == inputs)[asked].all()
    assert (batch.inputs == inputs)[~asked].all(), "what is not asked for stays"
    n = asked.sum()
    assert n / asked[:, 2:].size == pytest.approx(0.15, abs=0.005)
    assert (batch.inputs == 1)[asked].sum() / n == pytest.approx(0.8 + 0.1 / 30, abs=0.015)
    assert (batch.inputs == inputs)[asked].sum() / n == pytest.approx(0.1 + 0.1 / 30, abs=0.012)
    again = masked(Batch(inputs, targets), 0.15, Streams(Seeds(9, 3, 9, 9)).masking(7), 1, 30)
    assert (again.inputs == batch.inputs).all(), "the data seed alone decides"
    later = masked(Batch(inputs, targets), 0.15, Streams(Seeds(0, 3, 0, 0)).masking(8), 1, 30)
    assert (later.inputs != batch.inputs).any()


@pytest.mark.parametrize("length", [6, 23, 26, 40])
@pytest.mark.parametrize("model", FULL, ids=lambda m: f"{m['heads']}-{m['positions']}")
def test_losses_and_gradients_are_those_of_the_plain_module(model: dict[str, Any], length: int) -> None:
    spec = condition(model)
    engine = PackedEngine(spec, 7, length, streams(0, 1), "cpu")
    oracle = plain.build(spec.model, 7, length)  # type: ignore[arg-type]
    oracle.load_state_dict({n: engine.state()[f"model.{n}"][1] for n, _ in oracle.named_parameters()})
    inputs = np.random.default_rng(1).integers(0, 7, size=(2, 3, length))
    targets = np.where(np.arange(length) % 3, IGNORE, inputs[:, :, ::-1])
    engine.train_step(0, inputs, targets)
    asked = torch.from_numpy(targets[1]).flatten()
    loss = F.cross_entropy(oracle(torch.from_numpy(inputs[1])).flatten(0, 1), asked, ignore_index=IGNORE)
    loss.backward()
    assert engine.losses[1] == pytest.approx(loss.item(), rel=2e-6)
    gradients = engine._views(engine.optimizer.gradients)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name][1], parameter.grad, rtol=2e-4, atol=2e-6, msg=name)


def test_the_last_position_alone_sees_all_others_too() -> None:
    engines = [PackedEngine(condition(FULL[1]), 7, 9, streams(0), "cpu", first) for first in (0, 5, 8)]
    inputs = np.random.default_rng(1).integers(0, 7, size=(1, 3, 9))
    first = engines[0].evaluate(inputs, inputs)[1][..., 8]
    for engine in engines[1:]:
        np.testing.assert_allclose(engine.evaluate(inputs, inputs)[1][..., 8], first, rtol=1e-5)


@pytest.mark.parametrize("length", [9, 26])
@pytest.mark.parametrize("model", FULL, ids=lambda m: f"{m['heads']}-{m['positions']}")
def test_a_runs_bits_do_not_depend_on_width_slot_or_threads(model: dict[str, Any], length: int) -> None:
    alone = digests(model, [3], 1, length=length)[3]
    for seeds, threads in (([0, 3], 2), ([4, 3, 2, 1, 0], 1), (list(range(8)), 2)):
        assert digests(model, seeds, threads, length=length)[3] == alone, (seeds, threads)


LETTERS = """
import numpy as np
from jobs.tasks import Batch, Task

class Letters(Task):
    @property
    def vocabulary(self):
        return (*"abcd", "hidden")

    @property
    def length(self):
        return 8

    @property
    def mask_token(self):
        return 4

    def batch(self, streams, step, size):
        line = self.lines(streams.data(step), size)
        return Batch(line, line)

    def lines(self, generator, size):
        return (generator.integers(0, 4, size=(size, 1)) + np.arange(8)) % 4

    def held_out(self, streams):
        line = self.lines(streams.evaluation("heldout"), 12)
        return {"heldout": Batch(np.where(np.arange(8) == 3, 4, line), np.where(np.arange(8) == 3, line, -100))}
"""
STUDY = """\
study: letters
task: {name: "letters.py:Letters"}
model: {family: gpt, layers: 2, width: 16, heads: 2, attention: full}
optimizer: {learning_rate: 3e-3}
training: {steps: 8, batch_size: 4, masking: {piecewise: [[0, 0.3], [4, 0.6]]}}
probes: {every: 4}
checkpoints: {milestones: [4], rolling: {every: 2}}
seeds: {design: paired, count: 4}
execution: {pack_width: 4}
"""


def trained(folder: Path, text: str) -> Any:
    folder.mkdir()
    (folder / "letters.py").write_text(LETTERS)
    return one_command(folder / "store", text)


def test_killed_or_in_other_packs_runs_end_with_the_same_bytes_and_are_replayed(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY, {"letters.py": LETTERS})
    held = trained(tmp_path / "held", STUDY.replace("{piecewise: [[0, 0.3], [4, 0.6]]}", "0.3"))
    changed = {step: values(end[0], step) == values(held["metrics"].to_pylist(), step) for step in (4, 8)}  # type: ignore[index]
    assert changed == {4: True, 8: False}, "the rate is a function of the step"


def values(rows: list[dict[str, Any]], step: int) -> list[float]:
    return sorted(row["value"] for row in rows if row["step"] == step)


def test_the_proof_of_seeds_sees_what_is_hidden(tmp_path: Path) -> None:
    proofs = [
        trained(tmp_path / name, STUDY.replace("0.3]", f"{rate}]"))["probes_of_seeds"].to_pylist()
        for name, rate in (("one", 0.3), ("two", 0.4))
    ]
    assert proofs[0] != proofs[1]
    assert proofs[0]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (", masking: {piecewise: [[0, 0.3], [4, 0.6]]}", "", "give the share of tokens that is hidden"),
        (", attention: full", "", "goes with model.attention: full"),
        ('"letters.py:Letters"', "parity, bits: 6, subset: 2", "has no token that stands for a hidden one"),
        ("[4, 0.6]", "[4, 1.6]", "out of range"),
        ("attention: full", "attention: both", "attention"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    (tmp_path / "letters.py").write_text(LETTERS)
    with pytest.raises(StudyError, match=told):
        parse_study(STUDY.replace(old, new), "letters.yaml", tmp_path)
    causal = STUDY.replace('"letters.py:Letters"', "parity, bits: 6, subset: 2").replace(
        ", masking: {piecewise: [[0, 0.3], [4, 0.6]]}", ""
    )
    with pytest.raises(StudyError, match="goes with model"):
        parse_study(causal, "letters.yaml", tmp_path)


def test_what_is_not_hidden_is_no_part_of_an_id() -> None:
    text = "study: s\ntask: {name: parity, bits: 6, subset: 2}\nmodel: {family: gpt, layers: 1, width: 4, heads: 1}\n"
    text += "optimizer: {learning_rate: 1e-3}\ntraining: {steps: 2, batch_size: 2}\nseeds: {design: paired, count: 1}\n"
    spec = parse_study(text, "s.yaml", Path()).points[0].spec
    assert "masking" not in spec["training"]
    assert "attention" not in spec["model"]


def test_one_of_the_library_learns_and_ends_with_the_same_bytes_after_a_kill(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    text = STUDY.replace("family: gpt,", "huggingface: bert,").replace("count: 4", "count: 2")
    text = text.replace("steps: 8", "steps: 40")
    tables = trained(tmp_path / "calm", text)
    losses = {row["step"]: row["value"] for row in tables["metrics"].to_pylist() if row["metric"] == "heldout.loss"}
    assert losses[40] < losses[0]
    with killed_at(21), suppress(Killed):
        trained(tmp_path / "killed", text.replace("width: 4}", "width: 4, retries: 0}"))
    assert final(one_command(tmp_path / "killed" / "store", text)) == final(tables)
