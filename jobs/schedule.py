"""Schedules of steps: when to probe, when to keep a checkpoint.

In a study file: `pythia`, `log2`, `{every: 50}`, a list of steps, or a list that mixes them (their union).
Step 0 and the last step are always in. `pythia` is the schedule of Biderman et al. 2023: 0, the powers
of two up to 512, then every 1000.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Step = Annotated[int, Field(ge=0)]


class Every(BaseModel):
    """Every so many steps."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    every: Annotated[int, Field(ge=1)]


Rule = Literal["pythia", "log2"] | Every | Step
Schedule = Rule | Annotated[tuple[Rule, ...], Field(strict=False)]


def steps_of(schedule: Schedule, last: int) -> tuple[int, ...]:
    """Return the steps of the schedule up to `last`, ascending, each once; 0 and `last` always included."""
    rules = schedule if isinstance(schedule, tuple) else (schedule,)
    steps = {0, last}
    for rule in rules:
        steps.update(_steps_of_rule(rule, last))
    return tuple(sorted(step for step in steps if step <= last))


def _steps_of_rule(rule: Rule, last: int) -> list[int]:
    if isinstance(rule, Every):
        return list(range(0, last + 1, rule.every))
    if isinstance(rule, int):
        return [rule]
    powers = [2**n for n in range(max(last, 1).bit_length())]
    if rule == "log2":
        return powers
    return [power for power in powers if power <= 512] + list(range(1000, last + 1, 1000))
