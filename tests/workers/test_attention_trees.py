"""Attention and trees: maps made by hand with a known UAS, the slope of the loss term, and rows that know no pack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jobs.errors import StudyError
from jobs.store import open_store
from jobs.study_file import parse_study
from jobs.tasks.task import IGNORE, Mean, Score, Trees
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import one_command, same_in_packs_and_after_a_kill
from tests.workers.test_engine import one_thread_afterwards
from tests.workers.test_models import condition, streams
from workers.attention_trees import Look, found_heads, offset_heads, spans, tree_measures, tree_scores, tree_slope
from workers.determinism import make_deterministic
from workers.engines.packed import PackedEngine
from workers.models import plain

__all__ = ["one_thread_afterwards"]
# Place 0 is no word; places 1 to 4 are: 1 depends on 2, 2 is the root, 3 depends on 2, 4 depends on 3.
HEADS, RELATIONS = np.array([[-1, 2, 2, 2, 3]]), np.array([[-1, 0, -1, 0, 1]])
COPIES = 100  # so that no relation is too rare


def trees(copies: int = COPIES) -> Trees:
    return Trees(np.repeat(HEADS, copies, axis=0), np.repeat(RELATIONS, copies, axis=0))


def layers(*heads: list[int]) -> list[np.ndarray]:
    """Return one layer whose heads attend most to these places, from each place to itself even more."""
    maps = np.full((1, len(heads), 5, 5), 0.01, np.float32)
    for number, to in enumerate(heads):
        maps[0, number, np.arange(5), to] = 0.6
        maps[0, number, np.arange(5), np.arange(5)] = 0.9
        maps[0, number, :, 0] = 0.95  # the place that is no word
    return [np.repeat(maps, COPIES, axis=0)]


def measured(maps: list[np.ndarray]) -> dict[str, float]:
    known = trees()
    looks = [Look.at([layer[some] for layer in maps], known.heads[some]) for some in spans(COPIES)]
    found = tree_measures("t", looks, known, ("first", "second", "rare"))
    return {one.metric: one.value if isinstance(one, Mean) else one.correct / one.total for one in found}


def test_a_head_that_finds_every_head() -> None:
    found = measured(layers([1, 2, 1, 2, 3]))
    assert (found["t.uas"], found["t.uas.first"], found["t.uas.second"]) == (1.0, 1.0, 1.0)
    assert "t.uas.rare" not in found


def test_neither_a_word_itself_nor_what_is_no_word_is_found() -> None:
    found = found_heads(layers([1, 2, 1, 2, 3]), HEADS.repeat(COPIES, axis=0) >= 0)
    assert found[0, 0, 1:].tolist() == [2, 1, 2, 3]
    assert found.shape == (2, COPIES, 5)
    assert (found != 0)[:, :, 1:].all()


def test_of_each_relation_the_best_head_counts_in_the_better_direction() -> None:
    # Head 0 finds 1 → 2 alone, head 1 finds 3 → 2 alone, neither 4 → 3: of the first relation one half.
    found = measured(layers([1, 2, 1, 1, 1], [1, 3, 1, 2, 1]))
    assert found["t.uas.first"] == 0.5
    assert found["t.uas.second"] == 0.0
    assert found["t.uas"] == pytest.approx(1 / 3)
    # From the heads' side: 2 attends to 1, 3 to 4; place 2 can point at one of its two dependents alone.
    turned = measured(layers([1, 3, 1, 4, 1]))
    assert turned["t.uas.second"] == 1.0, "3 attends to 4, so that 4 is found to depend on 3"
    assert turned["t.uas"] == pytest.approx(2 / 3)


def test_a_fixed_distance_is_chosen_in_the_same_way() -> None:
    # 1 → 2 is +1, 3 → 2 is -1, 4 → 3 is -1: the best of the first relation finds one half, of the second all.
    assert measured(layers([0] * 5))["t.offset_uas"] == pytest.approx(2 / 3)
    assert offset_heads((1, 5))[:, 0, 4].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_rare_relation_is_left_out() -> None:
    known = trees(60)
    scores = tree_scores("t", np.broadcast_to(known.heads, (1, 60, 5)), known, ("first", "second"), apart=True)
    assert scores == [Score("t", 120, 120), Score("t.first", 120, 120)]


def test_the_mean_attention_between_words_and_their_heads() -> None:
    maps = np.zeros((1, 2, 5, 5), np.float32)
    maps[0, 0, 1, 2], maps[0, 0, 2, 1], maps[0, 1, 3, 4] = 0.3, 0.9, 0.6
    look = Look.at([maps], HEADS)
    assert (look.weight, look.count) == (pytest.approx(1.8), 3 * 2 * 2)
    edges = tree_slope(torch.from_numpy(HEADS), 0.5)[0, 0]
    assert edges.nonzero().tolist() == [[1, 2], [2, 1], [2, 3], [3, 2], [3, 4], [4, 3]]
    assert set(edges[edges != 0].tolist()) == {0.5}
    assert float((edges * torch.from_numpy(maps[0])).sum()) == pytest.approx(0.5 * look.weight)


FULL = {"family": "gpt", "layers": 2, "width": 16, "heads": 4, "attention": "full"}


def with_weight(weight: float, **model: Any) -> Any:
    training = {"steps": 20, "batch_size": 5, "masking": 0.2, "tree_attention": weight}
    return condition({**FULL, **model}, training=training)


def sentences(runs: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    inputs = generator.integers(0, 7, size=(runs, 5, length))
    targets = np.where(generator.random(inputs.shape) < 0.4, inputs, IGNORE)
    heads = generator.integers(0, length, size=inputs.shape)
    return inputs, targets, np.where(np.arange(length) < length - 2, heads, -1)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize("length", [9, 26])
def test_the_gradient_of_the_loss_term_is_that_of_a_plain_module(
    positions: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = with_weight(0.3, positions=positions)
    engine = PackedEngine(spec, 7, length, streams(0, 1), "cpu")
    oracle = plain.build(spec.model, 7, length)
    oracle.load_state_dict({n: engine.state()[f"model.{n}"][1].clone() for n, _ in oracle.named_parameters()})
    inputs, targets, heads = sentences(2, length)
    engine.train_step(0, inputs, targets, heads)
    maps: list[torch.Tensor] = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, d: maps.append(softmax(x, d)) or maps[-1])
    logits = oracle(torch.from_numpy(inputs[1]))
    asked = torch.from_numpy(targets[1]).flatten()
    term = torch.zeros(())
    for one in maps:
        for item, place in zip(*np.nonzero(heads[1] >= 0), strict=True):
            head = int(heads[1, item, place])
            if head != place:
                term = term + (one[item, :, place, head] + one[item, :, head, place]).sum()
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), asked, ignore_index=IGNORE)
    (cross_entropy + 0.3 * term).backward()
    assert len(maps) == 2
    assert engine.losses[1] == pytest.approx(cross_entropy.item(), rel=2e-6), "what is told is the cross-entropy"
    gradients = engine._views(engine.optimizer.gradients)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name][1], parameter.grad, rtol=3e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("length", [5, 9, 16, 22, 26])
def test_bits_under_the_loss_term_do_not_depend_on_the_pack(length: int) -> None:
    inputs, targets, heads = sentences(8, length)
    ends = []
    for slots, threads in (([3], 1), ([0, 3], 2), ([4, 3, 2, 1, 0], 1), (list(range(8)), 2)):
        make_deterministic(threads, len(slots))
        engine = PackedEngine(with_weight(0.01), 7, length, streams(*slots), "cpu")
        for step in range(3):
            engine.train_step(step, inputs[slots], targets[slots], heads[slots])
        mine = slots.index(3)
        looks = [layer[mine].numpy().tobytes() for layer in engine.attention(inputs[slots])]
        ends.append((looks, [tensor[mine].numpy().tobytes() for tensor in engine.state().values()]))
    assert all(end == ends[0] for end in ends)


STUDY = """\
study: trees
task: {name: dependencies, objects: plain, test_size: 30, trees: 70}
model: {family: gpt, layers: 2, width: 8, heads: 2, attention: full}
optimizer: {learning_rate: 3e-3}
training: {steps: 8, batch_size: 4, masking: 0.3, tree_attention: {piecewise: [[0, 0.1], [4, -0.1]]}}
probes: {every: 4}
measure: [attention]
checkpoints: {milestones: [4], rolling: {every: 2}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""


def test_rows_and_bytes_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY)
    rows = {(row["step"], row["metric"]) for row in end[0]}  # type: ignore[index]
    assert {(step, f"trees.{what}") for step in (0, 4, 8) for what in ("uas", "offset_uas", "tree_attention")} <= rows
    assert {(8, "attractor.accuracy"), (8, "agreement.accuracy"), (8, "heldout.loss")} <= rows


