"""The packed engine: bits that do not depend on the pack, divergence that stays in its slot, exact resumption."""

from typing import Any

import numpy as np
import pytest
import torch

from jobs.claims import environment_digest
from jobs.tasks import IGNORE
from tests.workers.test_models import GPT_OPTIONS, condition, streams
from workers.checkpoint import slice_digest
from workers.determinism import fingerprint, make_deterministic
from workers.engines.packed import PackedEngine

ODD = {"family": "gpt", "layers": 2, "width": 12, "heads": 3, "feedforward_multiple": 3}
FAMILIES = [
    *({"family": "gpt", "layers": 2, "width": 16, "heads": 2, **options} for options in GPT_OPTIONS),
    ODD,
    {**ODD, "activation": "swiglu", "dropout": 0.1},
    {"family": "mlp", "layers": 2, "width": 13, "activation": "gelu"},
    {"family": "mlp", "layers": 1, "width": 32, "activation": "tanh", "dropout": 0.1},
    {"family": "lstm", "layers": 2, "width": 16, "dropout": 0.1},
    {"family": "lstm", "layers": 1, "width": 12, "tied_head": False},
]
VOCABULARY, STEPS = 5, 4


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Any:
    yield
    make_deterministic(1, 1)


def digests(
    model: dict[str, Any], seeds: list[int], threads: int, batch: int = 7, length: int = 9, first_answer: int = 0
) -> dict[int, str]:
    """Return seed → SHA-256 of weights and moments after some steps and an evaluation."""
    make_deterministic(threads, len(seeds))
    runs = streams(*seeds)
    spec = condition(model, optimizer={"learning_rate": 3e-3}, training={"steps": STEPS, "batch_size": batch})
    engine = PackedEngine(spec, VOCABULARY, length, runs, "cpu", first_answer)
    first = length - 1 if model["family"] == "mlp" else first_answer
    for step in range(STEPS):
        inputs = np.stack([run.data(step).integers(0, VOCABULARY, size=(batch, length)) for run in runs])
        targets = np.where(np.arange(length) < first, IGNORE, (inputs * 3 + step) % VOCABULARY)
        engine.train_step(step, inputs, targets)
    predicted, losses = engine.evaluate(inputs, targets)
    state = engine.state() | {
        "predicted": torch.from_numpy(predicted),
        "losses": torch.from_numpy(losses),
        "reported": torch.from_numpy(np.stack([engine.losses, engine.grad_norms], axis=1)),
    }
    return {seed: slice_digest(state, slot) for slot, seed in enumerate(seeds)}


@pytest.mark.parametrize("model", FAMILIES, ids=lambda m: "-".join(map(str, m.values())))
def test_a_runs_bits_do_not_depend_on_width_slot_or_threads(model: dict[str, Any]) -> None:
    alone = digests(model, [3], threads=1)[3]
    for seeds in ([3, 1], [0, 1, 3], [5, 4, 3, 2, 1, 0, 6, 7], list(range(16))):
        for threads in (1, 2):
            assert digests(model, seeds, threads)[3] == alone, (seeds, threads)
    assert digests(model, [3], threads=2)[3] == alone


@pytest.mark.parametrize(
    ("batch", "length", "first_answer"), [(1, 5, 0), (64, 13, 12), (33, 11, 7), (128, 32, 0), (5, 27, 0), (3, 40, 0)]
)
def test_the_same_for_shapes_small_odd_and_large(batch: int, length: int, first_answer: int) -> None:
    model = {"family": "gpt", "layers": 1, "width": 20, "heads": 2}
    shape = {"batch": batch, "length": length, "first_answer": first_answer}
    alone = digests(model, [3], 1, **shape)[3]
    for seeds, threads in (([0, 3], 2), ([4, 3, 2, 1, 0], 1), ([4, 3, 2, 1, 0], 2)):
        assert digests(model, seeds, threads, **shape)[3] == alone, (seeds, threads)


def test_different_seeds_end_differently() -> None:
    assert len(set(digests(FAMILIES[0], list(range(8)), 1).values())) == 8


def _engine(runs: int, **optimizer: Any) -> PackedEngine:
    spec = condition(ODD, optimizer={"learning_rate": 1e-2, **optimizer})
    return PackedEngine(spec, VOCABULARY, 6, streams(*range(runs)), "cpu")


def _batch(runs: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(step)
    inputs = np.broadcast_to(generator.integers(0, VOCABULARY, size=(1, 5, 6)), (runs, 5, 6)).copy()
    return inputs, (inputs + 1) % VOCABULARY


def test_a_diverged_run_keeps_its_last_weights_and_its_neighbours_their_bits() -> None:
    calm, struck = _engine(3), _engine(3)
    for step in range(6):
        if step == 2:
            with torch.no_grad():
                struck.values["blocks.0.attention.qkv"][1] = float("inf")
        for engine in (calm, struck):
            engine.train_step(step, *_batch(3, step))
        if step == 2:
            at_divergence = {name: tensor[1].clone() for name, tensor in struck.state().items()}
    assert struck.diverged_at.tolist() == [-1, 2, -1]
    assert calm.diverged_at.tolist() == [-1, -1, -1]
    for name, tensor in struck.state().items():
        assert torch.equal(tensor[1], at_divergence[name])
        assert torch.equal(tensor[[0, 2]], calm.state()[name][[0, 2]])


def test_training_goes_on_from_a_state_made_of_slices_of_several_packs() -> None:
    whole = _engine(4)
    parts = [_engine(4), _engine(4)]
    for step in range(6):
        whole.train_step(step, *_batch(4, step))
        if step < 3:
            for part in parts:
                part.train_step(step, *_batch(4, step))
    mixed = PackedEngine(condition(ODD, optimizer={"learning_rate": 1e-2}), VOCABULARY, 6, streams(3, 0), "cpu")
    states = [part.state() for part in parts]
    mixed.load({name: torch.stack([states[0][name][3], states[1][name][0]]) for name in states[0]})
    for step in range(3, 6):
        mixed.train_step(step, *_batch(2, step))
    for name, tensor in mixed.state().items():
        assert torch.equal(tensor, whole.state()[name][[3, 0]])


def test_each_runs_gradient_is_clipped_by_its_own_norm() -> None:
    free, clipped = _engine(3, grad_clip_norm=None), _engine(3, grad_clip_norm=0.05)
    for engine in (free, clipped):
        engine.train_step(0, *_batch(3, 0))
    assert np.array_equal(free.grad_norms, clipped.grad_norms), "norms are those before clipping"
    assert (free.grad_norms > 0.05).all()
    scale = torch.from_numpy(0.05 / free.grad_norms).float()[:, None]
    torch.testing.assert_close(clipped.optimizer.gradients, free.optimizer.gradients * scale)


def test_threads_are_a_power_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        make_deterministic(3, 8)


def test_the_fingerprint_names_what_numbers_depend_on_and_not_the_threads() -> None:
    make_deterministic(1, 1)
    one = fingerprint("cpu")
    make_deterministic(2, 2)
    assert fingerprint("cpu") == one
    assert {"python", "torch", "numpy", "blas", "cpu", "flags", "capability", "source", "commit", "switches"} <= set(
        one.facts
    )
    older = {**one.facts, "torch": "1.0", "commit": "another"}
    assert one.differences(older) == f"torch was '1.0' and is {one.facts['torch']!r}"
    assert environment_digest(older) != one.digest
    assert environment_digest({**one.facts, "commit": "another"}) == one.digest, "the source says it more exactly"
