"""The folder of tasks for the lm-evaluation-harness that goes along with a study: checked before anything trains.

Files are YAML in the harness's own form, JSON lines with items, and Python with the functions that YAML names. What
such a file says is the user's own, as a task of theirs is; so is the code in it. What it may not do is lead outside:
items lie in the folder, functions come from the folder, no metric and no code is fetched. Then the digests of the files
say what was asked.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from pydantic import ValidationError

from jobs.faults import near
from jobs.identity import sha256
from jobs.measures import HarnessRule, is_ruled
from jobs.text.small_file import text_along

_ENDINGS = (".yaml", ".jsonl", ".json", ".py")
_ITEMS = (".jsonl", ".json")
_INCLUDES = 8
OUTPUTS = ("loglikelihood", "loglikelihood_rolling", "multiple_choice", "generate_until")


@dataclass(frozen=True, slots=True)
class Function:
    """What stands after `!function`: a name in the Python file at `path`, which lies beside the YAML file."""

    path: str
    name: str


class _Loader(yaml.SafeLoader):
    """Safe tags and `!function`, which stays a name."""

    folder = PurePosixPath()

    def function(self, node: yaml.Node) -> Function:
        module, _, name = str(self.construct_scalar(node)).rpartition(".")  # type: ignore[arg-type]
        return Function(str(self.folder / f"{module.replace('.', '/')}.py"), name)


_Loader.add_constructor("!function", _Loader.function)


@dataclass(frozen=True, slots=True)
class Questions:
    """The files of a folder: path below it → text; what is wrong with them."""

    texts: dict[str, str]
    faults: tuple[str, ...] = ()

    @property
    def digests(self) -> dict[str, str]:
        """Return path → `sha256:…`."""
        return {path: f"sha256:{sha256(text.encode())}" for path, text in sorted(self.texts.items())}


@dataclass(frozen=True, slots=True)
class OwnTask:
    """A task of a folder: its name, the YAML file that says what it is, and all that it says, includes with it."""

    name: str
    file: str
    says: dict[str, Any]

    @property
    def items(self) -> dict[str, list[str]]:
        """Return split → files of items, by their paths below the folder."""
        given = self.says.get("dataset_kwargs", {}).get("data_files", {})
        by_split = given if isinstance(given, dict) else {"train": given}
        folder = PurePosixPath(self.file).parent
        return {
            split: [str(folder / name) for name in ([names] if isinstance(names, str) else names)]
            for split, names in by_split.items()
        }


def find_questions(rule: HarnessRule, study_folder: Path) -> Questions:
    """Return the files of a rule's folder beside the study, and what is wrong with them and with the tasks in them."""
    if not rule.folder:
        return Questions({})
    pure = PurePosixPath(rule.folder)
    if pure.is_absolute() or ".." in pure.parts or pure == PurePosixPath():
        return Questions({}, (f"{rule.folder} is not below the study's folder, with which it has to go along",))
    folder = study_folder / rule.folder
    if not folder.is_dir():
        there = [path.name for path in sorted(folder.parent.glob("*/"))]
        return Questions({}, (f"{rule.folder} is no folder beside the study{near(pure.name, there)}",))
    texts: dict[str, str] = {}
    faults = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in _ENDINGS:
            below = path.relative_to(folder).as_posix()
            try:
                texts[below] = _text(path, below)
            except ValueError as error:
                faults.append(str(error))
    try:
        own = own_tasks(texts)
        faults += [fault for task in own.values() if task.name in rule.tasks for fault in _faults(task, texts)]
    except ValueError as error:
        faults.append(str(error))
    return Questions(texts, tuple(faults))


def resolved(measures: Any, folder: Path) -> tuple[list[Any], Questions]:
    """Return `measure` of a study file with digests in the place of the harness's folder, and the files that go along.

    What has the wrong form is left as it is. The files' paths are from the study's folder.
    """
    found: list[Any] = []
    texts: dict[str, str] = {}
    faults: list[str] = []
    for one in measures if isinstance(measures, list) else []:
        try:
            rule = HarnessRule.model_validate(one["harness"]) if is_ruled(one) else None
        except ValidationError:
            rule = None
        if rule is not None:
            questions = find_questions(rule, folder)
            texts |= {str(PurePosixPath(rule.folder) / path): text for path, text in questions.texts.items()}
            faults += questions.faults
            one = {"harness": {**rule.model_dump(exclude={"folder"}), "files": questions.digests}}
        found.append(one)
    if sum(map(is_ruled, found)) > 1:
        faults.append("the harness is there twice: name all of its tasks in one place")
    return found, Questions(texts, tuple(faults))


