"""What a number of seeds can show, before any is trained: how narrow, how rare, how close.

Exact, because outcomes are counts (`estimates/power.py`). A second mode is seen only if the seeds hold two runs of it;
that is a bound from above on the power of a test of modes, which depends on their spread, too.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from jobs.errors import QueryError
from orchestrator.estimates.power import (
    chance_of_mode,
    fisher_power,
    half_width_after,
    seeds_for_half_width,
    seeds_for_mode,
    seeds_to_tell_apart,
)
from orchestrator.estimates.success import upper_bound_of_none, wilson
from orchestrator.summary import StudySummary

LEVEL = 0.95
POWER = 0.8
SHOWN_WEIGHTS = (0.05, 0.1, 0.2, 0.5)
SHOWN_P = (0.1, 0.3, 0.5)
_MOST_EXACT = 200  # seeds a condition; above it Fisher's test takes seconds, and the distance is small anyhow


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be shown: an interval's half-width at P, a mode of a weight, two conditions' P; with which chance."""

    half_width: float = 0.1
    p: float = 0.5
    mode: float = 0.1
    apart: tuple[float, float] = (0.3, 0.6)
    chance: float = POWER


@dataclass(frozen=True, slots=True)
class Needed:
    """Seeds a condition that each of these needs."""

    wanted: Wanted
    for_half_width: int
    for_mode: int
    to_tell_apart: int


@dataclass(frozen=True, slots=True)
class CanShow:
    """What so many seeds a condition can show.

    half_width  of Wilson's 95 % interval, at its widest
    excluded    no success in so many seeds excludes P from here on, one-sided
    modes       weight of the smaller mode → probability that it holds two seeds at least
    apart       P → the next larger P, in steps of .01, that Fisher's test tells from it with power .8; None: not even 1
    """

    seeds: int
    half_width: float
    excluded: float
    modes: dict[float, float]
    apart: dict[float, float | None]

    def says(self) -> Iterator[str]:
        """Return it in sentences."""
        yield (
            f"With {self.seeds} seeds a condition P(success) is known to ± {self.half_width:.2f} at worst (Wilson "
            f"95 %), and no success at all excludes P ≥ {self.excluded:.2f}."
        )
        seen = ", ".join(f"{weight:g}: {chance:.2f}" for weight, chance in self.modes.items())
        yield f"A second mode can be seen where two seeds are in it; by its weight, the chance of that is {seen}."
        told = "; ".join(
            f"{p:g} from {'no other' if other is None else f'{other:.2f} on'}" for p, other in self.apart.items()
        )
        yield f"Fisher's test of two such conditions tells, with power {POWER:g}, P = {told}."


@dataclass(frozen=True, slots=True)
class PowerPlan:
    """Seeds that questions need, and what the study's own seeds can show; `declared`: conditions with so many seeds."""

    study: str
    needed: Needed
    declared: dict[int, int]
    shows: tuple[CanShow, ...]


def needed(wanted: Wanted) -> Needed:
    """Return how many seeds a condition it takes; raises QueryError for what no number of seeds can show."""
    if not 0 < wanted.p < 1:
        raise QueryError(f"P lies between 0 and 1, not at {wanted.p:g}")
    try:
        return Needed(
            wanted,
            seeds_for_half_width(wanted.half_width, wanted.p, wanted.chance),
            seeds_for_mode(wanted.mode, wanted.chance),
            seeds_to_tell_apart(*wanted.apart, wanted.chance),
        )
    except ValueError as error:
        raise QueryError(str(error)) from None


@lru_cache(maxsize=64)
def can_show(seeds: int) -> CanShow:
    """Return what so many seeds a condition can show; raises QueryError below one seed."""
    if seeds < 1:
        raise QueryError("without a seed nothing can be shown")
    low, high = wilson(seeds // 2, seeds, LEVEL)
    return CanShow(
        seeds=seeds,
        half_width=(high - low) / 2,
        excluded=upper_bound_of_none(seeds, LEVEL),
        modes={weight: chance_of_mode(seeds, weight) for weight in SHOWN_WEIGHTS},
        apart={p: _next_told(p, min(seeds, _MOST_EXACT)) for p in SHOWN_P},
    )


def power_plan(study: str, seeds: list[int], wanted: Wanted) -> PowerPlan:
    """Return the plan of a study whose conditions have so many seeds each."""
    counts = sorted(set(seeds))
    return PowerPlan(
        study, needed(wanted), {count: seeds.count(count) for count in counts}, tuple(can_show(n) for n in counts)
    )


def _next_told(p: float, seeds: int) -> float | None:
    """Return the least larger P that is told from p; power rises with the distance."""
    low, high = round(100 * p), 100
    if fisher_power(seeds, seeds, p, 1.0) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fisher_power(seeds, seeds, p, middle / 100) >= POWER else (middle, high)
    return high / 100


def bought(summary: StudySummary, more: int) -> list[dict[str, object]]:
    """Return what `more` seeds would do to the half-width of each condition's interval of P(success), as plain data."""
    rows: list[dict[str, object]] = []
    for condition in summary.conditions:
        k, n, found = condition.successes, condition.success.cohort.known, condition.success
        after = half_width_after(k, n, more, found.method, found.level)
        rows.append(
            {
                "condition": condition.condition.label,
                "successes": k,
                "known": n,
                "method": found.method,
                "level": found.level,
                "now": after.now,
                "expected": after.expected,
                "least": after.least,
                "most": after.most,
            }
        )
    return rows
