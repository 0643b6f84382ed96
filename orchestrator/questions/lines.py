"""An answer as lines of a table: every estimate in it with its interval, and every single number or word beside them.

Whole arrays (posteriors, matrices, one number a run) are left to JSON and to Python; curves are told point by point,
and several things of one kind (held-out scales, thresholds, components of variance) as a grid.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

import numpy as np

from orchestrator.estimates.breaks import Breakthrough
from orchestrator.estimates.distribution_law import Curve, DistributionLaw
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.modes import Modes
from orchestrator.estimates.outliers import Outliers
from orchestrator.estimates.survival_curve import SurvivalCurve
from orchestrator.estimates.training_map import TrainingMap
from orchestrator.estimates.turnbull import Turnbull
from orchestrator.questions.along_training import OnsetsOfOne
from orchestrator.questions.asked import Each
from orchestrator.questions.chance import CurveOfMean
from orchestrator.questions.forecast import Forecast
from orchestrator.questions.on_lines import Lines
from orchestrator.questions.over_scale import OverScale

# In words already, or the same number in another unit.
_HIDDEN = {
    OverScale: {"curve"},
    Modes: {"verdict", "delta_bic", "gap", "power", "power_by_weight"},
    Breakthrough: {"bic_sigmoid", "bic_flat", "bic_log_linear", "floor"},
    TrainingMap: {"unusual"},
    OnsetsOfOne: {"bracket"},
    Outliers: {"runs"},
    Forecast: {"probabilities"},
    Lines: {"found", "ends", "losses"},
}
# Said once for a whole answer, or of interest to a program only.
_UNSAID = {"run_ids", "cohort", "method", "level", "unit", "stopping_rule", "counts", "model", "draws", "permutations"}
_PLAIN = {"at", "conditions"}  # what is inside says so itself
_MOST = 60  # entries of a tuple


@dataclass(frozen=True, slots=True)
class Line:
    """One number or word of an answer.

    condition  its label; empty where the answer is about the whole study
    name       a path of field names
    value      an estimate; a number, a truth value or a word; or a grid of them
    """

    condition: str
    name: str
    value: "Estimate | float | int | bool | str | Grid"


@dataclass(frozen=True, slots=True)
class Grid:
    """Several things of one kind: a row for each, [thing][column], None where a thing has no such part."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


def lines(found: Any) -> list[Line]:
    """Return the lines of an answer, in the order of its fields."""
    if isinstance(found, Each):
        told = [line for label, one in found.conditions.items() for line in _of(one, label, "")]
        return told + [Line(label, "no answer", why) for label, why in found.left_out.items()]
    return list(_of(found, "", ""))


def _of(found: Any, condition: str, name: str) -> Iterator[Line]:
    if isinstance(found, Each):
        yield from (Line(line.condition, _path(name, line.name), line.value) for line in lines(found))
    elif isinstance(found, Estimate | bool | int | float | str):
        plain = found.value if isinstance(found, Enum) else found
        if plain != "":
            yield Line(condition, name, plain)
    elif type(found) in _CURVES:
        yield from (Line(condition, _path(name, part), value) for part, value in _CURVES[type(found)](found))
    elif is_dataclass(found) and not isinstance(found, type):
        yield from _of_fields(found, condition, name)
    elif isinstance(found, Mapping):
        for key, value in found.items():
            yield from _of(value, condition, _path(name, f"at {key:g}" if isinstance(key, float) else str(key)))
    elif isinstance(found, tuple):
        yield from _of_tuple(found, condition, name)


def _of_fields(found: Any, condition: str, name: str) -> Iterator[Line]:
    if says := getattr(found, "says", ""):
        yield Line(condition, _path(name, "in words"), says)
    for field in fields(found):
        if field.name not in _UNSAID | _HIDDEN.get(type(found), set()):
            path = name if field.name in _PLAIN else _path(name, field.name)
            yield from _of(getattr(found, field.name), condition, path)


def _of_tuple(found: tuple[Any, ...], condition: str, name: str) -> Iterator[Line]:
    if found and all(isinstance(value, int | float | str) for value in found):
        yield Line(condition, name, ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in found[:_MOST]))
    elif found and all(is_dataclass(value) for value in found):
        told = [{line.name: line.value for line in _of(value, "", "")} for value in found]
        columns = tuple(dict.fromkeys(name for each in told for name in each))
        yield Line(condition, name, Grid(columns, tuple(tuple(each.get(c) for c in columns) for each in told)))


def _survival(curve: SurvivalCurve) -> Iterator[tuple[str, Estimate]]:
    columns = (curve.thresholds, curve.value, curve.low, curve.high)
    for threshold, value, low, high in zip(*(column.tolist() for column in columns), strict=True):
        found = Estimate(value, low, high, curve.method, curve.level, curve.cohort, curve.unit, curve.stopping_rule)
        yield f"P(score ≥ {threshold:g})", found


def _turnbull(found: Turnbull) -> Iterator[tuple[str, Estimate]]:
    columns = (found.right, found.survival, found.low, found.high)
    for step, value, low, high in zip(*(column.tolist() for column in columns), strict=True):
        if np.isfinite(step):
            yield f"P(onset later than {step:g})", Estimate(value, low, high, found.method, found.level, found.cohort)


def _curve(found: CurveOfMean) -> Iterator[tuple[str, Estimate]]:
    band = found.band
    columns = (found.steps, band.value, band.low, band.high)
    for step, value, low, high in zip(*(column.tolist() for column in columns), strict=True):
        yield f"mean at step {step:,}", Estimate(value, low, high, band.method, band.level, band.cohort)


def _law(law: DistributionLaw) -> Iterator[tuple[str, Estimate]]:
    for field in fields(law):
        part = getattr(law, field.name)
        if isinstance(part, Estimate):
            yield field.name, part
        elif isinstance(part, Curve):
            columns = (law.at, part.value, part.low, part.high)
            for at, value, low, high in zip(*(column.tolist() for column in columns), strict=True):
                yield f"{field.name} at {at:g}", Estimate(value, low, high, law.method, law.level, law.cohort)


_CURVES: dict[type, Callable[[Any], Iterator[tuple[str, Estimate]]]] = {
    SurvivalCurve: _survival,
    Turnbull: _turnbull,
    CurveOfMean: _curve,
    DistributionLaw: _law,
}


def _path(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
