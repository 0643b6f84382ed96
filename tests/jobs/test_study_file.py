"""Study files: what they mean, and that every fault is told at once with its line and the near miss."""

import re
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml

from jobs.errors import StudyError
from jobs.identity import run_id
from jobs.seeds import Seeds
from jobs.study import Study
from jobs.study_file import parse_study, read_study

GOOD = """\
study: tiny
question: does it?
task: {name: parity, bits: 6, subset: 2, test_size: 16}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 4, batch_size: 8}
probes: [log2, {every: 3}]
grid:
  model.width: [8, 16]
seeds: {design: paired, count: 3}
"""


def parse(text: str) -> Study:
    return parse_study(dedent(text), "tiny.yaml", Path())


def faults(text: str) -> list[str]:
    with pytest.raises(StudyError) as caught:
        parse(text)
    return [str(fault) for fault in caught.value.faults]


def test_grid_times_seeds_gives_the_runs() -> None:
    study = parse(GOOD)
    assert [point.label for point in study.points] == ["model.width=8", "model.width=16"]
    assert len(study.runs) == 6
    assert len({run.id for run in study.runs}) == 6
    assert [run.seeds.init for run in study.runs] == [0, 1, 2, 0, 1, 2]
    assert study.scale == "model.width"
    for run in study.runs:
        assert run.id == run_id(run.spec)


def test_ids_are_fixed_for_ever() -> None:
    # A change here means that stores of released versions no longer recognise their runs.
    study = parse(GOOD)
    assert study.points[0].id == "c1-1dde352e637bc5a8907d"
    assert study.runs[0].id == "r1-cbb5ed0c497f0fb778b6"


def test_what_is_not_part_of_a_run_does_not_change_its_id() -> None:
    ids = [run.id for run in parse(GOOD).runs]
    for line in (
        "question: another",
        "execution: {pack_width: 7, retries: 0}",
        "success: {metric: heldout.token_accuracy, threshold: 0.5, sustained: 1}",
        "checkpoints: {rolling: {every: 2}}",
    ):
        key = line.partition(":")[0]
        kept = [row for row in GOOD.splitlines() if not row.startswith(key + ":")]
        assert [run.id for run in parse("\n".join([*kept, line])).runs] == ids, line


@pytest.mark.parametrize(
    "changed",
    ["bits: 7", "layers: 2", "learning_rate: 1e-3", "steps: 5", "batch_size: 9", "probes: pythia", "heads: 4"],
)
def test_what_decides_a_run_changes_its_id(changed: str) -> None:
    key = changed.partition(":")[0]
    text = (
        re.sub(rf"\b{key}: [^,}}\n]+(\}}\])?", changed, GOOD)
        if key != "probes"
        else GOOD.replace("probes: [log2, {every: 3}]", changed)
    )
    assert text != GOOD
    assert not {run.id for run in parse(text).runs} & {run.id for run in parse(GOOD).runs}


def test_more_seeds_and_more_conditions_keep_the_ids_of_what_is_there() -> None:
    before = {run.id for run in parse(GOOD).runs}
    more_seeds = {run.id for run in parse(GOOD.replace("count: 3", "count: 5")).runs}
    more_widths = {run.id for run in parse(GOOD.replace("[8, 16]", "[4, 8, 16]")).runs}
    assert before < more_seeds
    assert before < more_widths
    assert (len(more_seeds), len(more_widths)) == (10, 9)


def test_an_id_does_not_depend_on_where_a_value_is_written() -> None:
    in_grid = {run.id for run in parse(GOOD).runs if run.point.label == "model.width=8"}
    in_base = parse("\n".join(row for row in GOOD.splitlines() if "grid" not in row and "model.width" not in row))
    assert {run.id for run in in_base.runs} == in_grid
    assert in_base.points[0].label == "all"


def _seeds(design: str) -> list[Seeds]:
    text = GOOD.replace("{design: paired, count: 3}", design)
    return [run.seeds for run in parse(text).runs if run.point.label == "model.width=8"]


