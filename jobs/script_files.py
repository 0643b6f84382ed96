"""The files of a script: those that its command names, and those that a study names beside them.

They go along with the study as text, as a user's own task does, and their SHA-256 are part of a run's identity. Below
the study's folder they keep their places, because a script finds its neighbours by them.
"""

import ast
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from jobs.faults import near
from jobs.identity import sha256
from jobs.tasks import ROOMS
from jobs.text.small_file import text_along

PYTHON = ("python", "python3")
_MUST_BE_THERE = (".py", ".sh")


@dataclass(frozen=True, slots=True)
class Script:
    """An engine's settings with the digests of its files, the texts of those, and what is wrong: (key, message)."""

    engine: dict[str, Any]
    texts: dict[str, str]
    faults: tuple[tuple[str, str], ...]


def find_script(engine: dict[str, Any], folder: Path) -> Script:
    """Return what the `engine` of a study file in `folder` means; what has the wrong form is left as it is."""
    command, named = engine.get("command"), engine.get("files", [])
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            return Script(engine, {}, (("command", f"cannot be read: {error}"),))
    if not (_is_words(command) and _is_words(named)):
        return Script(engine, {}, ())
    texts: dict[str, str] = {}
    faults = []
    for key, path in _paths(command, named, folder):
        try:
            texts[path] = _text(path, folder, is_python=command[0] in PYTHON)
        except ValueError as error:
            faults.append((key, str(error)))
    digests = {path: f"sha256:{sha256(texts[path].encode())}" for path in sorted(texts)}
    return Script({**engine, "command": command, "files": digests}, texts, tuple(faults))


def _is_words(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _paths(command: Sequence[str], named: Sequence[str], folder: Path) -> Iterator[tuple[str, str]]:
    for word in command:
        if word.endswith(_MUST_BE_THERE) or (word and (folder / word).is_file() and not Path(word).is_absolute()):
            yield "command", word
    for word in named:
        yield "files", word


def _text(path: str, folder: Path, *, is_python: bool) -> str:
    """Return the text of a script's file; raises ValueError, which says what is wrong."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ValueError(f"{path} is not below the study's folder, with which it has to go along")
    if PurePosixPath(pure.parts[0]).stem in ROOMS:
        raise ValueError(f"{path} has the name of a part of Seedbed that it would hide: rename it")
    try:
        text = text_along((folder / path).read_bytes(), path)
    except FileNotFoundError:
        there = [file.name for file in sorted((folder / path).parent.glob(f"*{pure.suffix}"))]
        raise ValueError(f"{path} is not beside the study{near(pure.name, there)}") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    if is_python and pure.suffix == ".py":
        try:
            ast.parse(text)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{path}:{getattr(error, 'lineno', 0)}: {type(error).__name__}: {error}") from None
    return text
