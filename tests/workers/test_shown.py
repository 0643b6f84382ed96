"""What whole modules show of their layers and heads: the same as a pack, and no trace of it in training."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.errors import ModelError, StudyError
from jobs.spec import Condition, GptSpec
from jobs.store import open_store
from jobs.study_file import parse_study
from jobs.tasks.task import Mean, Trees
from orchestrator.library import Library
from orchestrator.verify import verify
from tests.bitwise.drives import one_command, same_in_packs_and_after_a_kill
from tests.workers.test_forks import PARENTS
from tests.workers.test_models import condition, streams
from tests.workers.test_modules import LENGTH, NEOX, VOCABULARY, batch, engine_for, made, switches
from workers.attention_trees import Look, tree_measures
from workers.checkpoint import slice_digest
from workers.engines import Engine
from workers.engines.packed import PackedEngine
from workers.similarity import similarities
from workers.transformers_form import EXACT, as_transformers

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
__all__ = ["switches"]

GPT = {"family": "gpt", "layers": 2, "width": 16, "heads": 4}
CAUSAL = ["gpt_neox", "llama", "gpt2", "opt", "qwen2", "mistral", "phi"]
MASKED = ["bert", "electra", "modernbert"]
# What a model of the library is told to be the same mathematics as a gpt of ours.
SAME: dict[str, dict[str, Any]] = {
    "llama": {"rms_norm_eps": 1e-5},
    "gpt_neox": {
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 1.0},
    },
    "gpt2": {"layer_norm_epsilon": 1e-5, "activation_function": "gelu"},
}


def packed_for(spec: Condition, first_answer: int = 0) -> PackedEngine:
    spec = spec.model_copy(update={"engine": condition(GPT).engine})
    return PackedEngine(spec, VOCABULARY, LENGTH, streams(3, 1), first_answer=first_answer)


def items(count: int = 300) -> np.ndarray:
    return np.random.default_rng(2).integers(0, VOCABULARY, size=(2, count, LENGTH))


def known_trees(count: int) -> Trees:
    """Return sentences whose words depend on any other word, the last place being none."""
    generator = np.random.default_rng(4)
    heads, relations = (generator.integers(0, most, size=(count, LENGTH)) for most in (LENGTH - 1, 3))
    heads[:, -1] = relations[:, -1] = -1
    return Trees(heads, relations)


def measures(engine: Engine) -> dict[str, float]:
    """Return UAS and its like of the first run, and how alike the layers of both runs are."""
    inputs, trees = items(60), known_trees(60)
    look = Look.at([layer[0].numpy() for layer in engine.attention(inputs)], trees.heads)
    found = {
        one.metric: one.value if isinstance(one, Mean) else one.correct
        for one in tree_measures("t", [look], trees, ("a", "b", "c"))
    }
    for number, layer in enumerate(engine.hidden(inputs)):
        found |= {f"{what}.{number}": value for what, value in similarities(layer[0], layer[1]).items()}
    return found


def assert_alike(one: Engine, other: Engine, *, heads: bool) -> None:
    inputs = items()
    for mine, theirs in zip(one.hidden(inputs), other.hidden(inputs), strict=True):
        assert float(mine.std()) > 0.05
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5)
    if heads:
        for mine, theirs in zip(one.attention(inputs[:, :20]), other.attention(inputs[:, :20]), strict=True):
            torch.testing.assert_close(mine.sum(-1), torch.ones(mine.shape[:-1]))
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", sorted(EXACT), ids=EXACT.get)
def test_the_same_weights_show_the_same_in_a_pack_and_as_a_model_of_transformers(options: tuple[str, str, str]) -> None:
    given = dict(zip(("norm", "activation", "positions"), options, strict=True)) | {"tied_head": False}
    packed, kind = packed_for(made(GPT | given)), EXACT[options]
    spec = packed.family.spec  # type: ignore[attr-defined]
    assert isinstance(spec, GptSpec)
    shape = {"layers": spec.layers, "width": spec.width, "heads": spec.heads}
    theirs = {"huggingface": kind, **shape, "config": SAME[kind] | {"tie_word_embeddings": False}}
    with closing(engine_for(made(theirs, accumulate=2), 3, 1)) as whole:
        state = whole.state()
        for slot in (0, 1):
            mine = {n.removeprefix("model."): t[slot] for n, t in packed.state().items() if n.startswith("model.")}
            model = as_transformers(spec, mine, VOCABULARY, LENGTH, None)
            for name, value in model.named_parameters():
                state[f"model.{name}"][slot] = value.detach()
        whole.load(state)
        assert_alike(packed, whole, heads=True)
        assert measures(whole) == pytest.approx(measures(packed), rel=1e-4)


@pytest.mark.parametrize(
    ("model", "first_answer"),
    [
        (GPT, 0),
        (GPT | {"attention": "full", "positions": "rotary", "dropout": 0.3}, 0),
        (GPT, 4),
        ({"family": "lstm", "layers": 2, "width": 12, "dropout": 0.3}, 0),
        ({"family": "lstm", "layers": 2, "width": 12}, 4),
        ({"family": "mlp", "layers": 2, "width": 12, "activation": "gelu", "dropout": 0.3}, LENGTH - 1),
    ],
)
def test_our_own_families_show_the_same_in_a_pack_and_as_plain_modules(
    model: dict[str, Any], first_answer: int
) -> None:
    spec = made(model)
    with closing(engine_for(spec, 3, 1, first_answer=first_answer)) as whole:
        assert_alike(packed_for(spec, first_answer), whole, heads=model["family"] == "gpt" and not first_answer)


@pytest.mark.parametrize("kind", [*CAUSAL, *MASKED])
def test_who_is_looked_at_trains_on_as_if_nobody_had(kind: str) -> None:
    model = NEOX | {"huggingface": kind, "attention": "full" if kind in MASKED else "causal", "dropout": 0.2}
    spec, inputs = made(model, recompute=True), items(20)
    torch.manual_seed(9)
    ends = []
    for looks in (False, True):
        with closing(engine_for(spec, 0, 1)) as engine:
            module: Any = engine._replicas[0].layout.whole.model
            usual, before = module.config._attn_implementation, torch.get_rng_state()
            for step in range(3):
                if looks:
                    layers, maps = engine.hidden(inputs), engine.attention(inputs)
                engine.train_step(step, *batch(step, 0, 1))
            assert torch.equal(torch.get_rng_state(), before)
            assert module.config._attn_implementation == usual
            predicted, losses = engine.evaluate(*(part[:, :5] for part in batch(3, 0, 1)))
            ends.append((slice_digest(engine.state(), 0), predicted.tobytes(), losses.tobytes()))
            if looks:
                layers, maps = engine.hidden(inputs), engine.attention(inputs)
                assert_shown_is_what_the_library_says(module, inputs[0], layers, maps, kind)
    assert ends[0] == ends[1]


def assert_shown_is_what_the_library_says(
    module: Any, inputs: np.ndarray, layers: list[torch.Tensor], maps: list[torch.Tensor], kind: str
) -> None:
    module.eval()
    module.set_attn_implementation("eager")
    with torch.no_grad():
        told = module(input_ids=torch.from_numpy(inputs), output_hidden_states=True, output_attentions=True)
    assert len(layers) == len(maps) == 2
    # Of the last layer the library tells what its last normalisation makes of it.
    torch.testing.assert_close(layers[0][0], told.hidden_states[1].flatten(0, 1), rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(maps, told.attentions, strict=True):
        torch.testing.assert_close(mine[0], theirs, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(mine.sum(-1), torch.ones(mine.shape[:-1]))
        ahead = mine.triu(1).abs().max() > 0
        assert bool(ahead) == (kind in MASKED)


def test_a_model_that_has_no_attention_says_so() -> None:
    """FNet mixes by Fourier transforms."""
    with closing(engine_for(made(NEOX | {"huggingface": "fnet", "attention": "full"}), 0)) as engine:
        assert len(engine.hidden(items(4)[:1])) == 2
        with pytest.raises(ModelError, match="FNetForMaskedLM shows no weights of attention"):
            engine.attention(items(4)[:1])


STUDY = """\
study: trees
task: {name: dependencies, objects: plain, test_size: 30, trees: 70}
model: {huggingface: bert, layers: 2, width: 8, heads: 2, attention: full, dropout: 0.1}
optimizer: {learning_rate: 3e-3}
training: {steps: 8, batch_size: 4, masking: 0.3}
probes: {every: 4}
measure: [attention, linear-probe, weights]
checkpoints: {milestones: [4], rolling: {every: 2}}
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""


