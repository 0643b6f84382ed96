"""Structural probes: trees that are there as distances, or by heart, or not; and rows that know no pack."""

from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import StudyError
from jobs.seeds import Seeds, Streams
from jobs.study_file import parse_study
from jobs.tasks.task import Batch, Mean, Score, Trees
from tests.bitwise.drives import same_in_packs_and_after_a_kill
from workers.structural_probe import correlation, distances, edges_of, fitted, random_tree, structure_measures

STREAMS = Streams(Seeds(0, 0, 0, 0))
ITEMS, LENGTH, TOKENS, WIDTH = 80, 8, 30, 24


def drawn(seed: int = 0) -> tuple[Batch, torch.Tensor]:
    """Return sentences with trees that have nothing to do with their tokens, and a layer in which the trees stand.

    A word's row is the sum of a direction for each edge on its way to the root: squared distances are edges.
    """
    rng = np.random.default_rng(seed)
    inputs = rng.integers(0, TOKENS, size=(ITEMS, LENGTH))
    heads = np.full((ITEMS, LENGTH), -1)
    layer = np.zeros((ITEMS, LENGTH, WIDTH))
    for item in range(ITEMS):
        order = rng.permutation(LENGTH - 1)  # the last place is no word
        heads[item, order[0]] = order[0]
        for number, place in enumerate(order[1:], start=1):
            heads[item, place] = above = order[rng.integers(0, number)]
            layer[item, place] = layer[item, above] + np.eye(WIDTH)[number]
    return Batch(inputs, inputs, Trees(heads, np.full_like(heads, -1))), torch.from_numpy(layer).view(-1, WIDTH)


def by_metric(found: list[Score | Mean]) -> dict[str, float]:
    return {one.metric: one.correct / one.total if isinstance(one, Score) else one.value for one in found}


def test_a_tree_that_is_there_is_found_and_one_that_is_only_in_the_words_is_learned_by_heart() -> None:
    batch, layer = drawn()
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[
        0
    ]
    noise = torch.randn(len(layer), WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    names = torch.eye(TOKENS, dtype=torch.float64)[torch.from_numpy(batch.inputs.reshape(-1))]
    found = by_metric(structure_measures("s", batch, [layer @ turn * 50 + 3, noise, names], STREAMS, TOKENS))
    assert found["s.structure.0"] > 0.98
    assert found["s.structure_spearman.0"] > 0.9, "distances that are equal in the tree have an order in what is read"
    spearman, control = found["s.structure_spearman.0"], found["s.structure_control.0"]
    assert spearman - control == pytest.approx(found["s.structure_selectivity.0"])
    assert abs(control) < 0.2, "nothing in it follows from the tokens"
    assert found["s.structure.1"] < 0.5, "noise has no tree"
    assert abs(found["s.structure_spearman.1"]) < 0.2
    assert found["s.structure_control.2"] > 0.8, "a direction for each token learns by heart how far types are apart"
    assert found["s.structure_selectivity.2"] < -0.6


def test_neighbours_joined_are_the_chain() -> None:
    batch, layer = drawn()
    assert batch.trees is not None
    found = structure_measures("s", batch, [layer], STREAMS, TOKENS)
    near = total = 0
    for heads in batch.trees.heads[1::2]:
        for place in range(LENGTH - 1):
            if heads[place] != place:
                total += 1
                near += abs(heads[place] - place) == 1
    assert found[0] == Score("s.chain", near, total)


def test_the_fit_is_an_optimum_and_distances_are_squares() -> None:
    batch, layer = drawn()
    assert batch.trees is not None
    values, wanted = layer.view(ITEMS, LENGTH, -1), torch.from_numpy(batch.trees.distances()).double()
    matrix = fitted(values, wanted, torch.from_numpy(batch.trees.heads >= 0))
    told = distances(values, matrix)
    by_hand = ((values[3, 1] - values[3, 5]) @ matrix).square().sum()
    assert told[3, 1, 5].item() == pytest.approx(by_hand.item(), abs=1e-9)
    words = batch.trees.heads >= 0
    pairs = torch.from_numpy(words[:, :, None] & words[:, None, :])
    assert (told - wanted)[pairs].abs().mean() < 0.05


def test_a_random_tree_is_one_and_the_same_again() -> None:
    heads = random_tree(40, np.random.default_rng(3)).heads
    assert np.array_equal(heads, random_tree(40, np.random.default_rng(3)).heads)
    assert (random_tree(40, np.random.default_rng(3)).distances()[0] < 40).all(), "there is a way from each to each"
    assert (heads[0] == np.arange(40)).sum() == 1
    assert len(edges_of(heads[0])) == 39
    assert edges_of(np.array([3, 2, 0, 3, 3, -1])) == {(0, 3), (1, 2), (0, 2), (3, 4)}


def test_correlations_by_hand() -> None:
    true = np.array([[[0, 1, 2, 3, 4], [1, 0, 1, 2, 3], [2, 1, 0, 1, 2], [3, 2, 1, 0, 1], [4, 3, 2, 1, 0]]])
    words = np.ones((1, 5), bool)
    assert correlation(true * 2.0, true, words) == pytest.approx(1.0)
    assert correlation(-1.0 * true, true, words) == pytest.approx(-1.0)
    assert correlation(true * 2.0, true, np.array([[True, True, True, True, False]])) == 0.0, "four words are too few"


def test_what_is_no_question_is_left_out() -> None:
    batch, layer = drawn()
    assert batch.trees is not None
    some = Batch(batch.inputs[:38], batch.targets[:38], Trees(batch.trees.heads[:38], batch.trees.relations[:38]))
    assert structure_measures("s", some, [layer[: 38 * LENGTH]], STREAMS, TOKENS) == []
    assert structure_measures("s", Batch(batch.inputs, batch.targets), [layer], STREAMS, TOKENS) == []
    last = layer.view(ITEMS, LENGTH, -1)[:, 4:].reshape(-1, WIDTH)
    assert [one.metric for one in structure_measures("s", batch, [last], STREAMS, TOKENS)] == ["s.chain"]


STUDY = """\
study: structured
task: {name: dependencies, objective: next, objects: plain, adjectives: 1, adverbs: 1, test_size: 16, trees: 48}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 8, batch_size: 8}
probes: {every: 8}
measure: [structural-probe]
checkpoints: {rolling: {every: 2}}
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""


def test_rows_do_not_depend_on_the_pack_or_on_a_kill(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY)
    rows = {(row["step"], row["metric"]) for row in end[0]}  # type: ignore[index]
    kinds = ("structure", "structure_control", "structure_selectivity", "structure_spearman")
    assert {(step, f"trees.{kind}.{layer}") for step in (0, 8) for kind in kinds for layer in (0, 1)} <= rows


def test_a_task_without_trees_is_refused() -> None:
    task = STUDY.splitlines()[1]
    with pytest.raises(StudyError, match="parity has no sentences whose trees are known"):
        parse_study(STUDY.replace(task, "task: {name: parity, bits: 6, subset: 2}"), "structured.yaml", Path())