def test_the_weight_pushes_attention_off_the_trees_and_onto_them(tmp_path: Path) -> None:
    weights = {}
    for weight in ("1.0", "0.0", "-1.0"):
        text = STUDY.replace("{piecewise: [[0, 0.1], [4, -0.1]]}", weight).replace("3e-3", "1e-2")
        rows = one_command(tmp_path / weight, text)["metrics"].to_pylist()
        weights[weight] = [r["value"] for r in rows if r["metric"] == "trees.tree_attention" and r["step"] == 8]
    assert max(weights["1.0"]) < min(weights["0.0"])
    assert max(weights["0.0"]) < min(weights["-1.0"])


def test_the_weight_may_change_in_a_fork_of_a_run_that_had_none(tmp_path: Path) -> None:
    parents = STUDY.replace(", tree_attention: {piecewise: [[0, 0.1], [4, -0.1]]}", "").replace("3e-3", "1e-2")
    (tmp_path / "trees.yaml").write_text(parents)
    one_command(tmp_path / "store", parents)
    fork = "fork: {study: trees.yaml, steps: [4]}\n"
    children = parents.replace("study: trees", "study: arms").replace("count: 3", "count: 1")
    arms = children.replace("masking: 0.3", "masking: 0.3, tree_attention: {piecewise: [[0, 1.0], [6, 0.0]]}") + fork
    one_command(tmp_path / "store", arms)
    one_command(tmp_path / "store", children.replace("study: arms", "study: held") + fork)
    library = Library(open_store(tmp_path / "store"))
    ends = {}
    for name in ("trees", "arms", "held"):
        rows = library.tables(name)["metrics"].to_pylist()
        ends[name] = [
            sorted((row["metric"], row["value"]) for row in rows if row["step"] == step and "trees." in row["metric"])
            for step in (4, 8)
        ]
    assert ends["held"][1] == ends["trees"][1], "nothing was changed, so it ends as its parents do"
    assert ends["arms"][0] in ([], ends["trees"][0])
    off = [dict(ends[name][1])["trees.tree_attention"] for name in ("arms", "held")]
    assert off[0] < off[1]
    assert verify(library.store, library.declared("arms"), spans=3).findings == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("masking: 0.3, tree_attention: {piecewise: [[0, 0.1], [4, -0.1]]}", "tree_attention: 0.1", "share of tokens"),
        (
            "dependencies, objects: plain, test_size: 30, trees: 70",
            "parity, bits: 6, subset: 2",
            "has no sentences whose trees are known",
        ),
        ("seeds:", "engine: {name: accelerate}\nseeds:", "tree_attention: is a loss of seed-batched models"),
        (
            "family: gpt, layers: 2, width: 8, heads: 2, attention: full",
            "family: mlp, width: 8",
            "no attention to look",
        ),
        ("[0, 0.1]", "[0, .inf]", "out of range"),
    ],
)
def test_what_does_not_go_together_is_told(old: str, new: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        parse_study(STUDY.replace(old, new), "trees.yaml", Path())