def test_rows_of_a_bert_are_the_same_in_any_pack_and_after_a_kill(tmp_path: Path) -> None:
    end = same_in_packs_and_after_a_kill(tmp_path, STUDY)
    rows = {(row["step"], row["metric"]) for row in end[0]}  # type: ignore[index]
    told = {"trees.uas", "trees.tree_attention", "trees.probe.relation.1", "trees.selectivity.relation.0", "weights.l2"}
    assert {(step, metric) for step in (0, 4, 8) for metric in told} <= rows
    calm = one_command(
        tmp_path / "unseen" / "store", STUDY.replace("measure: [attention, linear-probe, weights]\n", "")
    )
    ends = [row["sha256"] for row in calm["checkpoints"].to_pylist() if row["step"] == 8]
    assert sorted(ends) == sorted(sha256 for _, step, sha256 in end[1] if step == 8), "looking changes no bit"  # type: ignore[index]


def test_rows_of_a_gpt_are_those_of_a_pack(tmp_path: Path) -> None:
    own = STUDY.replace("huggingface: bert,", "family: gpt,").replace(", dropout: 0.1", "")
    first = []
    for name, text in (("packed", own), ("whole", own.replace("probes:", WHOLE + "probes:"))):
        tables = one_command(tmp_path / name, text)
        seeds = {run["run_id"]: run["seed_init"] for run in tables["runs"].to_pylist()}
        rows = [row for row in tables["metrics"].to_pylist() if row["step"] == 0]
        first.append({(seeds[row["run_id"]], row["metric"]): row["value"] for row in rows})
    assert {(seed, f"trees.{what}") for seed in (0, 1) for what in ("uas", "probe.relation.1")} <= set(first[0])
    assert first[1] == pytest.approx(first[0], rel=1e-3, abs=1e-4)


