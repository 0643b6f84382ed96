"""Scalars that are functions of the step: hand-made values, bounds at every knot, and one id per meaning."""

from math import cos, pi
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from jobs.errors import StudyError
from jobs.scalar import Curve, FractionScalar, NonNegativeScalar, PositiveScalar, at, ever
from jobs.study_file import parse_study

KNOTS = ((10, 1.0), (20, 3.0), (40, 0.0))


@pytest.mark.parametrize(
    ("curve", "values"),
    [
        (Curve(piecewise=KNOTS), {0: 1.0, 10: 1.0, 19: 1.0, 20: 3.0, 39: 3.0, 40: 0.0, 99: 0.0}),
        (Curve(linear=KNOTS), {0: 1.0, 10: 1.0, 15: 2.0, 20: 3.0, 30: 1.5, 40: 0.0, 99: 0.0}),
        (Curve(cosine=KNOTS), {0: 1.0, 15: 2.0, 20: 3.0, 25: 3.0 - 1.5 * (1 - cos(pi / 4)), 30: 1.5, 40: 0.0, 99: 0.0}),
    ],
)
def test_hand_made_values(curve: Curve, values: dict[int, float]) -> None:
    assert {step: curve.at(step) for step in values} == pytest.approx(values, abs=1e-15)


@given(st.integers(0, 10**6), st.floats(-1e6, 1e6))
def test_a_number_is_the_same_at_every_step(step: int, value: float) -> None:
    assert at(value, step) == value
    for form in ("piecewise", "linear", "cosine"):
        assert at(Curve(**{form: ((step, value),)}), step + 1) == value


def test_whether_it_is_ever_other_than_zero() -> None:
    assert [ever(0.0), ever(0.1), ever(Curve(linear=((0, 0.0),))), ever(Curve(linear=((0, 0.0), (5, 1.0))))] == [
        False,
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (PositiveScalar, {"linear": [[0, 1.0], [5, 0.0]]}),
        (NonNegativeScalar, {"linear": [[0, -1.0]]}),
        (FractionScalar, {"cosine": [[0, 1.0]]}),
        (PositiveScalar, {"linear": [[5, 1.0], [0, 2.0]]}),
        (PositiveScalar, {"linear": [[0, 1.0], [0, 2.0]]}),
        (PositiveScalar, {"linear": []}),
        (PositiveScalar, {}),
        (PositiveScalar, {"linear": [[0, 1.0]], "cosine": [[0, 1.0]]}),
        (PositiveScalar, {"spline": [[0, 1.0]]}),
        (PositiveScalar, float("inf")),
        (NonNegativeScalar, {"linear": [[0, float("nan")]]}),
    ],
)
def test_what_is_out_of_range_or_of_no_form_is_refused(kind: object, value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


STUDY = """\
study: tiny
task: {{name: parity, bits: 6, subset: 2, test_size: 16}}
model: {{family: mlp, width: 8}}
optimizer: {{learning_rate: {rate}}}
training: {{steps: 4, batch_size: 8{more}}}
seeds: {{design: paired, count: 1}}
"""


def ids(rate: str, more: str = "") -> list[str]:
    return [run.id for run in parse_study(STUDY.format(rate=rate, more=more), "tiny.yaml", Path()).runs]


def test_a_curve_is_part_of_the_id_and_a_loss_that_is_off_is_not() -> None:
    constant = ids("3e-3")
    assert ids("{linear: [[0, 3e-3], [4, 1e-3]]}") != constant
    assert ids("3e-3", ", z_loss: 0.0") == constant, "what came after the first ids leaves them as they are"
    assert ids("3e-3", ", z_loss: 1e-4") != constant


def test_a_faulty_curve_is_told_with_its_line() -> None:
    with pytest.raises(StudyError, match=r"tiny\.yaml:4: optimizer\.learning_rate"):
        ids("{linear: [[0, 3e-3], [4, 0.0]]}")
