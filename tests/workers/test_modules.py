"""Whole modules on one process: the same as a pack and as plain PyTorch, exact resumption, and every option."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jobs.claims import Attempt
from jobs.spec import Condition
from jobs.tasks import IGNORE
from jobs.tasks.parity import Parity
from tests.workers.test_models import condition, streams
from workers.batches import Batches
from workers.checkpoint import slice_digest
from workers.crew import Crew, Member
from workers.engines.choice import engine_of, switch
from workers.engines.modules import ModuleEngine
from workers.engines.packed import PackedEngine
from workers.engines.replica import Shape
from workers.models import plain
from workers.optimizer import learning_rate

pytest.importorskip("accelerate")

TASK = Parity(bits=6, subset=2)
GPT = {"family": "gpt", "layers": 2, "width": 16, "heads": 2}
NEOX = {"huggingface": "gpt_neox", "layers": 2, "width": 16, "heads": 2}
LLAMA = NEOX | {"huggingface": "llama"}
OPTIMIZER = {"learning_rate": 3e-3, "weight_decay": 0.1, "warmup_steps": 2, "decay": "cosine"}
VOCABULARY, LENGTH, BATCH, STEPS = 7, 9, 8, 8


@pytest.fixture(autouse=True)
def switches() -> Iterator[None]:
    switch(condition(NEOX), 1, 1)
    yield
    switch(condition(GPT), 1, 1)


def made(model: dict[str, Any], **engine: Any) -> Condition:
    training = {"steps": STEPS, "batch_size": BATCH} | engine.pop("training", {})
    optimizer = OPTIMIZER | engine.pop("optimizer", {})
    return condition(model, optimizer=optimizer, training=training, engine={"name": "accelerate", **engine})


def engine_for(spec: Condition, *seeds: int, first_answer: int = 0) -> ModuleEngine:
    return ModuleEngine(spec, Shape(VOCABULARY, LENGTH, first_answer), streams(*seeds))


def batch(step: int, *seeds: int, first_answer: int = 0) -> tuple[np.ndarray, np.ndarray]:
    inputs = np.stack([s.data(step).integers(0, VOCABULARY, size=(BATCH, LENGTH)) for s in streams(*seeds)])
    targets = np.where(np.arange(LENGTH) < first_answer, IGNORE, (inputs * 3 + step) % VOCABULARY)
    targets[:, ::3, -1] = IGNORE
    return inputs, targets


def trained(spec: Condition, *seeds: int, steps: int = STEPS, first_answer: int = 0) -> dict[str, torch.Tensor]:
    """Return the state after some steps, and the losses of each."""
    with closing(engine_for(spec, *seeds, first_answer=first_answer)) as engine:
        losses = []
        for step in range(steps):
            engine.train_step(step, *batch(step, *seeds, first_answer=first_answer))
            losses.append(np.stack([engine.losses, engine.grad_norms], axis=1))
        reported = torch.from_numpy(np.stack(losses, axis=1))
        return {name: t.clone() for name, t in engine.state().items()} | {"reported": reported}


def differences(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    return max(float((one[name].double() - two[name].double()).abs().max()) for name in one)


def test_a_pack_a_whole_module_and_plain_pytorch_train_alike() -> None:
    spec = made(GPT, training={"z_loss": 0.0, "steps": 20})
    packed_spec = spec.model_copy(update={"engine": condition(GPT).engine})
    with (
        closing(engine_of(spec, TASK, streams(0, 1))) as whole,
        closing(engine_of(packed_spec, TASK, streams(0, 1))) as packed,
    ):
        assert isinstance(whole, ModuleEngine)
        assert isinstance(packed, PackedEngine)
        mine, theirs = whole.state(), packed.state()
        assert sorted(mine) == sorted(theirs)
        assert all(slice_digest(mine, slot) == slice_digest(theirs, slot) for slot in (0, 1)), (
            "initial weights, bit for bit"
        )
        oracle = plain.build(spec.model, len(TASK.vocabulary), TASK.length)  # type: ignore[arg-type]
        oracle.load_state_dict({n: theirs[f"model.{n}"][1].clone() for n, _ in oracle.named_parameters()})
        curves = _curves(spec, whole, packed, oracle)
    np.testing.assert_allclose(curves[:, 0], curves[:, 1], rtol=2e-5)
    np.testing.assert_allclose(curves[:, 0], curves[:, 2], rtol=2e-5)
    assert curves[-1, 0] < curves[0, 0]


def crew_of_two() -> Crew:
    claims = [
        Attempt(run_id=f"r{slot}", attempt=1, pack_id="p", resumed_step=-1, resumed_pack="", spec={}) for slot in (0, 1)
    ]
    return Crew("p", [Member(slot, attempt) for slot, attempt in enumerate(claims)])


def _curves(spec: Condition, whole: ModuleEngine, packed: PackedEngine, oracle: torch.nn.Module) -> np.ndarray:
    batches = [Batches(TASK, streams(0, 1), BATCH, crew_of_two()) for _ in range(2)]
    gains = [p for n, p in oracle.named_parameters() if n.endswith("gain")]
    others = [p for n, p in oracle.named_parameters() if not n.endswith("gain")]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}], betas=(0.9, 0.95)
    )
    curves = []
    for step in range(20):
        one, two = (each.at(step) for each in batches)
        assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)), "batches, bit for bit"
        whole.train_step(step, *one)
        packed.train_step(step, *two)
        logits = oracle(torch.from_numpy(one[0][1]))
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(one[1][1]).flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(oracle.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(spec.optimizer, step, 20)
        optimizer.step()
        curves.append([whole.losses[1], packed.losses[1], loss.item()])
    return np.array(curves)


@pytest.mark.parametrize(
    "options", [{"dropout": 0.25}, {"norm": "layernorm", "positions": "rotary", "tied_head": False}]
)
def test_losses_norms_and_updates_are_those_of_a_pack(options: dict[str, Any]) -> None:
    spec = made(GPT | options, training={"z_loss": 1e-2}, optimizer={"grad_clip_norm": 0.1})
    mine = trained(spec, 3, 1)
    engine = PackedEngine(spec.model_copy(update={"engine": condition(GPT).engine}), VOCABULARY, LENGTH, streams(3, 1))
    losses = []
    for step in range(STEPS):
        engine.train_step(step, *batch(step, 3, 1))
        losses.append(np.stack([engine.losses, engine.grad_norms], axis=1))
    np.testing.assert_allclose(mine.pop("reported").numpy(), np.stack(losses, axis=1), rtol=2e-4)
    assert differences(mine, engine.state()) < 2e-5


@pytest.mark.parametrize("model", [GPT, NEOX, LLAMA, NEOX | {"config": {"tie_word_embeddings": True}}], ids=str)
def test_a_run_does_not_depend_on_its_company_and_goes_on_as_if_never_stopped(model: dict[str, Any]) -> None:
    spec = made(model, training={"z_loss": 1e-3})
    whole = trained(spec, 0, 1, 2)
    alone = trained(spec, 1)
    assert slice_digest(whole, 1) == slice_digest(alone, 0)
    half = trained(spec, 1, steps=STEPS // 2)
    half.pop("reported")
    alone.pop("reported")
    with closing(engine_for(spec, 1)) as engine:
        engine.load(half)
        for step in range(STEPS // 2, STEPS):
            engine.train_step(step, *batch(step, 1))
        assert slice_digest(engine.state(), 0) == slice_digest(alone, 0)


def test_accumulation_recomputation_and_precision() -> None:
    plain_ = trained(made(NEOX), 0)
    assert differences(plain_, trained(made(NEOX, accumulate=4), 0)) < 2e-5
    recomputed = trained(made(NEOX, recompute=True), 0)
    assert slice_digest(plain_, 0) == slice_digest(recomputed, 0), "the same sums, made twice"
    rough = trained(made(NEOX, precision="bf16"), 0)
    assert 1e-5 < differences(plain_, rough) < 0.1
    assert all(t.dtype == torch.float32 for name, t in rough.items() if name != "reported")
    assert slice_digest(rough, 0) == slice_digest(trained(made(NEOX, precision="bf16"), 0), 0)


def test_masks_are_keyed_by_seed_and_step_and_leave_torchs_generator_alone() -> None:
    spec = made(NEOX | {"dropout": 0.3}, accumulate=2, recompute=True)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = trained(spec, 2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert slice_digest(first, 0) == slice_digest(trained(spec, 2), 0)
    assert differences(first, trained(made(NEOX, accumulate=2), 2)) > 1e-3
    same = streams(2)[0]
    assert same.dropout(3).random() == same.dropout(3, 0).random() != same.dropout(3, 4).random()


def test_evaluation_counts_answers_alone_and_does_not_depend_on_the_sets_size() -> None:
    spec = made(NEOX | {"dropout": 0.5})
    inputs, targets = (np.concatenate([batch(s, 0, first_answer=2)[i] for s in range(3)], axis=1) for i in (0, 1))
    with closing(engine_for(spec, 0, first_answer=2)) as engine:
        predicted, losses = engine.evaluate(inputs, targets)
        few_predicted, few = engine.evaluate(inputs[:, :11], targets[:, :11])
        module = engine._replicas[0].layout.whole.eval()
        with torch.no_grad():
            logits = module.model(input_ids=torch.from_numpy(inputs[0])).logits
    assert (losses[:, :, :2] == 0).all()
    assert (losses[targets == IGNORE] == 0).all()
    assert np.array_equal(few, losses[:, :11])
    assert np.array_equal(few_predicted, predicted[:, :11])
    expected = F.cross_entropy(
        logits.transpose(1, 2), torch.from_numpy(targets[0]), ignore_index=IGNORE, reduction="none"
    )
    np.testing.assert_allclose(losses[0], expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.array_equal(predicted[0][:, 2:], logits.argmax(-1)[:, 2:].numpy())


def test_a_run_that_diverges_stays_where_it_was_and_its_neighbour_goes_on() -> None:
    spec = made(NEOX)
    with closing(engine_for(spec, 0, 1)) as engine:
        state = {name: t.clone() for name, t in engine.state().items()}
        state["model.gpt_neox.layers.0.mlp.dense_h_to_4h.weight"][0] = float("inf")
        engine.load(state)
        for step in range(3):
            engine.train_step(step, *batch(step, 0, 1))
        assert engine.diverged_at.tolist() == [0, -1]
        assert not np.isfinite(engine.losses[0])
        after = engine.state()
    assert slice_digest(after, 0) == slice_digest(state, 0)
    alone = trained(spec, 1, steps=3)
    alone.pop("reported")
    assert slice_digest(after, 1) == slice_digest(alone, 0)


def test_nothing_is_clipped_where_the_spec_says_so() -> None:
    free = trained(made(NEOX, optimizer={"grad_clip_norm": None}), 0)
    tight = trained(made(NEOX, optimizer={"grad_clip_norm": 1e-3}), 0)
    assert differences(free, tight) > 1e-4
    assert torch.equal(free["reported"][:, 0], tight["reported"][:, 0]), "the norm before clipping is what is told"