LINES = """\
study: lines
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 2, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 6, batch_size: 8}
measure: [similarity]
fork: {study: parents.yaml, steps: [last], moments: zero, line: {pairs: all, points: 3}}
seeds: {design: paired, count: 1}
"""
WHOLE = "engine: {name: accelerate}\n"
NEOX_MODEL = "model: {huggingface: gpt_neox, layers: 2, width: 8, heads: 2}"
GPT_MODEL = "model: {family: gpt, layers: 2, width: 8, heads: 2}"


def likeness(tables: dict[str, Any]) -> list[dict[str, float]]:
    """Return what each run on a line measured of its likeness to the other end, in an order that knows no ids."""
    found: dict[str, dict[str, float]] = {}
    for row in tables["metrics"].to_pylist():
        if "cka" in row["metric"] or "svcca" in row["metric"]:
            found.setdefault(row["run_id"], {})[row["metric"]] = row["value"]
    return sorted(found.values(), key=lambda one: one["heldout.cka.0"])


def test_whole_modules_are_compared_with_the_other_end_of_a_line_as_packs_are(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    one_command(tmp_path / "store", PARENTS)
    packed = likeness(one_command(tmp_path / "store", LINES))
    whole = likeness(one_command(tmp_path / "store", LINES.replace("study: lines\n", "study: wholes\n" + WHOLE)))
    assert len(packed) == len(whole) == 3
    for one, other in zip(packed, whole, strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert whole[-1] == pytest.approx(dict.fromkeys(whole[-1], 1.0), abs=1e-9)


def test_models_of_transformers_are_compared_on_a_line(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS.replace(GPT_MODEL, NEOX_MODEL))
    one_command(tmp_path / "store", PARENTS.replace(GPT_MODEL, NEOX_MODEL))
    found = likeness(one_command(tmp_path / "store", LINES.replace(GPT_MODEL, NEOX_MODEL)))
    assert [sorted(one) for one in found] == [
        ["heldout.cka.0", "heldout.cka.1", "heldout.svcca.0", "heldout.svcca.1"]
    ] * 3
    assert found[-1] == pytest.approx(dict.fromkeys(found[-1], 1.0), abs=1e-9)
    assert all(value < 1 for value in found[0].values())
    library = Library(open_store(tmp_path / "store"))
    assert verify(library.store, library.declared("lines"), spans=3).findings == []


def test_two_models_are_compared_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "parents.yaml").write_text(PARENTS)
    for engine in ("{name: accelerate, processes: 2}", "{name: deepspeed, stage: 1}"):
        with pytest.raises(StudyError, match="similarity holds both models in one process"):
            parse_study(LINES + f"engine: {engine}\n", "lines.yaml", tmp_path)
