"""Which conditions get the next batch of seeds: pure, from what every launched batch has shown.

A rule looks only when all runs of a batch have ended, so neither timing nor the order of completion can change what
it decides.

Not here: where decisions are kept, and the loop that launches what they say (`rounds.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.identity import canonical_json, sha256
from jobs.records import Status
from jobs.stop import MidpointStop, StopRule, WidthStop
from orchestrator.estimates.allocation import ADAPTIVE_LEVEL, next_seeds, posterior
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.stopping import WidthRule
from orchestrator.estimates.success_over_scale import counts_of, midpoint_over_scale
from orchestrator.stop_rules import rule_id, width_rule
from orchestrator.summary import StudySummary


@dataclass(frozen=True, slots=True)
class Look:
    """One condition when all its launched runs have ended: how many there were, of how many the outcome is known."""

    condition_id: str
    scale: float
    launched: int
    known: int
    successes: int


@dataclass(frozen=True, slots=True)
class Decision:
    """What a rule said after one look at all conditions.

    rule    its id, as it stands beside every estimate
    counts  condition → how many seeds it has from now on; equal to what was launched where it gets no more
    """

    number: int
    rule: str
    looks: tuple[Look, ...]
    counts: dict[str, int]

    @property
    def is_last(self) -> bool:
        """Return whether no condition gets more seeds."""
        return all(self.counts[look.condition_id] == look.launched for look in self.looks)


def looks_of(summary: StudySummary) -> tuple[Look, ...]:
    """Return what each condition shows, in the order of the grid; raises ValueError while runs have not ended."""
    found = []
    for one in summary.conditions:
        open_runs = sum(one.counts[status] for status in Status if not status.is_terminal)
        if open_runs:
            raise ValueError(f"{open_runs} runs of {one.condition.label} have not ended")
        scale = one.condition.factors.get(summary.scale)
        number = float(scale) if isinstance(scale, int | float) else float("nan")
        found.append(Look(one.condition.id, number, one.launched, one.success.cohort.known, one.successes))
    return tuple(found)


def decide(stop: StopRule, study: str, first: int, looks: Sequence[Look], number: int) -> Decision:
    """Return the rule's decision after these looks, the `number`-th of the study (from 1)."""
    rule = rule_id(stop, first)
    if isinstance(stop, WidthStop):
        counts = {look.condition_id: _width_count(width_rule(stop, first), look) for look in looks}
    else:
        counts = _midpoint_counts(stop, looks, _generator(study, rule, number))
    return Decision(number, rule, tuple(looks), counts)


def midpoint(stop: MidpointStop, first: int, looks: Sequence[Look]) -> Estimate:
    """Return log10 of the scale at which P is one half, at the level that holds after this rule.

    Raises ValueError where fewer than two scales have a known outcome.
    """
    launched, known = sum(look.launched for look in looks), sum(look.known for look in looks)
    cohort = Cohort("", launched, known, 0, launched - known)
    counts = counts_of(*([getattr(look, name) for look in looks] for name in ("scale", "successes", "known")))
    return midpoint_over_scale(counts, cohort, ADAPTIVE_LEVEL, stopping_rule=rule_id(stop, first))


def as_record(decision: Decision, study: str) -> dict[str, Any]:
    """Return the decision as plain data."""
    rows = [[look.condition_id, look.scale, look.launched, look.known, look.successes] for look in decision.looks]
    return {
        "study": study,
        "number": decision.number,
        "rule": decision.rule,
        "looks": [[None if cell != cell else cell for cell in row] for row in rows],
        "counts": decision.counts,
    }


def of_record(body: dict[str, Any]) -> Decision:
    """Return the decision of a record."""
    looks = tuple(Look(name, float("nan") if scale is None else scale, *rest) for name, scale, *rest in body["looks"])
    return Decision(body["number"], body["rule"], looks, dict(body["counts"]))


def _width_count(rule: WidthRule, look: Look) -> int:
    if look.launched >= rule.most or rule.stops(look.successes, look.known):
        return look.launched
    return min(look.launched + rule.every, rule.most)


def _midpoint_counts(stop: MidpointStop, looks: Sequence[Look], rng: np.random.Generator) -> dict[str, int]:
    counts = {look.condition_id: look.launched for look in looks}
    batch = min(stop.every, stop.budget - sum(counts.values()))
    if batch <= 0 or _is_known(stop, looks):
        return counts
    k, n = (np.array([getattr(look, name) for look in looks]) for name in ("successes", "known"))
    scales = np.array([look.scale for look in looks])
    shares = k / np.maximum(n, 1)
    falling = bool(np.polyfit(np.log10(scales), shares, 1)[0] < 0)
    for look, more in zip(looks, next_seeds(posterior(scales, k, n, falling), batch, rng).tolist(), strict=True):
        counts[look.condition_id] += more
    return counts


def _is_known(stop: MidpointStop, looks: Sequence[Look]) -> bool:
    if sum(look.known > 0 for look in looks) < 2:
        return False
    found = midpoint(stop, 0, looks)
    return bool(max(found.high - found.value, found.value - found.low) <= np.log10(stop.factor))


def _generator(study: str, rule: str, number: int) -> np.random.Generator:
    """Return the generator of one decision: the same wherever and whenever it is made."""
    entropy = int(sha256(canonical_json([study, rule, number])), 16)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
