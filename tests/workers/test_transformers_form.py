"""A gpt as a model of transformers: the same logits, or a refusal."""

import itertools

import pytest
import torch

from jobs.errors import QueryError
from jobs.spec import GptSpec, MlpSpec
from workers.models.plain import build
from workers.transformers_form import EXACT, architecture_of, as_transformers

VOCABULARY, LENGTH = 37, 12


def spec(norm: str, activation: str, positions: str, tied: bool = True) -> GptSpec:
    given = {"norm": norm, "activation": activation, "positions": positions, "tied_head": tied}
    return GptSpec.model_validate({"family": "gpt", "layers": 3, "width": 24, "heads": 4} | given)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("options", sorted(EXACT), ids=EXACT.get)
def test_logits_are_those_of_the_plain_module(options: tuple[str, str, str], tied: bool) -> None:
    pytest.importorskip("transformers")
    one = spec(*options, tied=tied)
    own = build(one, VOCABULARY, LENGTH)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.4)
    model = as_transformers(one, own.state_dict(), VOCABULARY, LENGTH, None)
    tokens = torch.randint(0, VOCABULARY, (5, LENGTH), generator=draw)
    with torch.no_grad():
        ours, theirs = own(tokens), model(tokens).logits
    assert model.config.model_type == EXACT[options]
    assert float(ours.std()) > 0.5
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    "options",
    sorted(set(itertools.product(("rmsnorm", "layernorm"), ("gelu", "swiglu"), ("learned", "rotary"))) - set(EXACT)),
)
def test_what_is_not_the_same_is_refused(options: tuple[str, str, str]) -> None:
    with pytest.raises(QueryError, match=r"no model of transformers is .*; there are .*llama"):
        architecture_of(spec(*options))


def test_a_model_that_sees_both_ways_is_refused() -> None:
    known = spec(*next(iter(EXACT))).model_copy(update={"attention": "full"})
    with pytest.raises(QueryError, match="attention: full"):
        architecture_of(known)


def test_a_perceptron_is_no_language_model() -> None:
    with pytest.raises(QueryError, match="no language model"):
        architecture_of(MlpSpec(family="mlp", width=4))
