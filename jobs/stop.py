"""When there are enough seeds: rules that give the next batch to the conditions that need it.

    stop: {rule: width, half_width: 0.1, every: 8, most: 200}        # P(success) of every condition
    stop: {rule: midpoint, factor: 1.2, every: 32, budget: 1000}     # the scale at which P is one half

`seeds.count` is the first batch of every condition. With `width`, a condition gets `every` more seeds until the
half-width of its interval is at most `half_width`, or it has `most` seeds. With `midpoint`, all conditions share
batches of `every` seeds until the 50 % scale is known within `factor` on both sides, or `budget` runs were launched.
What the rules do is in `orchestrator/adaptive.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from jobs.spec import Count, Spec


class WidthStop(Spec):
    """Enough is an interval of P(success) with at most this half-width, condition by condition."""

    rule: Literal["width"]
    half_width: Annotated[float, Field(gt=0.0, lt=0.5)]
    every: Count = 8
    most: Count


class MidpointStop(Spec):
    """Enough is the scale at which P(success) is one half, known within `factor`; `budget` counts all runs."""

    rule: Literal["midpoint"]
    factor: Annotated[float, Field(gt=1.0, allow_inf_nan=False)]
    every: Count = 32
    budget: Count


StopRule = Annotated[WidthStop | MidpointStop, Field(discriminator="rule")]
