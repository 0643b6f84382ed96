"""The seed-batched models against the plain module of the same mathematics, for every option."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from jobs.tasks import IGNORE
from workers.engines.packed import PackedEngine
from workers.models import plain

VOCABULARY, LENGTH, RUNS, BATCH = 7, 6, 3, 5
OPTIMIZER = {"learning_rate": 1e-3, "grad_clip_norm": None}

GPT_OPTIONS = [
    {"norm": norm, "activation": activation, "positions": positions, "tied_head": tied}
    for norm, activation, positions, tied in product(
        ("rmsnorm", "layernorm"), ("gelu", "swiglu"), ("learned", "rotary"), (True, False)
    )
]
LSTM = {"family": "lstm", "layers": 2, "width": 8}
MODELS = [
    *({"family": "gpt", "layers": 2, "width": 8, "heads": 2, **options} for options in GPT_OPTIONS),
    {"family": "gpt", "layers": 1, "width": 4, "heads": 1, "feedforward_multiple": 3},
    {"family": "gpt", "layers": 2, "width": 8, "heads": 2, "dropout": 0.25},
    *({"family": "mlp", "layers": 2, "width": 6, "activation": name} for name in ("relu", "gelu", "tanh")),
    {"family": "mlp", "width": 6, "dropout": 0.25},
    LSTM,
    {"family": "lstm", "width": 6, "tied_head": False},
    {"family": "lstm", "width": 6, "dropout": 0.25},
]


def condition(model: dict[str, Any], **changed: Any) -> Condition:
    return Condition.model_validate(
        {
            "task": {"name": "t", "code": "version:1", "parameters": {}},
            "model": model,
            "optimizer": OPTIMIZER,
            "training": {"steps": 20, "batch_size": BATCH},
            "probes": [],
            "milestones": [],
            **changed,
        }
    )


def streams(*seeds: int) -> list[Streams]:
    return [Streams(Seeds(seed, seed, seed, 0)) for seed in seeds]


def data(model: dict[str, Any], runs: int, first_answer: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    inputs = generator.integers(0, VOCABULARY, size=(runs, BATCH, LENGTH))
    targets = generator.integers(0, VOCABULARY, size=(runs, BATCH, LENGTH))
    last_only = model["family"] == "mlp"
    targets[:, :, : LENGTH - 1 if last_only else first_answer] = IGNORE
    if not last_only:
        targets[:, ::2, -2] = IGNORE
    return inputs, targets


class GivenMasks:
    """The masks that the pack drew for one run, in the order of its sites."""

    def __init__(self, stream: Streams, step: int, rate: float) -> None:
        self.generator, self.rate = stream.dropout(step), rate

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        # The pack keeps batch and length in one axis; a plain module keeps them apart.
        shape = (values.shape[0] * values.shape[1], values.shape[2]) if values.ndim == 3 else values.shape
        kept = torch.from_numpy(self.generator.random(tuple(shape), np.float32) >= self.rate)
        return values * kept.view(values.shape) / (1 - self.rate)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@pytest.mark.parametrize(("heads", "length"), [(4, 26), (1, 26), (2, 23), (2, 40)])
def test_long_sequences_whose_attention_goes_by_slabs(positions: str, heads: int, length: int) -> None:
    spec = condition({"family": "gpt", "layers": 2, "width": 16, "heads": heads, "positions": positions})
    engine = PackedEngine(spec, VOCABULARY, length, streams(0, 1), "cpu")
    oracle = plain.build(spec.model, VOCABULARY, length)
    oracle.load_state_dict({n: engine.state()[f"model.{n}"][1] for n, _ in oracle.named_parameters()})
    inputs = np.random.default_rng(1).integers(0, VOCABULARY, size=(2, 3, length))
    engine.train_step(0, inputs, inputs[:, :, ::-1].copy())
    targets = torch.from_numpy(inputs[1, :, ::-1].copy())
    loss = F.cross_entropy(oracle(torch.from_numpy(inputs[1])).flatten(0, 1), targets.flatten())
    loss.backward()
    assert engine.losses[1] == pytest.approx(loss.item(), rel=2e-6)
    gradients = engine._views(engine.optimizer.gradients)
    for name, parameter in oracle.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(gradients[name][1], parameter.grad, rtol=2e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("first_answer", [0, 3, LENGTH - 1])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(map(str, m.values())))
def test_losses_and_gradients_are_those_of_the_plain_module(model: dict[str, Any], first_answer: int) -> None:
    rate = model.get("dropout", 0.0)
    if rate and model["family"] != "mlp" and first_answer:
        pytest.skip("a mask has as many values as positions are computed, which is fewer here than in the oracle")
    runs = streams(*range(RUNS))
    engine = PackedEngine(condition(model), VOCABULARY, LENGTH, runs, "cpu", first_answer)
    before = {name: tensor.clone() for name, tensor in engine.state().items()}
    inputs, targets = data(model, RUNS, first_answer)
    engine.train_step(3, inputs, targets)
    gradients = engine._views(engine.optimizer.gradients)
    for slot in range(RUNS):
        oracle = plain.build(condition(model).model, VOCABULARY, LENGTH)
        names = dict(oracle.named_parameters())
        oracle.load_state_dict({name: before[f"model.{name}"][slot] for name in names})
        drop = GivenMasks(runs[slot], 3, rate) if rate else (lambda x: x)
        logits = oracle(torch.from_numpy(inputs[slot]), drop)
        asked = torch.from_numpy(targets[slot][:, -logits.shape[1] :])
        loss = F.cross_entropy(logits.flatten(0, 1), asked.flatten(), ignore_index=IGNORE)
        loss.backward()
        assert engine.losses[slot] == pytest.approx(loss.item(), rel=2e-6)
        norm = torch.stack([p.grad.norm() for p in names.values() if p.grad is not None]).norm().item()
        assert engine.grad_norms[slot] == pytest.approx(norm, rel=1e-5)
        for name, parameter in names.items():
            assert parameter.grad is not None
            torch.testing.assert_close(gradients[name][slot], parameter.grad, rtol=2e-4, atol=2e-6, msg=name)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: "-".join(map(str, m.values())))
def test_evaluation_is_that_of_the_plain_module(model: dict[str, Any]) -> None:
    engine = PackedEngine(condition(model), VOCABULARY, LENGTH, streams(0, 1), "cpu", 2)
    inputs, targets = data(model, 2, 2)
    predicted, losses = engine.evaluate(inputs, targets)
    for slot in range(2):
        oracle = plain.build(condition(model).model, VOCABULARY, LENGTH)
        oracle.load_state_dict({n: engine.state()[f"model.{n}"][slot] for n, _ in oracle.named_parameters()})
        logits = oracle(torch.from_numpy(inputs[slot]))
        places = logits.shape[1]
        asked = torch.from_numpy(targets[slot][:, -places:])
        expected = F.cross_entropy(logits.transpose(1, 2), asked, ignore_index=IGNORE, reduction="none").detach()
        np.testing.assert_allclose(losses[slot][:, -places:], expected.numpy(), rtol=1e-5, atol=1e-6)
        seen = targets[slot][:, -places:] != IGNORE
        assert (predicted[slot][:, -places:] == logits.argmax(-1).numpy())[seen].all()


def test_initial_weights_depend_on_the_init_seed_and_the_name_alone() -> None:
    model = MODELS[0]
    state = PackedEngine(condition(model), VOCABULARY, LENGTH, streams(4, 5, 4), "cpu").state()
    for name, tensor in state.items():
        assert torch.equal(tensor[0], tensor[2])
        drawn = name.startswith("model.") and not name.endswith("gain")
        assert torch.equal(tensor[0], tensor[1]) != drawn, name
    deeper = PackedEngine(condition({**model, "layers": 3}), VOCABULARY, LENGTH, streams(4), "cpu").state()
    assert all(torch.equal(deeper[name][0], tensor[0]) for name, tensor in state.items())
    other = Streams(Seeds(4, 99, 99, 99))
    again = PackedEngine(condition(model), VOCABULARY, LENGTH, [other], "cpu").state()
    assert all(torch.equal(again[name][0], tensor[0]) for name, tensor in state.items())


def test_initial_weights_have_the_declared_spread() -> None:
    model = {"family": "gpt", "layers": 1, "width": 64, "heads": 2, "tied_head": False}
    state = PackedEngine(condition(model), 300, LENGTH, streams(*range(8)), "cpu").state()
    for name, std in {
        "model.embedding": 0.3,
        "model.blocks.0.attention.qkv": 64**-0.5,
        "model.blocks.0.feedforward.down": 256**-0.5,
        "model.head": 64**-0.5,
    }.items():
        assert state[name].std().item() == pytest.approx(std, rel=0.02)
        assert abs(state[name].mean().item()) < 0.02 * std
    assert torch.equal(state["model.norm.gain"], torch.ones(8, 64))


@pytest.mark.parametrize("model", [MODELS[0], LSTM], ids=["gpt", "lstm"])
def test_a_large_vocabulary_is_gathered_to_the_same_numbers(
    model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from workers.models import family, gpt

    inputs, targets = data(model, RUNS, 0)
    results = []
    for most in (256, 0):
        monkeypatch.setattr(gpt, "SMALL_VOCABULARY", most)
        monkeypatch.setattr(family, "SMALL_VOCABULARY", most)
        engine = PackedEngine(condition(model), VOCABULARY, LENGTH, streams(*range(RUNS)), "cpu")
        engine.train_step(0, inputs, targets)
        results.append((engine.losses, engine.optimizer.gradients.clone()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-6)


def test_the_plain_lstm_is_that_of_torch() -> None:
    spec = condition(LSTM).model
    ours = plain.build(spec, VOCABULARY, LENGTH)
    theirs = torch.nn.LSTM(8, 8, num_layers=2, batch_first=True)
    weights = PackedEngine(condition(LSTM), VOCABULARY, LENGTH, streams(3), "cpu").state()
    ours.load_state_dict({name: weights[f"model.{name}"][0] for name, _ in ours.named_parameters()})
    for index in range(2):
        # Theirs are [out, in], with a bias for each matrix, and the order in, forget, new, out.
        into, forget, out, new = range(4)
        for kind, end in (("input", "weight_ih_l"), ("recurrent", "weight_hh_l")):
            parts = weights[f"model.layers.{index}.{kind}"][0].T.chunk(4)
            getattr(theirs, f"{end}{index}").data = torch.cat([parts[k] for k in (into, forget, new, out)])
        getattr(theirs, f"bias_hh_l{index}").data.zero_()
        getattr(theirs, f"bias_ih_l{index}").data = torch.zeros(4, 8).index_fill_(0, torch.tensor([1]), 1.0).flatten()
    tokens = torch.arange(12).view(2, 6) % VOCABULARY
    states = theirs(ours.get_parameter("embedding")[tokens])[0]
    torch.testing.assert_close(ours(tokens), states @ ours.get_parameter("embedding").T, rtol=1e-5, atol=1e-6)
