"""The rules of `stop:` by name: what each is called beside an estimate, and which interval holds after it.

For `width` that is Agresti-Coull's at a nominal 96 %, whose coverage after stopping is computed exactly
(`estimates/stopping.py`); for `midpoint` intervals at a nominal 97 % (`estimates/allocation.py`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.stop import StopRule, WidthStop
from orchestrator.estimates.allocation import ADAPTIVE_LEVEL, seeds_for_midpoint
from orchestrator.estimates.stopping import WidthRule, characteristics

SHOWN_P = (0.02, 0.1, 0.3, 0.5)
_CERTIFIED_P = np.arange(0.005, 0.9951, 0.005)
_SLOPES = (5.0, 10.0)  # logits per decade, flat and steep among what was seen


def width_rule(stop: WidthStop, first: int) -> WidthRule:
    """Return the rule of conditions whose first batch has so many seeds."""
    return WidthRule(stop.half_width, every=stop.every, least=first, most=stop.most)


def rule_id(stop: StopRule, first: int) -> str:
    """Return the name of the rule, from which all it does can be known."""
    if isinstance(stop, WidthStop):
        return width_rule(stop, first).id
    return (
        f"stop when the 50 % scale is within a factor {stop.factor:g} at {ADAPTIVE_LEVEL:g}, "
        f"{stop.every} seeds at a time after {first} a scale, at most {stop.budget} runs"
    )


def published(stop: StopRule, first: int) -> tuple[str, float]:
    """Return method and level of the interval of P(success) at one condition."""
    if isinstance(stop, WidthStop):
        rule = width_rule(stop, first)
        return rule.method, rule.level
    return "agresti-coull", ADAPTIVE_LEVEL


@dataclass(frozen=True, slots=True)
class StopPlan:
    """What a rule will take, and what its interval covers.

    seeds     P → (expected seeds a condition, seeds that are not exceeded with 95 %); of `midpoint` nothing is exact
    coverage  (least, mean) over P from .005 to .995, exactly; None where it can only be simulated
    most      seeds a condition, or runs in all, at the utmost
    note      in words, what else is known
    """

    rule: str
    seeds: dict[float, tuple[float, int]]
    coverage: tuple[float, float] | None
    most: int
    note: str = ""


def stop_plan(stop: StopRule, first: int) -> StopPlan:
    """Return what the rule does, by exact enumeration where that is possible."""
    rule = rule_id(stop, first)
    if not isinstance(stop, WidthStop):
        least = [round(seeds_for_midpoint(float(np.log10(stop.factor)), slope)) for slope in _SLOPES]
        steep = ", ".join(f"{n} seeds at slope {s:g}" for n, s in zip(least, _SLOPES, strict=True))
        note = f"even all at the midpoint, with the slope known, it takes {steep} (logits per decade)"
        return StopPlan(rule, {}, None, stop.budget, note)
    exact = width_rule(stop, first)
    shown = characteristics(exact, np.array(SHOWN_P))
    expected, most = shown.expected_n.tolist(), shown.most_seeds().tolist()
    coverage: NDArray[np.float64] = characteristics(exact, _CERTIFIED_P).coverage
    seeds = {p: (e, int(n)) for p, e, n in zip(SHOWN_P, expected, most, strict=True)}
    return StopPlan(rule, seeds, (float(coverage.min()), float(coverage.mean())), stop.most)
