"""Scalars of training that may be functions of the step: a learning rate, a weight of a loss, a rate of dropout.

In a study file: a number, or knots [step, value] with what happens between them:

    weight_decay: 0.1
    weight_decay: {piecewise: [[0, 0.1], [1000, 0.0]]}    # each value holds until the next knot
    weight_decay: {linear: [[0, 0.1], [1000, 0.0]]}       # a straight line from knot to knot
    weight_decay: {cosine: [[0, 0.1], [1000, 0.0]]}       # half a cosine from knot to knot

Before the first knot its value holds, after the last one its value.
"""

from bisect import bisect_right
from collections.abc import Callable
from math import cos, isfinite, pi
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from jobs.schedule import Step

Knots = Annotated[tuple[Annotated[tuple[Step, float], Field(strict=False)], ...], Field(strict=False, min_length=1)]


class Curve(BaseModel):
    """A function of the step by its knots; exactly one of the three forms."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    piecewise: Knots | None = None
    linear: Knots | None = None
    cosine: Knots | None = None

    @model_validator(mode="after")
    def _one_form_in_order(self) -> "Curve":
        forms = [name for name in ("piecewise", "linear", "cosine") if getattr(self, name) is not None]
        if len(forms) != 1:
            raise ValueError("a function of the step is one of piecewise, linear, cosine")
        steps = [step for step, _ in self.knots]
        if steps != sorted(set(steps)):
            raise ValueError("knots are [step, value] with steps ascending, each once")
        return self

    @property
    def knots(self) -> tuple[tuple[int, float], ...]:
        """Return the knots of the form that was given."""
        return self.piecewise or self.linear or self.cosine or ()

    def at(self, step: int) -> float:
        """Return the value at `step`."""
        place = bisect_right([knot for knot, _ in self.knots], step) - 1
        if place < 0:
            return self.knots[0][1]
        start, value = self.knots[place]
        if self.piecewise or place == len(self.knots) - 1:
            return value
        end, target = self.knots[place + 1]
        done = (step - start) / (end - start)
        return value + (target - value) * (done if self.linear else 0.5 * (1 - cos(pi * done)))


def at(scalar: float | Curve, step: int) -> float:
    """Return the value of a scalar at `step`."""
    return scalar.at(step) if isinstance(scalar, Curve) else scalar


def ever(scalar: float | Curve) -> bool:
    """Return whether a scalar is other than 0 at any step."""
    return any(value != 0 for _, value in scalar.knots) if isinstance(scalar, Curve) else scalar != 0


def _tag(value: Any) -> str:
    return "Curve" if isinstance(value, dict | Curve) else "float"


def _within(low: float, high: float, *, open_low: bool, open_high: bool) -> Callable[[float | Curve], float | Curve]:
    def check(scalar: float | Curve) -> float | Curve:
        for step, value in scalar.knots if isinstance(scalar, Curve) else ():
            inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
            if not (inside and isfinite(value)):
                raise ValueError(f"the value {value!r} at step {step} is out of range")
        return scalar

    return check


_Curve = Annotated[Curve, Tag("Curve")]
PositiveScalar = Annotated[
    Annotated[float, Field(gt=0.0, allow_inf_nan=False), Tag("float")] | _Curve,
    Discriminator(_tag),
    AfterValidator(_within(0.0, float("inf"), open_low=True, open_high=True)),
]
NonNegativeScalar = Annotated[
    Annotated[float, Field(ge=0.0, allow_inf_nan=False), Tag("float")] | _Curve,
    Discriminator(_tag),
    AfterValidator(_within(0.0, float("inf"), open_low=False, open_high=True)),
]
FiniteScalar = Annotated[
    Annotated[float, Field(allow_inf_nan=False), Tag("float")] | _Curve,
    Discriminator(_tag),
    AfterValidator(_within(float("-inf"), float("inf"), open_low=True, open_high=True)),
]
FractionScalar = Annotated[
    Annotated[float, Field(ge=0.0, lt=1.0), Tag("float")] | _Curve,
    Discriminator(_tag),
    AfterValidator(_within(0.0, 1.0, open_low=False, open_high=True)),
]
