"""Sharpness-aware updates: by hand on quadratics, against a plain module, and bits that do not depend on the pack."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from jobs.errors import StudyError
from jobs.identity import condition_spec
from jobs.store import open_store
from jobs.study_file import parse_study
from jobs.tasks import IGNORE
from tests.bitwise.drives import one_command, same_in_packs_and_after_a_kill
from tests.workers.test_models import condition, streams
from workers.checkpoint import slice_digest
from workers.determinism import make_deterministic
from workers.engines import MODEL
from workers.engines.packed import PackedEngine
from workers.models.plain import build
from workers.optimizer import CHUNK
from workers.replay import replay
from workers.sharpness import TRUST, divergence, uphill

GPT = {"family": "gpt", "layers": 2, "width": 12, "heads": 3, "feedforward_multiple": 3}
MLP = {"family": "mlp", "layers": 2, "width": 13, "activation": "gelu"}
VOCABULARY, LENGTH, BATCH, STEPS = 5, 6, 7, 4
SAM = {"sharpness_radius": 0.5}
TRAM = {"sharpness_radius": 50.0, "trust_region_noise": 0.3}
PREVIOUS = {"sharpness_radius": 50.0, "trust_region": "previous"}
START = {"sharpness_radius": 5.0, "trust_region": "start"}


@pytest.fixture(autouse=True)
def one_thread_afterwards() -> Any:
    yield
    make_deterministic(1, 1)


def spec(model: dict[str, Any], **optimizer: Any) -> Any:
    training = {"steps": STEPS, "batch_size": BATCH}
    return condition(model, optimizer={"learning_rate": 1e-2, **optimizer}, training=training)


def engine(model: dict[str, Any], seeds: list[int], threads: int = 1, **optimizer: Any) -> PackedEngine:
    make_deterministic(threads, len(seeds))
    return PackedEngine(spec(model, **optimizer), VOCABULARY, LENGTH, streams(*seeds), "cpu")


def batch(model: dict[str, Any], seeds: list[int], step: int) -> tuple[np.ndarray, np.ndarray]:
    rows = [run.data(step).integers(0, VOCABULARY, size=(BATCH, LENGTH)) for run in streams(*seeds)]
    inputs = np.stack(rows)
    first = LENGTH - 1 if model is MLP else 2
    return inputs, np.where(np.arange(LENGTH) < first, IGNORE, (inputs * 3 + step) % VOCABULARY)


def digests(model: dict[str, Any], seeds: list[int], threads: int = 1, **optimizer: Any) -> dict[int, str]:
    made = engine(model, seeds, threads, **optimizer)
    for step in range(STEPS):
        made.train_step(step, *batch(model, seeds, step))
    state = made.state() | {"said": torch.from_numpy(np.stack([made.losses, made.grad_norms], axis=1))}
    return {seed: slice_digest(state, slot) for slot, seed in enumerate(seeds)}


def test_on_a_quadratic_the_gradient_is_that_at_the_edge_of_the_ball() -> None:
    """L = (a x² + b y²) / 2: at w + ρ g/‖g‖ its gradient is (a (x + ρ g₁/‖g‖), b (y + ρ g₂/‖g‖))."""
    curvature = torch.zeros(2, CHUNK)
    curvature[0, :2], curvature[1, :2] = torch.tensor([1.0, 9.0]), torch.tensor([4.0, 0.0])
    weights = torch.zeros(2, CHUNK)
    weights[0, :2], weights[1, :2] = torch.tensor([4.0, 1 / 3]), torch.tensor([-1.0, 7.0])
    before, gradients = weights.clone(), curvature * weights  # (4, 3) of norm 5, and (-4, 0) of norm 4
    norms, radii = gradients.norm(dim=1), torch.tensor([0.5, 0.25])
    with uphill(weights, gradients, norms, radii):
        sharp = curvature * weights
    torch.testing.assert_close(sharp[0, :2], torch.tensor([4 + 0.5 * 0.8, 3 + 9 * 0.5 * 0.6]))
    torch.testing.assert_close(sharp[1, :2], torch.tensor([-4 - 4 * 0.25, 0.0]))
    assert torch.equal(weights, before), "the weights are what they were, to the bit"


def test_weights_are_put_back_after_an_error_and_where_there_is_no_gradient() -> None:
    weights, nothing = torch.ones(1, CHUNK), torch.zeros(1, CHUNK)
    with uphill(weights, nothing, torch.zeros(1), torch.ones(1)):
        assert torch.equal(weights, torch.ones(1, CHUNK))
    with pytest.raises(RuntimeError), uphill(weights, torch.ones(1, CHUNK), torch.ones(1), torch.ones(1)):
        raise RuntimeError
    assert torch.equal(weights, torch.ones(1, CHUNK))


@pytest.mark.parametrize("model", [GPT, MLP], ids=["gpt", "mlp"])
def test_an_update_follows_the_gradient_that_a_plain_module_has_at_the_edge(model: dict[str, Any]) -> None:
    seeds = [3, 1]
    made = engine(model, seeds, **SAM, grad_clip_norm=None)
    start = {name: tensor.clone() for name, tensor in made.state().items()}
    inputs, targets = batch(model, seeds, 0)
    made.train_step(0, inputs, targets)
    for slot in range(len(seeds)):
        plain = build(made_spec := spec(model).model, VOCABULARY, LENGTH)
        assert made_spec.family == model["family"]
        plain.load_state_dict({n.removeprefix(MODEL): t[slot] for n, t in start.items() if n.startswith(MODEL)})
        weights = dict(plain.named_parameters())
        at_weights = gradient_of(plain, inputs[slot], targets[slot], model)
        norm = torch.sqrt(sum((g.double() ** 2).sum() for g in at_weights.values()))
        with torch.no_grad():
            for name, weight in weights.items():
                weight += (0.5 / norm * at_weights[name]).float()
        sharp = gradient_of(plain, inputs[slot], targets[slot], model)
        found = {name: view[slot] for name, view in zip(made.values, made._gradients, strict=True)}
        for name, gradient in sharp.items():
            torch.testing.assert_close(found[name], gradient, rtol=2e-4, atol=2e-6)
        assert any((sharp[name] - at_weights[name]).abs().max() > 1e-3 for name in sharp), "the radius matters here"
        followed = torch.sqrt(sum((g.double() ** 2).sum() for g in sharp.values()))
        assert made.grad_norms[slot] == pytest.approx(float(followed), rel=1e-4)


def gradient_of(
    plain: torch.nn.Module, inputs: np.ndarray, targets: np.ndarray, model: dict[str, Any]
) -> dict[str, torch.Tensor]:
    asked = torch.from_numpy(targets[:, -1:] if model is MLP else targets)
    loss = F.cross_entropy(plain(torch.from_numpy(inputs)).flatten(0, 1), asked.flatten(), ignore_index=IGNORE)
    weights = dict(plain.named_parameters())
    return dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))


@pytest.mark.parametrize("model", [GPT, MLP, {**GPT, "dropout": 0.2}], ids=["gpt", "mlp", "dropout"])
def test_a_radius_of_zero_is_the_plain_optimiser_to_the_bit(model: dict[str, Any]) -> None:
    plain = digests(model, [3, 1])
    assert digests(model, [3, 1], sharpness_radius=0.0) == plain
    late = {"piecewise": [[0, 0.0], [STEPS, 0.5]]}
    assert digests(model, [3, 1], sharpness_radius=late) == plain, "nor before its step has come"
    assert digests(model, [3, 1], **SAM) != plain


@pytest.mark.parametrize(
    ("model", "method"),
    [
        *((GPT, SAM), (MLP, SAM), ({**GPT, "dropout": 0.2}, SAM)),
        *((GPT, TRAM), ({**GPT, "dropout": 0.2}, TRAM)),
        *((MLP, PREVIOUS), ({**GPT, "dropout": 0.2}, PREVIOUS), ({**GPT, "dropout": 0.2}, START)),
    ],
    ids=["gpt", "mlp", "dropout", "tram", "tram-dropout", "previous-mlp", "previous", "start"],
)
def test_a_runs_bits_do_not_depend_on_the_pack(model: dict[str, Any], method: dict[str, Any]) -> None:
    alone = digests(model, [3], **method)[3]
    for seeds in ([3, 1], [0, 1, 3], [5, 4, 3, 2, 1, 0, 6, 7]):
        for threads in (1, 2):
            assert digests(model, seeds, threads, **method)[3] == alone, (seeds, threads)


def test_a_run_that_diverges_uphill_keeps_its_weights_and_its_neighbours_their_bits() -> None:
    calm, struck = engine(GPT, [0, 1, 2], **SAM), engine(GPT, [0, 1, 2], **SAM)
    for step in range(3):
        if step == 1:
            with torch.no_grad():
                struck.values["blocks.0.attention.qkv"][1] = float("inf")
        for each in (calm, struck):
            each.train_step(step, *batch(GPT, [0, 1, 2], step))
    assert struck.diverged_at.tolist() == [-1, 1, -1]
    for name, tensor in struck.state().items():
        assert torch.equal(tensor[[0, 2]], calm.state()[name][[0, 2]])


def test_divergence_is_kl_over_what_is_asked() -> None:
    plain = torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]).log()[None]  # [run, batch, answers, token]
    noisy = torch.tensor([[[0.25, 0.75], [0.1, 0.9]]]).log()[None]
    by_hand = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    found = divergence(noisy, plain, torch.tensor([[[1.0, 0.0]]]))
    assert found.tolist() == pytest.approx([by_hand])
    assert divergence(plain, plain, torch.tensor([[[0.5, 0.5]]])).tolist() == [0.0]


def test_a_trust_region_scales_the_radius_by_how_much_answers_change() -> None:
    made = engine(GPT, [3, 1], **TRAM)
    inputs, targets = (torch.from_numpy(rows) for rows in batch(GPT, [3, 1], 0))
    small, large = (
        engine(GPT, [3, 1], sharpness_radius=1.0, trust_region_noise=spread)._trust(0, inputs, targets)
        for spread in (0.01, 0.1)
    )
    assert (small > 0).all()
    assert (large / small).tolist() == pytest.approx([100, 100], rel=0.3), "KL grows as the square of small noise"
    distance = made._trust(0, inputs, targets)
    assert distance[0] != distance[1]
    same = engine(GPT, [3, 1], sharpness_radius=TRAM["sharpness_radius"] * float(distance[0]))
    for each in (made, same):
        each.train_step(0, *batch(GPT, [3, 1], 0))
    for tram, sam in zip(made.state().values(), same.state().values(), strict=True):
        torch.testing.assert_close(tram[0], sam[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("region", ["previous", "start"])
@pytest.mark.parametrize("model", [GPT, MLP], ids=["gpt", "mlp"])
def test_the_distance_is_that_of_two_plain_modules_with_earlier_and_present_weights(
    region: str, model: dict[str, Any]
) -> None:
    """KL(p(·|x, v) ‖ p(·|x, w)) over what is asked: v of the update before, or of the beginning (their equation 4)."""
    seeds = [3, 1]
    made = engine(model, seeds, sharpness_radius=1.0, trust_region=region)
    past = [{name: tensor.clone() for name, tensor in made.state().items()}]
    for step in range(3):
        made.train_step(step, *batch(model, seeds, step))
        past.append({name: tensor.clone() for name, tensor in made.state().items()})
    inputs, targets = batch(model, seeds, 3)
    tokens, asked = torch.from_numpy(inputs), torch.from_numpy(targets)[:, :, made.family.first_answer :]
    found = made._trust(3, tokens, asked)
    earlier = past[2] if region == "previous" else past[0]
    for slot in range(len(seeds)):
        before, now = (log_p_of(model, state, slot, inputs[slot]) for state in (earlier, past[3]))
        counted = torch.from_numpy(targets[slot][:, -1:] if model is MLP else targets[slot]) != IGNORE
        by_hand = (before.exp() * (before - now)).sum(-1)[counted].mean()
        assert float(found[slot]) == pytest.approx(float(by_hand), rel=1e-3)
        assert by_hand > 1e-4, "the weights have moved"


def log_p_of(model: dict[str, Any], state: dict[str, torch.Tensor], slot: int, inputs: np.ndarray) -> torch.Tensor:
    plain = build(spec(model).model, VOCABULARY, LENGTH)
    plain.load_state_dict({n.removeprefix(MODEL): t[slot] for n, t in state.items() if n.startswith(MODEL)})
    with torch.no_grad():
        return F.log_softmax(plain(torch.from_numpy(inputs)).double(), dim=-1)


@pytest.mark.parametrize("method", [PREVIOUS, START], ids=["previous", "start"])
def test_what_has_not_moved_is_no_distance_away_and_the_first_update_is_the_plain_one(method: dict[str, Any]) -> None:
    model = {**GPT, "dropout": 0.2}
    made, plain = engine(model, [3, 1], **method), engine(model, [3, 1])
    for step in range(2):
        for one in (made, plain):
            one.train_step(step, *batch(model, [3, 1], step))
        same = [torch.equal(made.state()[name], tensor) for name, tensor in plain.state().items()]
        assert all(same) == (step == 0), step


def test_a_trusted_distance_is_a_factor_of_the_radius() -> None:
    seeds, rows = [3, 1], batch(GPT, [3, 1], 1)
    made = engine(GPT, seeds, **PREVIOUS)
    made.train_step(0, *batch(GPT, seeds, 0))
    inputs, targets = map(torch.from_numpy, rows)
    distance = made._trust(1, inputs, targets)
    same = engine(GPT, seeds, sharpness_radius={"piecewise": [[0, 0.0], [1, 50.0 * float(distance[0])]]})
    same.train_step(0, *batch(GPT, seeds, 0))
    for one in (made, same):
        one.train_step(1, *rows)
    for name, tensor in same.state().items():
        torch.testing.assert_close(made.state()[name][0], tensor[0], rtol=1e-4, atol=1e-6)
    assert distance[0] != distance[1]


def test_earlier_weights_are_those_of_adapters_where_adapters_are_trained() -> None:
    low = {"rank": 2, "alpha": 4.0}
    training = {"steps": STEPS, "batch_size": BATCH, "low_rank": low}
    tuned = condition(GPT, optimizer={"learning_rate": 1e-2, **START}, training=training)
    made = PackedEngine(tuned, VOCABULARY, LENGTH, streams(3, 1), "cpu")
    inputs, targets = batch(GPT, [3, 1], 0)
    for step in range(3):  # A moves after B has
        made.train_step(step, inputs, targets)
    kept = {name.removeprefix(TRUST) for name in made.state() if name.startswith(TRUST)}
    assert kept == {
        name.removeprefix(MODEL) for name in made.state() if name.startswith(MODEL) and ".low_rank." in name
    }
    assert (made._trust(3, torch.from_numpy(inputs), torch.from_numpy(targets)) > 0).all()


STUDY = """\
study: sharp
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 1, width: 8, heads: 2, dropout: 0.1}
optimizer: {learning_rate: 3e-3, sharpness_radius: {linear: [[2, 0.0], [8, 5.0]]}, trust_region_noise: 0.2}
training: {steps: 8, batch_size: 8}
probes: {every: 4}
checkpoints: {milestones: [4], rolling: {every: 2}}
seeds: {design: paired, count: 3}
execution: {pack_width: 3}
"""


@pytest.mark.parametrize("region", ["trust_region_noise: 0.2", "trust_region: previous", "trust_region: start"])
def test_rows_and_bytes_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path, region: str) -> None:
    same_in_packs_and_after_a_kill(tmp_path, STUDY.replace("trust_region_noise: 0.2", region))


TUNED = """\
study: tuned
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 1, width: 8, heads: 2, dropout: 0.1}
optimizer: {learning_rate: 3e-3, sharpness_radius: 5.0, trust_region: start}
training: {steps: 16, batch_size: 8}
probes: {every: 4}
checkpoints: {milestones: [8, 12], rolling: {every: 2}}
fork: {study: sharp.yaml, steps: [8], redraw: [data, init], reinitialise: [head], moments: zero}
seeds: {design: paired, count: 1}
"""


def test_a_fork_is_measured_from_where_it_begins(tmp_path: Path) -> None:
    parents = STUDY.replace("trust_region_noise: 0.2", "trust_region: start").replace(
        "dropout: 0.1}", "dropout: 0.1, tied_head: false}"
    )
    (tmp_path / "sharp.yaml").write_text(parents)
    one_command(tmp_path / "store", parents)
    tables = one_command(tmp_path / "store", TUNED.replace("dropout: 0.1}", "dropout: 0.1, tied_head: false}"))
    assert {one["status"] for one in tables["runs"].to_pylist()} == {"finished"}
    store = open_store(tmp_path / "store")
    for run in (one["run_id"] for one in tables["runs"].to_pylist()):
        for step in (8, 11, 12):
            state = replay(store, run, step).state
            first = replay(store, run, 8).state
            for name in (name for name in state if name.startswith(TRUST)):
                assert torch.equal(state[name], first[MODEL + name.removeprefix(TRUST)]), (name, step)
                assert torch.equal(state[name], state[MODEL + name.removeprefix(TRUST)]) == (step == 8), (name, step)


def test_noise_needs_embeddings() -> None:
    text = (
        "study: s\ntask: {name: parity, bits: 6, subset: 2}\nmodel: {family: mlp, width: 8}\n"
        "training: {steps: 4, batch_size: 8}\n"
        "optimizer: {learning_rate: 1e-2, sharpness_radius: 0.1, trust_region_noise: 0.1}\n"
        "seeds: {design: paired, count: 1}\n"
    )
    with pytest.raises(StudyError, match=r"m\.yaml:5: optimizer\.trust_region_noise: is put on embeddings"):
        parse_study(text, "m.yaml", Path())


def test_what_cannot_be_is_refused_and_what_is_not_asked_changes_no_id() -> None:
    assert "sharpness_radius" not in condition_spec(spec(GPT))["optimizer"]
    assert condition_spec(spec(GPT, **SAM))["optimizer"]["sharpness_radius"] == 0.5
    with pytest.raises(ValidationError, match="which is 0: give it, too"):
        spec(GPT, trust_region_noise=0.1)
    with pytest.raises(ValidationError, match="trust_region scales sharpness_radius, which is 0: give it, too"):
        spec(GPT, trust_region="start")
    with pytest.raises(ValidationError, match="by noise: give one of them"):
        spec(GPT, **TRAM, trust_region="previous")
    with pytest.raises(ValidationError, match="'previous' or 'start'"):
        spec(GPT, **SAM, trust_region="pretrained")
    assert "trust_region" not in condition_spec(spec(GPT, **SAM))["optimizer"]
    assert condition_spec(spec(GPT, **START))["optimizer"]["trust_region"] == "start"
    with pytest.raises(ValidationError, match="accelerate has no second pass"):
        condition(GPT, optimizer={"learning_rate": 1e-2, **SAM}, engine={"name": "accelerate"})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        spec(GPT, sharpness_radius=-0.1)