def test_seed_designs() -> None:
    assert _seeds("{design: paired, count: 2, first: 5}") == [Seeds(5, 5, 5, 0), Seeds(6, 6, 6, 0)]
    assert _seeds("{design: crossed, init: 2, data: 2}") == [
        Seeds(0, 0, 0, 0),
        Seeds(0, 1, 1, 0),
        Seeds(1, 0, 0, 0),
        Seeds(1, 1, 1, 0),
    ]
    assert _seeds("{design: init_only, count: 2, data: 9}") == [Seeds(0, 9, 9, 0), Seeds(1, 9, 9, 0)]
    assert _seeds("{design: data_only, count: 2, init: 9, evaluation: 4}") == [Seeds(9, 0, 0, 4), Seeds(9, 1, 1, 4)]


def test_a_list_of_grids_is_their_union() -> None:
    text = GOOD.replace(
        "grid:\n  model.width: [8, 16]\n",
        "grid:\n  - {model.width: [8], model.heads: [2, 4]}\n"
        "  - {model.width: [16], optimizer.learning_rate: [1e-3]}\n",
    )
    labels = [point.label for point in parse(text).points]
    assert labels == [
        "model.width=8, model.heads=2",
        "model.width=8, model.heads=4",
        "model.width=16, optimizer.learning_rate=0.001",
    ]


def test_every_fault_is_told_at_once_with_line_and_near_miss() -> None:
    told = faults(
        """\
        study: bad name!
        task: {name: paritty, bits: 6, subset: 2}
        model: {family: gpt, layers: 1, widht: 8, heads: 2}
        optimizer: {learning_rate: fast}
        training: {steps: 4, batch_size: 0}
        sucess: {threshold: 0.5}
        grid:
          model.heads: [3]
        seeds: {design: pared, count: 3}
        """
    )
    text = "\n".join(told)
    for expected in (
        "tiny.yaml:1: study:",
        "tiny.yaml:2: task.name: ",
        "did you mean 'parity'?",
        "tiny.yaml:3: model.widht: unknown key; did you mean 'width'?",
        "tiny.yaml:3: model.width: is required",
        "tiny.yaml:4: optimizer.learning_rate:",
        "(given: 'fast')",
        "tiny.yaml:5: training.batch_size:",
        "tiny.yaml:6: sucess: unknown key; did you mean 'success'?",
        "tiny.yaml:9: seeds",
    ):
        assert expected in text, f"{expected!r} is missing in\n{text}"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("model.width: [8, 16]", "model.width: [8, 8]", "tiny.yaml:9: grid.model.width: duplicate condition"),
        ("model.width: [8, 16]", "model.width: []", "tiny.yaml:9: grid.model.width: has no values"),
        ("model.width: [8, 16]", "model.width: 8", "tiny.yaml:9: grid.model.width:"),
        ("model.width: [8, 16]", "model.widht: [8]", "9: grid.model.widht: unknown key; did you mean 'width'?"),
        ("model.width: [8, 16]", "seeds.count: [8]", "tiny.yaml:9: grid.seeds.count: a factor is one of"),
        ("model.width: [8, 16]", "model.width.x: [8]", "leads through a value that is not a mapping"),
        ("model.width: [8, 16]", "model.heads: [2, 3]", "tiny.yaml:9: grid.model.heads"),
        ("model.width: [8, 16]", "task.subset: [2, 7]", "tiny.yaml:9: grid.task.subset"),
        ("bits: 6", "bits: six", "tiny.yaml:3: task.bits:"),
        ("bits: 6", "bit: 6", "tiny.yaml:3: task.bit: unknown key; did you mean 'bits'?"),
        ("name: parity, ", "", "tiny.yaml:3: task: needs a name"),
        ("steps: 4", "steps: -4", "tiny.yaml:6: training.steps:"),
        ("steps: 4", "steps: true", "tiny.yaml:6: training.steps:"),
        ("probes: [log2, {every: 3}]", "probes: weekly", "tiny.yaml:7: probes"),
        ("probes: [log2, {every: 3}]", "probes: {every: 0}", "tiny.yaml:7: probes"),
        ("count: 3", "count: 0", "tiny.yaml:10: seeds.count:"),
        ("design: paired, ", "", "tiny.yaml:10: seeds:"),
        ("study: tiny", "study: ../tiny", "tiny.yaml:1: study:"),
        ("study: tiny", "study: tiny\nstudy: twice", "tiny.yaml:2: study: stands here a second time; first on line 1"),
        ("question: does it?", "scale: model.wdth", "is not a factor of the grid; did you mean 'model.width'?"),
        ("question: does it?", "question: &a x\npaper: *a", "aliases"),
        ("question: does it?", "question: !!python/object:os.system x", "not YAML"),
        ("question: does it?", "question: [unclosed", "not YAML"),
        ("name: parity", "name: absent.py:Task", "tiny.yaml:3: task.name:"),
        (
            "3e-3}",
            "3e-3, trust_region_noise: 0.1}",
            "tiny.yaml:5: optimizer: trust_region_noise scales sharpness_radius",
        ),
        ("3e-3}", "3e-3, sharpness_radius: .1}\nengine: {threads: 1}", "tiny.yaml:6: engine: accelerate has no second"),
    ],
)
def test_faults(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    told = faults(GOOD.replace(old, new))
    assert any(expected in fault for fault in told), told


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "\x00", "{"])
def test_what_is_no_mapping_is_one_clear_fault(text: str) -> None:
    assert len(faults(text)) == 1


