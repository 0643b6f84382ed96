"""Any answer as rows of the SQL table `estimates`: the same numbers as everywhere, one a row.

An estimate is a row with its interval. A number beside estimates (a p value, a count) is a row without one, a word
(a verdict) is a row without value whose `note` it is; both say the runs and the method of the answer that they are in.
Whole arrays are left to JSON and to Python.
"""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from math import isnan, nan
from typing import Any

from jobs.errors import QueryError
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.questions.asked import Each, Question
from orchestrator.questions.lines import Grid, Line, lines

Row = dict[str, object]


def rows_of_answer(question: Question, name: str, found: Any) -> list[Row]:
    """Return the rows of an answer; their fields are those of ESTIMATES."""
    ids = {condition.label: condition.id for condition in question.declared.conditions}
    like = {label: _like(part) for label, part in _by_condition(found).items()}
    study = question.declared.name
    return [
        row_of(study, name, (ids.get(line.condition, ""), line.condition), path, one)
        for line in lines(found)
        if line.condition in like  # what has no answer is no number
        for path, one in _estimates(line, like[line.condition])
    ]


def row_of(study: str, question: str, condition: tuple[str, str], name: str, found: Estimate) -> Row:
    """Return one row; condition: its id and its label, both empty where the whole study is meant."""
    cohort = found.cohort
    return {
        "study": study,
        "question": question,
        "condition_id": condition[0],
        "condition": condition[1],
        "name": name,
        "value": None if isnan(found.value) else found.value,
        "low": None if isnan(found.low) else found.low,
        "high": None if isnan(found.high) else found.high,
        "method": found.method,
        "level": found.level,
        "unit": found.unit,
        "stopping_rule": found.stopping_rule,
        "cohort": cohort.digest,
        "launched": cohort.launched,
        "finished": cohort.finished,
        "diverged": cohort.diverged,
        "censored": cohort.censored,
        "mixed": cohort.mixed,
        "disputed": cohort.disputed,
        "note": found.note,
    }


def _by_condition(found: Any) -> dict[str, Any]:
    """Return label → what an answer says of that condition; under the empty label what it says of the whole study."""
    if isinstance(found, Each):
        return dict(found.conditions)
    parts = {"": found}
    for field in fields(found):
        inner = getattr(found, field.name)
        parts |= inner.conditions if isinstance(inner, Each) else {}
    return parts


def _estimates(line: Line, like: Estimate) -> Iterator[tuple[str, Estimate]]:
    if not isinstance(line.value, Grid):
        yield line.name, _estimate(line.value, like)
        return
    for number, row in enumerate(line.value.rows):
        for column, value in zip(line.value.columns, row, strict=True):
            if value is not None:
                yield ".".join(filter(None, (line.name, str(number), column))), _estimate(value, like)


def _estimate(value: Any, like: Estimate) -> Estimate:
    if isinstance(value, Estimate):
        return value
    return replace(like, note=value) if isinstance(value, str) else replace(like, value=float(value))


def _like(found: Any) -> Estimate:
    """Return an estimate without a value that says the runs and the method of the first part that has them."""
    for part in _parts(found):
        if isinstance(getattr(part, "cohort", None), Cohort):
            return Estimate(
                *(nan, nan, nan), getattr(part, "method", ""), getattr(part, "level", 0.95), part.cohort,
                getattr(part, "unit", "run"), getattr(part, "stopping_rule", FIXED),
            )  # fmt: skip
    raise QueryError(f"{type(found).__name__} does not say which runs it is of")


def _parts(found: Any) -> Iterator[Any]:
    """Yield a dataclass and all that lie in it, the outer ones first."""
    if isinstance(found, Mapping | tuple):
        for part in found.values() if isinstance(found, Mapping) else found:
            yield from _parts(part)
    elif is_dataclass(found) and not isinstance(found, type):
        yield found
        for field in fields(found):
            yield from _parts(getattr(found, field.name))
