"""Tasks by name: the built-in ones, and a user's own as `path.py:Class`.

Loading a user's own task runs the user's code: a study is trusted by whoever submits it.
"""

import difflib
import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobs.errors import TaskError
from jobs.tasks.addition import Addition
from jobs.tasks.combinations import Combinations
from jobs.tasks.counting import Counting
from jobs.tasks.dependencies import Dependencies
from jobs.tasks.experts import Experts
from jobs.tasks.modular_addition import ModularAddition
from jobs.tasks.parity import Parity, ParityItems
from jobs.tasks.planted import Planted
from jobs.tasks.question_formation import QuestionFormation
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens
from jobs.tasks.tense_reinflection import TenseReinflection
from jobs.tasks.text import Text

__all__ = ["BUILT_IN", "IGNORE", "Batch", "Score", "Task", "Tokens", "build", "code", "find", "source"]

BUILT_IN: dict[str, type[Task]] = {
    "addition": Addition,
    "combinations": Combinations,
    "counting": Counting,
    "dependencies": Dependencies,
    "experts": Experts,
    "modular_addition": ModularAddition,
    "parity": Parity,
    "parity_items": ParityItems,
    "planted": Planted,
    "question_formation": QuestionFormation,
    "tense_reinflection": TenseReinflection,
    "text": Text,
}

# Python finds modules by their names alone: a file of one of these beside a study would be imported for ours.
ROOMS = ("jobs", "workers", "orchestrator", "seedbed")


def find(name: str, folder: Path) -> type[Task]:
    """Return the task called `name`; the path in `path.py:Class` is relative to `folder`.

    Raises TaskError where there is none, or where its file cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    path = source(name, folder)
    if path is not None and path.stem in ROOMS:
        raise TaskError(name, "", -1, f"{path.name} has the name of a part of Seedbed that it would hide: rename it")
    if path is None:
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; built in are {', '.join(BUILT_IN)}"
        raise TaskError(name, "", -1, f"no task is called {name!r}{hint}")
    return _class_in(path, name)


def code(name: str, folder: Path) -> str:
    """Return what pins the task's meaning: `version:N`, or `sha256:…` of the source of a user's own."""
    path = source(name, folder)
    if path is None:
        return f"version:{find(name, folder).version}"
    return f"sha256:{_digest(path, name)}"


def source(name: str, folder: Path) -> Path | None:
    """Return the file of a user's own task, or None for any other name."""
    file, colon, _ = name.rpartition(":")
    return folder / file if colon and file.endswith(".py") else None


def build(
    name: str, parameters: dict[str, Any], folder: Path, where: Callable[[str], str] = lambda digest: digest
) -> Task:
    """Return the task with these parameters; raises TaskError, or pydantic.ValidationError for wrong ones.

    where  gives the address of the corpus with a digest
    """
    return find(name, folder).model_validate(parameters).bound(where)


def _digest(path: Path, name: str) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise TaskError(name, "", -1, f"{path} cannot be read: {error.strerror}") from None


def _class_in(path: Path, name: str) -> type[Task]:
    # The digest in the module's name keeps two files of one name, or two versions of one file, apart.
    module_name = f"_seedbed_task_{_digest(path, name)[:16]}"
    if module_name not in sys.modules:
        _load(path, module_name, name)
    module = sys.modules[module_name]
    wanted = name.rpartition(":")[2]
    kinds: dict[str, type[Task]] = {key: value for key, value in vars(module).items() if _is_task(value, module_name)}
    if wanted in kinds:
        return kinds[wanted]
    if not hasattr(module, wanted):
        near = difflib.get_close_matches(wanted, kinds or vars(module), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TaskError(name, "", -1, f"{path.name} has no {wanted!r}{hint}")
    raise TaskError(name, "", -1, f"{wanted!r} in {path.name} is not a class derived from Task with all its methods")


def _load(path: Path, module_name: str, name: str) -> None:
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise TaskError(name, "", -1, f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # pydantic looks annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the border to a user's code
        del sys.modules[module_name]
        own = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else own[-1].lineno if own else 0
        raise TaskError(name, "", -1, f"{path}:{line}: {type(error).__name__}: {error}") from error


def _is_task(value: object, module_name: str) -> bool:
    is_own = isinstance(value, type) and issubclass(value, Task) and value.__module__ == module_name
    return is_own and not getattr(value, "__abstractmethods__", None)