def own_tasks(texts: dict[str, str]) -> dict[str, OwnTask]:
    """Return name → task of the YAML files in a folder; raises ValueError for one that cannot be read.

    A file without `task` is there to be included by others; `group` makes no task.
    """
    found: dict[str, OwnTask] = {}
    for file in sorted(texts):
        if not file.endswith(".yaml"):
            continue
        says = _read(file, texts)
        name = says.get("task")
        if "group" in says or name is None:
            continue
        if not isinstance(name, str):
            raise ValueError(f"{file}: task is a name; groups are not read: name their tasks")
        if name in found:
            raise ValueError(f"{file}: task {name} is in {found[name].file}, too")
        found[name] = OwnTask(name, file, says)
    return found


def _text(path: Path, below: str) -> str:
    try:
        return text_along(path.read_bytes(), below)
    except OSError as error:
        raise ValueError(f"{below} cannot be read: {error.strerror}") from None


def _read(file: str, texts: dict[str, str], depth: int = 0) -> dict[str, Any]:
    """Return what a YAML file says, what it includes first."""
    loader = _Loader(texts[file])
    loader.folder = PurePosixPath(file).parent
    try:
        says = loader.get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(f"{file} is not YAML of the harness: {error}") from None
    finally:
        loader.dispose()
    if not isinstance(says, dict):
        raise ValueError(f"{file} is no mapping")
    merged: dict[str, Any] = {}
    for other in _included(file, says):
        if other not in texts or depth == _INCLUDES:
            raise ValueError(f"{file} includes {other}, which is not in the folder, or includes itself")
        merged |= _read(other, texts, depth + 1)
    return merged | {key: value for key, value in says.items() if key != "include"}


def _included(file: str, says: dict[str, Any]) -> list[str]:
    given = says.get("include", [])
    return [str(PurePosixPath(file).parent / str(one)) for one in (given if isinstance(given, list) else [given])]


def _faults(task: OwnTask, texts: dict[str, str]) -> Iterator[str]:
    says, where = task.says, f"{task.file}: task {task.name}:"
    if "class" not in says and says.get("output_type", "generate_until") not in OUTPUTS:
        yield f"{where} output_type is one of {', '.join(OUTPUTS)}"
    if says.get("unsafe_code"):
        yield f"{where} unsafe_code is not allowed: what a model writes is not run here"
    if any(isinstance(one, dict) and one.get("hf_evaluate") for one in says.get("metric_list") or ()):
        yield f"{where} hf_evaluate would fetch code: name a metric of the harness, or a !function of yours"
    if not ("class" in says or "custom_dataset" in says):
        yield from (f"{where} {fault}" for fault in _wrong_items(task, texts))
    for function in _functions(says):
        if function.path not in texts:
            yield f"{where} !function {function.name} is of {function.path}, which is not in the folder"


def _wrong_items(task: OwnTask, texts: dict[str, str]) -> Iterator[str]:
    says = task.says
    given = says.get("dataset_kwargs")
    if says.get("dataset_path") != "json" or not isinstance(given, dict) or set(given) != {"data_files"}:
        yield "its items lie in the folder: dataset_path: json, dataset_kwargs: {data_files: {test: items.jsonl}}"
        return
    try:
        items = task.items
    except TypeError:
        yield "data_files is split → file"
        return
    for split in ("test_split", "validation_split", "training_split", "fewshot_split"):
        if says.get(split) is not None and says[split] not in items:
            yield f"{split} {says[split]!r} has no file{near(str(says[split]), items)}"
    for file in (file for files in items.values() for file in files):
        if file not in texts or not file.endswith(_ITEMS):
            there = [name for name in texts if name.endswith(_ITEMS)]
            yield f"{file} is no file of items in the folder{near(file, there)}"


def _functions(value: Any) -> Iterator[Function]:
    if isinstance(value, Function):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _functions(inner)
