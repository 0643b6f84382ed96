"""Pydantic's errors in the words of the file: which key, what is wrong, and the near miss."""

import difflib
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from jobs.yaml_tree import Path as Keys


def locate(model: type[BaseModel], loc: tuple[str | int, ...]) -> tuple[Keys, list[str]]:
    """Return the path in the file of a pydantic location, and the keys that are allowed beside it.

    Pydantic puts the name of the chosen member of a union into the path; the file does not have it.
    """
    keys: list[str | int] = []
    options: list[type[BaseModel]] = [model]
    allowed: list[str] = []
    for part in loc:
        names = {name: field for option in options for name, field in option.model_fields.items()}
        is_tag = _is_union_tag(part, options)
        # Of several models the tag comes first, and it may be the name of a field, too.
        if options and part in names and not (is_tag and len(options) > 1):
            allowed = sorted(names)
            options = _models_in(names[str(part)].annotation)
            keys.append(part)
        elif is_tag:
            options = [option for option in options if part in _tags(option)] or options
        elif options or isinstance(part, int) or not _looks_like_type(part):
            allowed = sorted(names)
            keys.append(part)
    return tuple(keys), allowed


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple, list):
        return [model for part in get_args(annotation) for model in _models_in(part)]
    return []


def _tags(model: type[BaseModel]) -> set[str | int]:
    literals = {value for field in model.model_fields.values() for value in get_args(field.annotation)}
    return {model.__name__, *(v for v in literals if isinstance(v, str))}


def _is_union_tag(part: str | int, options: list[type[BaseModel]]) -> bool:
    return isinstance(part, str) and (any(part in _tags(option) for option in options) or _looks_like_type(part))


def _looks_like_type(part: str | int) -> bool:
    return isinstance(part, str) and (part in ("int", "float", "str", "bool", "constrained-int") or "[" in part)


def describe(error: ErrorDetails, key: str, allowed: list[str]) -> str:
    """Return what is wrong with `key`, given the keys that are allowed in its place."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{near(key, allowed)}"
    if error["type"] == "missing":
        return "is required"
    message = error["msg"].removeprefix("Value error, ")
    given = error.get("input")
    if isinstance(given, str | int | float | bool):
        message += f" (given: {given!r})"
    return message[:1].lower() + message[1:]


def near(word: str, words: Iterable[object]) -> str:
    """Return a question that offers the word nearest to `word`, or nothing."""
    found = difflib.get_close_matches(word, [str(w) for w in words], n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
