"""The folder of a harness's tasks: what goes along, what is refused, and what is part of a run's identity."""

from pathlib import Path

import pytest

from jobs.errors import StudyError
from jobs.harness_files import find_questions, own_tasks
from jobs.identity import parse_run_spec
from jobs.measures import HarnessRule, harness_in
from jobs.study import Study
from jobs.study_file import parse_study
from jobs.study_files import files_of
from tests.corpora import small_corpus

TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{q}}"
doc_to_choice: [red, blue]
doc_to_target: 0
process_docs: !function prepare.sort
"""
PARENTS = """\
study: parents
task: {name: text, corpora: {quiet: quiet}, context: 8, test_size: 4}
model: {family: gpt, layers: 1, width: 8, heads: 2, norm: layernorm, positions: rotary}
optimizer: {learning_rate: 3e-3}
training: {steps: 4, batch_size: 2}
seeds: {design: paired, count: 2}
"""
ASKED = (
    PARENTS.replace("study: parents", "study: asked").replace("count: 2", "count: 1")
    + """\
measure:
  - weights
  - harness: {tasks: [colours], folder: questions, limit: 5}
fork: {study: parents.yaml, steps: [0, last], train: false}
"""
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a study of text, its parents and a folder of questions."""
    small_corpus(tmp_path, "quiet", [f"What seed {index} saw, it will not forget." for index in range(20)])
    (tmp_path / "questions").mkdir()
    (tmp_path / "questions" / "colours.yaml").write_text(TASK)
    (tmp_path / "questions" / "colours.jsonl").write_text('{"q": "roses are"}\n')
    (tmp_path / "questions" / "prepare.py").write_text("def sort(items):\n    return items\n")
    (tmp_path / "parents.yaml").write_text(PARENTS)
    return tmp_path


def read(folder: Path, text: str = ASKED) -> Study:
    return parse_study(text, "asked.yaml", folder)


def test_files_go_along_and_their_digests_are_part_of_what_a_run_is(folder: Path) -> None:
    study = read(folder)
    assert set(files_of(study)) >= {f"questions/{name}" for name in ("colours.yaml", "colours.jsonl", "prepare.py")}
    spec = harness_in(study.points[0].condition.measure)
    assert spec is not None
    assert (spec.tasks, spec.limit, spec.fewshot, spec.batch_size) == (("colours",), 5, None, 16)
    assert sorted(spec.files) == ["colours.jsonl", "colours.yaml", "prepare.py"]
    assert parse_run_spec(study.runs[0].spec)[0] == study.points[0].condition
    (folder / "questions").rename(folder / "moved")
    moved = read(folder, ASKED.replace("folder: questions", "folder: moved"))
    assert [run.id for run in moved.runs] == [run.id for run in study.runs], "where they lay is not part of it"
    (folder / "moved" / "colours.jsonl").write_text('{"q": "violets are"}\n')
    changed = read(folder, ASKED.replace("folder: questions", "folder: moved"))
    assert not {run.id for run in changed.runs} & {run.id for run in study.runs}


def test_what_a_file_includes_is_part_of_its_task(folder: Path) -> None:
    base = folder / "questions" / "base"
    base.mkdir()
    (base / "colours").with_suffix(".yaml").write_text(TASK.replace("task: colours\n", ""))
    (base / "prepare.py").write_text("def sort(items):\n    return items\n")
    (folder / "questions" / "colours.yaml").write_text("include: base/colours.yaml\ntask: colours\n")
    found = find_questions(HarnessRule(tasks=("colours",), folder="questions"), folder)
    assert found.faults == ()
    own = own_tasks(found.texts)
    assert list(own) == ["colours"], "what has no name is there to be included"
    assert own["colours"].items == {"test": ["colours.jsonl"]}, "items lie beside the task's own file"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("folder: questions", "folder: question", "question is no folder beside the study; did you mean 'questions'"),
        ("folder: questions", "folder: ../questions", "is not below the study's folder"),
        ("tasks: [colours], ", "", "is required"),
        ("limit: 5", "limits: 5", "unknown key; did you mean 'limit'"),
        ("limit: 5", "limit: 0", "greater than or equal to 1"),
        ("  - weights\n", "  - weighst\n", "there are weights, similarity, .*did you mean 'weights'"),
        (", train: false", "", "ended: give fork, with train: false"),
        ("fork: {study: parents.yaml, steps: [0, last], train: false}\n", "", "ended: give fork, with train: false"),
        ("  - weights\n", "  - harness: {tasks: [colours]}\n", "the harness is there twice"),
    ],
)
def test_what_a_study_file_may_not_say(folder: Path, old: str, new: str, told: str) -> None:
    assert old in ASKED
    with pytest.raises(StudyError, match=told):
        read(folder, ASKED.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("output_type: multiple_choice", "output_type: guess", "output_type is one of loglikelihood"),
        ("dataset_path: json", "dataset_path: some/hub", "its items lie in the folder"),
        ("test: colours.jsonl}", "test: colours.jsonl}, trust_remote_code: true", "its items lie in the folder"),
        (
            "colours.jsonl",
            "colors.jsonl",
            "colors.jsonl is no file of items in the folder; did you mean 'colours.jsonl'",
        ),
        ("colours.jsonl", "../asked.yaml", "is no file of items"),
        ("test_split: test", "test_split: tests", "test_split 'tests' has no file; did you mean 'test'"),
        ("!function prepare.sort", "!function os.system", "!function system is of os.py, which is not in the folder"),
        ("process_docs:", "unsafe_code: true\nprocess_docs:", "what a model writes is not run here"),
        ("process_docs:", "metric_list: [{metric: f1, hf_evaluate: true}]\nprocess_docs:", "would fetch code"),
        ("process_docs:", "include: other.yaml\nprocess_docs:", "includes other.yaml, which is not in the folder"),
        ("process_docs:", "include: colours.yaml\nprocess_docs:", "or includes itself"),
        ("[red, blue]", "[red, blue", "colours.yaml is not YAML of the harness"),
        ("!function prepare.sort", "!!python/object/apply:os.system [ls]", "is not YAML of the harness"),
        ("task: colours", "- a list", "is not YAML of the harness"),
    ],
)
def test_what_a_tasks_file_may_not_say(folder: Path, old: str, new: str, told: str) -> None:
    assert old in TASK
    (folder / "questions" / "colours.yaml").write_text(TASK.replace(old, new))
    with pytest.raises(StudyError) as caught:
        read(folder)
    assert told in str(caught.value)


def test_one_name_is_one_task_and_only_text_is_asked(folder: Path) -> None:
    (folder / "questions" / "again.yaml").write_text(TASK)
    with pytest.raises(StudyError, match=r"colours\.yaml: task colours is in again\.yaml, too"):
        read(folder)
    (folder / "questions" / "again.yaml").unlink()
    (folder / "questions" / "big.jsonl").write_bytes(b"\xff")
    with pytest.raises(StudyError, match=r"big\.jsonl is not text in UTF-8"):
        read(folder)
    (folder / "questions" / "big.jsonl").unlink()
    old, new = "name: text, corpora: {quiet: quiet}, context: 8, test_size: 4", "name: parity, bits: 6, subset: 2"
    (folder / "parents.yaml").write_text(PARENTS.replace(old, new))
    with pytest.raises(StudyError, match="asks causal language models in text"):
        read(folder, ASKED.replace(old, new))
