"""Models of the library and engines in a study file: what they stand for, what is refused, and ids that stay."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StudyError
from jobs.identity import canonical_json, cohort_digest, condition_spec, parse_run_spec
from jobs.model_sizes import SIZES
from jobs.spec import AccelerateSpec, DeepSpeedSpec, HuggingFaceSpec, PackedSpec
from jobs.study import Study
from jobs.study_file import parse_study, read_study

STUDIES = Path(__file__).parents[2] / "jobs" / "studies"
LINES = {
    "study": "tiny",
    "task": "{name: parity, bits: 6, subset: 2, test_size: 32}",
    "model": "{huggingface: gpt_neox, layers: 1, width: 8, heads: 2}",
    "optimizer": "{learning_rate: 3e-3}",
    "training": "{steps: 12, batch_size: 8}",
    "seeds": "{design: paired, count: 2}",
}


def study(**changed: str) -> Study:
    lines = LINES | changed
    return parse_study("\n".join(f"{key}: {value}" for key, value in lines.items()), "tiny.yaml", Path())


def faults(**changed: str) -> str:
    with pytest.raises(StudyError) as raised:
        study(**changed)
    return str(raised.value)


def test_ids_of_models_that_were_there_before_stay_as_they_were() -> None:
    demo = read_study(STUDIES / "demo.yaml")
    assert demo.runs[0].id == "r1-9a6d9342ca82175d6978"
    assert cohort_digest([run.id for run in demo.runs])[:16] == "3de4a9eb97ec47d4"
    named = study(model="{family: gpt, layers: 1, width: 8, heads: 2}", engine="{name: packed}")
    plain = study(model="{family: gpt, layers: 1, width: 8, heads: 2}")
    assert [run.id for run in named.runs] == [run.id for run in plain.runs]
    assert "engine" not in plain.points[0].spec


def test_a_model_has_the_engine_of_its_kind() -> None:
    assert study().points[0].condition.engine == AccelerateSpec()
    own = "{family: gpt, layers: 1, width: 8, heads: 2}"
    assert study(model=own).points[0].condition.engine == PackedSpec()
    assert study(model=own, engine="{processes: 2}").points[0].condition.engine == AccelerateSpec(processes=2)
    zero = study(engine="{name: deepspeed, stage: 2, processes: 2}").points[0].condition.engine
    assert zero == DeepSpeedSpec(name="deepspeed", stage=2, processes=2)


def test_offload_is_a_part_of_the_id_and_no_offload_is_what_it_was() -> None:
    plain, moved = (study(engine=f"{{name: deepspeed, stage: 2{more}}}").points[0] for more in ("", ", offload: true"))
    assert "offload" not in plain.spec["engine"]
    assert moved.spec["engine"]["offload"] is True
    assert plain.id != moved.id


def test_what_changes_numbers_changes_the_id_and_may_be_a_factor() -> None:
    made = study(grid="{engine.precision: [float32, bf16], engine.processes: [1, 2]}")
    assert len({point.id for point in made.points}) == 4
    assert {point.condition.engine.precision for point in made.points} == {"float32", "bf16"}  # type: ignore[union-attr]
    assert study(engine="{name: accelerate}").runs[0].id == study().runs[0].id, "what is not said is written out"


@pytest.mark.parametrize(
    "engine", ["{name: packed}", "{name: accelerate, accumulate: 2}", "{name: deepspeed, stage: 3, offload: true}"]
)
def test_a_stored_spec_is_read_back_as_it_was(engine: str) -> None:
    own = "{family: gpt, layers: 1, width: 8, heads: 2}"
    run = study(model=own, engine=engine).runs[0]
    condition, seeds, _ = parse_run_spec(run.spec)
    assert condition == run.point.condition
    assert seeds == run.seeds
    assert canonical_json(condition_spec(condition)) == canonical_json(run.point.spec)


@pytest.mark.parametrize("size", SIZES)
def test_a_named_size_is_its_numbers(size: str) -> None:
    named = study(model=f"{{huggingface: gpt_neox, size: {size}}}")
    model = named.points[0].condition.model
    assert isinstance(model, HuggingFaceSpec)
    assert SIZES[size] == {"layers": model.layers, "width": model.width, "heads": model.heads}
    numbers = f"{{huggingface: gpt_neox, layers: {model.layers}, width: {model.width}, heads: {model.heads}}}"
    assert study(model=numbers).runs[0].id == named.runs[0].id


def test_sizes_are_a_factor_and_two_names_of_one_model_are_told() -> None:
    made = study(model="{huggingface: gpt_neox, size: pythia-14m}", grid="{model.size: [pythia-14m, pythia-31m]}")
    widths = [point.condition.model.width for point in made.points]
    assert widths == [128, 256]
    assert "duplicate condition" in faults(
        model="{huggingface: gpt_neox, size: pythia-14m}", grid="{model.size: [pythia-14m, pythia-14m]}"
    )


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        (
            {"model": "{huggingface: gpt_neox, size: pythia-15m}"},
            "no size is called 'pythia-15m'; there are pythia-14m",
        ),
        ({"model": "{huggingface: llama, size: pythia-14m}"}, "is one of huggingface: gpt_neox"),
        ({"model": "{huggingface: gpt_neox, size: pythia-14m, width: 8}"}, "says width: give one or the other"),
        ({"model": "{huggingface: gpt_neox, layers: 1, width: 9, heads: 2}"}, "width 9 is not a multiple of heads 2"),
        (
            {"model": "{huggingface: gpt_neox, layers: 1, widht: 8, heads: 2}"},
            "model.widht: unknown key; did you mean 'width'",
        ),
        ({"model": "{layers: 1, width: 8, heads: 2}"}, "a model is `family: gpt`"),
        ({"model": "{family: gtp, layers: 1, width: 8, heads: 2}"}, "a model is `family: gpt`"),
        ({"engine": "{name: packed}"}, "for huggingface it is accelerate or deepspeed"),
        ({"engine": "{processes: 3}"}, "batch_size 8 is not a multiple of processes × accumulate = 3"),
        ({"engine": "{precison: bf16}"}, "engine.precison: unknown key; did you mean 'precision'"),
        ({"engine": "{precision: fp8}"}, "engine.precision:"),
        ({"engine": "{threads: 3}"}, "threads is a power of two, not 3"),
        ({"engine": "{name: deepspeed}"}, "engine.stage: is required"),
        ({"engine": "{name: megatron}"}, "engine"),
        (
            {"engine": "{recompute: true}", "model": "{family: gpt, layers: 1, width: 8, heads: 2}"},
            "engine.recompute is for huggingface models",
        ),
    ],
    ids=str,
)
def test_faults_are_told_with_their_key(changed: dict[str, Any], expected: str) -> None:
    assert expected in faults(**changed)


def test_a_run_on_several_nodes_has_as_many_processes_on_each() -> None:
    spread = study(engine="{processes: 4}", execution="{nodes: 2}")
    assert spread.settings.execution.nodes == 2
    assert [run.id for run in spread.runs] == [run.id for run in study(engine="{processes: 4}").runs]
    told = faults(engine="{processes: 4}", execution="{nodes: 3}")
    assert "execution.nodes: 4 processes are not as many on each of 3 nodes" in told
    own = "{family: gpt, layers: 1, width: 8, heads: 2}"
    assert "a run of engine packed lies on one node" in faults(model=own, execution="{nodes: 2}")
