"""Models of transformers: initial weights by seed and name alone, configurations, and what is refused."""

import sys
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import ModelError
from jobs.spec import HuggingFaceSpec
from tests.workers.test_models import LENGTH, VOCABULARY, condition, streams
from workers.models.huggingface import HuggingFace, configuration
from workers.models.whole import draw, drawn_of, whole_of

pytest.importorskip("transformers")

TYPES = ["gpt_neox", "llama", "gpt2", "opt", "qwen2", "mistral", "phi"]


def spec(kind: str = "gpt_neox", **options: Any) -> dict[str, Any]:
    return {"huggingface": kind, "layers": 2, "width": 16, "heads": 2, **options}


def weights(model: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    whole = whole_of(condition(model), VOCABULARY, LENGTH, 0)
    draw(whole, drawn_of(condition(model), VOCABULARY, LENGTH, 0).parameters, streams(seed)[0])
    return {name: value.detach().numpy() for name, value in whole.model.named_parameters()}


@pytest.mark.parametrize("kind", TYPES)
def test_every_parameter_is_drawn_and_the_model_answers(kind: str) -> None:
    whole = whole_of(condition(spec(kind)), VOCABULARY, LENGTH, 2)
    parameters = drawn_of(condition(spec(kind)), VOCABULARY, LENGTH, 2).parameters
    with torch.no_grad():
        for value in whole.model.parameters():
            value.fill_(float("nan"))
    draw(whole, parameters, streams(0)[0])
    tokens = torch.arange(3 * LENGTH).view(3, LENGTH) % VOCABULARY
    logits = whole(tokens)
    assert logits.shape == (3, LENGTH - 2, VOCABULARY)
    assert torch.isfinite(logits).all()
    assert sum(p.size for p in parameters) == sum(v.numel() for v in whole.model.parameters())
    assert {p.name for p in parameters if p.decays} == {p.name for p in parameters if p.std}


def test_initial_weights_depend_on_the_init_seed_and_the_name_alone() -> None:
    first = weights(spec(), 4)
    torch.manual_seed(1)
    torch.rand(3)
    before = torch.get_rng_state()
    again, other, deeper = weights(spec(), 4), weights(spec(), 5), weights(spec(layers=3), 4)
    assert torch.equal(torch.get_rng_state(), before), "torch's generator is nobody's business here"
    for name, value in first.items():
        assert np.array_equal(value, again[name])
        assert np.array_equal(value, deeper[name])
        assert np.array_equal(value, other[name]) == (name.endswith("bias") or "norm" in name), name


def test_initial_weights_have_the_declared_spread() -> None:
    drawn = weights(spec(width=64, initializer_range=0.05), 0)
    assert drawn["gpt_neox.layers.0.mlp.dense_4h_to_h.weight"].std() == pytest.approx(0.05, rel=0.03)
    assert (drawn["gpt_neox.final_layer_norm.weight"] == 1).all()
    assert (drawn["gpt_neox.layers.1.attention.dense.bias"] == 0).all()


def test_a_tied_head_is_one_parameter() -> None:
    tied, untied = weights(spec(config={"tie_word_embeddings": True}), 0), weights(spec(), 0)
    assert set(untied) - set(tied) == {"lm_head.weight"}


def test_the_named_shapes_are_those_of_pythia() -> None:
    model = HuggingFaceSpec.model_validate({"size": "pythia-14m"})
    config = configuration(model, 50_304, 2048)
    with torch.device("meta"):
        whole = HuggingFace(model, 50_304, 2048, 0)
    assert sum(p.numel() for p in whole.parameters()) == 14_067_712, "as the released model counts"
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (128, 6, 4)
    assert (config.intermediate_size, config.max_position_embeddings, config.vocab_size) == (512, 2048, 50_304)
    assert config.use_parallel_residual


def test_dropout_is_every_rate_that_there_is_and_config_has_the_last_word() -> None:
    config = configuration(HuggingFaceSpec.model_validate(spec(dropout=0.1)), VOCABULARY, LENGTH)
    assert (config.attention_dropout, config.hidden_dropout) == (0.1, 0.1)
    own = spec(dropout=0.1, config={"attention_dropout": 0.2, "hidden_act": "relu"})
    config = configuration(HuggingFaceSpec.model_validate(own), VOCABULARY, LENGTH)
    assert (config.attention_dropout, config.hidden_dropout, config.hidden_act) == (0.2, 0.1, "relu")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"huggingface": "gpt_noex"}, "no causal language model of this type; did you mean 'gpt_neox'"),
        ({"huggingface": "t5"}, "no causal language model"),
        ({"config": {"hidden_akt": "relu"}}, "config.hidden_akt is nothing that its configuration has; did you mean"),
        ({"config": {"vocab_size": 3}}, "a vocab_size of 3 is less than the task's 7"),
    ],
)
def test_what_cannot_be_built_is_told(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        drawn_of(condition(spec() | options), VOCABULARY, LENGTH, 0)


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match=r"needs transformers, which is not installed here .*seedbed\[huggingface\]"):
        configuration(HuggingFaceSpec.model_validate(spec()), VOCABULARY, LENGTH)


@pytest.mark.parametrize("kind", ["bert", "electra", "modernbert"])
def test_a_masked_language_model_is_drawn_sees_both_ways_and_answers(kind: str) -> None:
    made = condition(spec(kind, attention="full"))
    whole, drawn = whole_of(made, VOCABULARY, LENGTH, 2), drawn_of(made, VOCABULARY, LENGTH, 2)
    with torch.no_grad():
        for value in whole.model.parameters():
            value.fill_(float("nan"))
    draw(whole, drawn.parameters, streams(0)[0])
    whole.eval()
    tokens = torch.arange(3 * LENGTH).view(3, LENGTH) % VOCABULARY
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % VOCABULARY
    with torch.no_grad():
        logits, changed = whole(tokens), whole(other)
    assert logits.shape == (3, LENGTH - 2, VOCABULARY)
    assert torch.isfinite(logits).all()
    assert not torch.allclose(logits[:, 0], changed[:, 0], atol=1e-7), "the first answer depends on the last token"
    assert sum(p.size for p in drawn.parameters) == sum(v.numel() for v in whole.model.parameters())


def test_what_is_no_masked_language_model_is_told() -> None:
    with pytest.raises(ModelError, match="no masked language model of this type"):
        whole_of(condition(spec("gpt_neox", attention="full")), VOCABULARY, LENGTH, 0)
