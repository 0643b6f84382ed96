"""States taken apart: parts that add up, numbers by hand, every order written out, and rows that know no pack."""

from itertools import permutations
from math import exp, tanh
from pathlib import Path

import numpy as np
import pytest
import torch

from jobs.errors import StudyError
from jobs.spec import LstmSpec
from jobs.study_file import parse_study
from jobs.tasks.task import Trees
from tests.bitwise.drives import same_in_packs_and_after_a_kill
from workers.interdependence import decompose, interdependence, pairs_of, shares
from workers.models import plain

WORDS = np.random.default_rng(1).random((5, 7)) < 0.4
TOKENS = np.random.default_rng(2).integers(0, 9, (5, 7))


def weights(layers: int, width: int) -> tuple[plain.PlainLstm, dict[str, torch.Tensor]]:
    module = plain.build(LstmSpec(family="lstm", layers=layers, width=width), 9, 7).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    assert isinstance(module, plain.PlainLstm)
    return module, {name: value.detach() for name, value in module.named_parameters()}


@pytest.mark.parametrize("layers", [1, 2])
def test_the_parts_add_up_to_the_state(layers: int) -> None:
    module, own = weights(layers, 4)
    part, rest = decompose(own, TOKENS, WORDS)
    states = module.embedding[torch.from_numpy(TOKENS)]
    for layer in module.layers:
        states = layer(states)
    torch.testing.assert_close(part + rest, states, rtol=1e-10, atol=1e-12)
    assert (part.norm(dim=2)[:, -1] > 0.01).all()
    whole, nothing = decompose(own, TOKENS, np.ones_like(WORDS))
    torch.testing.assert_close(whole, states, rtol=1e-10, atol=1e-12)
    assert torch.equal(nothing, torch.zeros_like(nothing))


def test_one_word_by_hand() -> None:
    # Gates of 1 · input + bias; with nothing before it, the word's part is out · tanh(in · new).
    own = {
        "embedding": torch.tensor([[1.0]], dtype=torch.float64),
        "layers.0.input": torch.tensor([[0.3, 0.5, -0.2, 0.9]], dtype=torch.float64),
        "layers.0.recurrent": torch.zeros(1, 4, dtype=torch.float64),
        "layers.0.bias": torch.tensor([0.1, 0.0, 0.4, -0.3], dtype=torch.float64),
    }
    sigmoid = lambda x: 1 / (1 + exp(-x))  # noqa: E731
    part, rest = decompose(own, np.array([[0, 0]]), np.array([[False, True]]))
    first = sigmoid(0.4) * tanh(0.6)
    out, second = sigmoid(0.2), sigmoid(1.5) * first + sigmoid(0.4) * tanh(0.6)
    assert rest[0, 0, 0].item() == pytest.approx(out * tanh(first), rel=1e-12)
    assert part[0, 0, 0].item() == 0.0
    # The forget gate is opened by the word (0.5) and by its bias (1): the word's share of it works on nothing of its
    # own, so that what was before stays with the rest, whatever opened the gate.
    kept, added = sigmoid(1.5) * first, sigmoid(0.4) * tanh(0.6)
    expected = out * 0.5 * (tanh(added) + tanh(kept + added) - tanh(kept))
    assert part[0, 1, 0].item() == pytest.approx(expected, rel=1e-12)
    assert (part + rest)[0, 1, 0].item() == pytest.approx(out * tanh(second), rel=1e-12)


def test_shares_are_averages_over_orders() -> None:
    a, b, bias = (torch.tensor([value], dtype=torch.float64) for value in (0.7, -1.9, 0.4))
    found = shares(a, b, bias, torch.tanh)
    for index in (0, 1):
        gains = []
        for order in permutations([(0, a), (1, b)]):
            total = bias
            for which, part in order:
                if which == index:
                    gains.append(torch.tanh(total + part) - torch.tanh(total))
                total = total + part
        torch.testing.assert_close(found[index], sum(gains) / len(gains), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(sum(found), torch.tanh(a + b + bias), rtol=1e-12, atol=0.0)


def test_interdependence_is_what_two_words_are_more_than_each() -> None:
    _, own = weights(1, 4)
    pairs = np.array([0, 0, 3]), np.array([0, 2, 4]), np.array([3, 4, 5])
    found = interdependence(own, TOKENS, pairs)
    for number, (item, one, other) in enumerate(zip(*pairs, strict=True)):
        parts = []
        for chosen in ([one, other], [one], [other]):
            words = np.isin(np.arange(7), chosen)[None]
            parts.append(decompose(own, TOKENS[item][None], words)[0][0, other])
        expected = (parts[0] - parts[1] - parts[2]).norm() / parts[0].norm()
        assert found[number] == pytest.approx(expected.item(), rel=1e-9)
    assert (found > 0.001).all()
    nothing = np.zeros(0, np.int64)
    assert len(interdependence(own, TOKENS, (nothing, nothing, nothing))) == 0


def test_words_apart_in_a_sentence_and_in_its_tree() -> None:
    # the small raven sleeps: the root is word 3, on which 2 depends, on which 0 and 1 do
    heads = np.array([[2, 2, 3, 3, -1], [1, 1, -1, -1, -1]])
    apart = Trees(heads, np.full_like(heads, -1)).distances()
    assert apart[0, :4, :4].tolist() == [[0, 2, 1, 2], [2, 0, 1, 2], [1, 1, 0, 1], [2, 2, 1, 0]]
    assert list(zip(*(part.tolist() for part in pairs_of(heads)), strict=True)) == [
        (0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 1), (0, 0, 2), (0, 1, 3), (0, 0, 3),
    ]  # fmt: skip


STUDY = """\
study: composed
task: {name: dependencies, objective: next, test_size: 16, trees: 24}
model: {family: lstm, layers: 2, width: 16}
optimizer: {learning_rate: 1e-2}
training: {steps: 8, batch_size: 8}
probes: {every: 4}
measure: [interdependence]
checkpoints: {rolling: {every: 2}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""


def test_rows_do_not_depend_on_the_pack_or_on_a_kill(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY)
    rows = {(row["step"], row["metric"]) for row in end[0]}  # type: ignore[index]
    wanted = ["trees.interdependence.1.1", "trees.interdependence.4.4", "trees.interdependence_closeness"]
    assert {(step, what) for step in (0, 4, 8) for what in (*wanted, "attractor.accuracy")} <= rows


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("family: lstm, layers: 2,", "family: gpt, layers: 1, heads: 2,", "of models of family: lstm"),
        (
            "name: dependencies, objective: next, test_size: 16, trees: 24",
            "name: parity, bits: 6, subset: 2",
            "no sent",
        ),
        ("objective: next, ", "", "give the share of tokens"),
    ],
)
def test_what_does_not_fit_is_refused(old: str, new: str, told: str) -> None:
    with pytest.raises(StudyError, match=told):
        parse_study(STUDY.replace(old, new), "composed.yaml", Path())