def test_a_missing_file_offers_the_near_miss(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(GOOD)
    with pytest.raises(StudyError, match=r"no such file; did you mean 'study\.yaml'"):
        read_study(tmp_path / "stduy.yaml")


def test_a_float_in_scientific_notation_is_a_number() -> None:
    # PyYAML follows YAML 1.1, where 3e-3 is a word.
    assert isinstance(yaml.safe_load("3e-3"), str)
    assert parse(GOOD).points[0].condition.optimizer.learning_rate == 0.003


def test_a_users_own_task_is_pinned_by_its_source(tmp_path: Path) -> None:
    source = (Path(__file__).parents[2] / "docs" / "examples" / "copy_task.py").read_text()
    (tmp_path / "mine.py").write_text(source)
    kind = next(line.split("(")[0].removeprefix("class ") for line in source.splitlines() if line.startswith("class "))
    text = GOOD.replace("{name: parity, bits: 6, subset: 2, test_size: 16}", f'{{name: "mine.py:{kind}"}}')
    first = parse_study(text, "tiny.yaml", tmp_path)
    assert list(first.task_sources.values()) == [source]
    (tmp_path / "mine.py").write_text(source + "\n# changed\n")
    second = parse_study(text, "tiny.yaml", tmp_path)
    assert not {run.id for run in first.runs} & {run.id for run in second.runs}


def test_the_demo_is_sound() -> None:
    folder = Path(__file__).parents[2] / "jobs" / "studies"
    on_text = {"english"}  # tests/test_english.py makes them a corpus
    files = [path for path in sorted(folder.glob("*.yaml")) if path.stem not in on_text]
    studies: list[Any] = [read_study(path) for path in files]
    assert [study.name for study in studies] == [path.stem for path in files]
    demo = next(study for study in studies if study.name == "demo")
    assert len(demo.points) >= 4
    assert demo.settings.seeds.count >= 24


@pytest.mark.parametrize(
    ("execution", "fault"),
    [
        ("{device: gpu}", "device"),
        ("{resources: {GPU: 1}}", "device: cuda"),
        ("{resources: {licence: 0}}", "greater than 0"),
        ("{labels: {zone: [a]}}", "labels"),
        ("{label: {zone: a}}", "labels"),
    ],
)
def test_placement_is_checked_like_everything_else(execution: str, fault: str) -> None:
    with pytest.raises(StudyError, match=fault):
        parse_study(f"{GOOD}\nexecution: {execution}\n", "study.yaml", Path())
