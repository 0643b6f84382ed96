"""A study of scripts: its form, what is refused, what is part of an id, and the files that go along with it."""

from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StudyError
from jobs.identity import canonical_json, condition_spec, parse_run_spec
from jobs.spec import CommandSpec, Given
from jobs.study import Study
from jobs.study_file import parse_study
from jobs.study_files import files_of, laid_out

LINES = {
    "study": "mine",
    "engine": "{command: python train.py --fast}",
    "training": "{steps: 12, batch_size: 8}",
    "seeds": "{design: paired, count: 2}",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)\n")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "__init__.py").write_text("")
    (tmp_path / "words.txt").write_text("a\nb\n")
    return tmp_path


def study(folder: Path, **changed: str) -> Study:
    return parse_study("\n".join(f"{k}: {v}" for k, v in (LINES | changed).items()), "mine.yaml", folder)


def faults(folder: Path, **changed: str) -> str:
    with pytest.raises(StudyError) as raised:
        study(folder, **changed)
    return str(raised.value)


def test_a_script_needs_no_more_than_its_steps_and_any_part_may_be_a_factor(folder: Path) -> None:
    made = study(folder, model="{width: 4, words: [a, {b: null}]}", grid="{model.width: [4, 8], task.noise: [0.5]}")
    first = made.points[0].condition
    assert isinstance(first.engine, CommandSpec)
    assert first.engine.command == ("python", "train.py", "--fast")
    assert list(first.engine.files) == ["train.py"]
    assert first.model == Given({"width": 4, "words": ["a", {"b": None}]})
    assert (first.task.parameters, first.optimizer) == ({"noise": 0.5}, Given({}))
    assert made.points[1].label == "model.width=8, task.noise=0.5"


def test_a_stored_spec_is_read_back_as_it_was(folder: Path) -> None:
    run = study(folder, model="{width: 4}", optimizer="{rate: 1e-3}").runs[0]
    condition, _, _ = parse_run_spec(run.spec)
    assert condition == run.point.condition
    assert canonical_json(condition_spec(condition)) == canonical_json(run.point.spec)


def test_a_changed_file_or_argument_is_another_run_and_how_the_command_is_written_is_not(folder: Path) -> None:
    files = "files: [parts/__init__.py, words.txt]"
    whole = study(folder, engine=f"{{command: python train.py, {files}}}")
    listed = study(folder, engine=f"{{command: [python, train.py], {files}, name: command}}")
    assert [run.id for run in whole.runs] == [run.id for run in listed.runs]
    assert study(folder, engine=f"{{command: python train.py -x, {files}}}").runs[0].id != whole.runs[0].id
    (folder / "words.txt").write_text("a\nc\n")
    assert study(folder, engine=f"{{command: python train.py, {files}}}").runs[0].id != whole.runs[0].id


def test_the_files_go_along_and_the_study_is_whole_without_its_folder(folder: Path) -> None:
    made = study(folder, engine="{command: python train.py words.txt, files: [parts/__init__.py]}")
    files = files_of(made)
    assert files == {"parts/__init__.py": "", "train.py": "print(1)\n", "words.txt": "a\nb\n"}
    with laid_out(files, "mine.yaml") as elsewhere:
        again = parse_study(made.text, "mine.yaml", elsewhere)
    assert [run.id for run in again.runs] == [run.id for run in made.runs]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"engine": "{command: python trian.py}"}, "engine.command: trian.py is not beside the study; did you mean"),
        ({"engine": "{command: python /srv/train.py}"}, "/srv/train.py is not below the study's folder"),
        ({"engine": "{command: python ../train.py}"}, "../train.py is not below the study's folder"),
        ({"engine": "{command: python train.py, files: [word.txt]}"}, "engine.files: word.txt is not beside the study"),
        ({"engine": "{command: python jobs/train.py}"}, "a part of Seedbed that it would hide: rename it"),
        ({"engine": "{command: []}"}, "engine.command"),
        ({"engine": "{name: command}"}, "engine.command: is required"),
        ({"engine": '{command: "python \'train.py"}'}, "No closing quotation"),
        ({"engine": "{command: python train.py, proceses: 2}"}, "unknown key; did you mean 'processes'"),
        ({"model": "{rate: .nan}"}, "numbers are finite"),
        ({"task": "{rate: .inf}"}, "numbers are finite"),
        ({"model": "[1, 2]"}, "model:"),
        ({"measure": "[weights]"}, "a script reports its own measurements"),
        ({"execution": "{pack_width: 4}"}, "execution.pack_width: a script trains one run"),
        ({"fork": "{study: train.py, steps: [0], redraw: [data]}"}, "a script takes up its own checkpoints alone"),
        ({"training": "{steps: 12}"}, "training.batch_size: is required"),
    ],
    ids=str,
)
def test_faults_are_told_with_their_key(folder: Path, changed: dict[str, Any], expected: str) -> None:
    assert expected in faults(folder, **changed)


def test_a_syntax_error_is_told_with_its_line_before_anything_runs(folder: Path) -> None:
    (folder / "train.py").write_text("import seedbed\nfor step in range(3)\n    pass\n")
    assert "engine.command: train.py:2: SyntaxError: expected ':'" in faults(folder)
    (folder / "words.txt").write_bytes(b"\xff\xfe")
    assert "words.txt is not text in UTF-8" in faults(folder, engine="{command: python words.txt}")


def test_a_model_of_ours_is_still_checked(folder: Path) -> None:
    parts = {"model": "{family: gpt, layers: 1}", "optimizer": "{learning_rat: 1}"}
    task = "{name: parity, bits: 4, subset: 2}"
    told = faults(folder, engine="{name: packed}", task=task, **parts)
    assert "optimizer.learning_rat: unknown key; did you mean 'learning_rate'" in told
    assert "model.width: is required" in told


def test_the_documented_script_is_the_example() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "examples" / "own_script.py").read_text()
    assert f"```python\n{text}```" in (root / "docs" / "models.md").read_text()
