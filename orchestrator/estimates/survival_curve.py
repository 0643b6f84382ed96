"""P(score >= τ) for every τ at once: what P(success) would be had the threshold been another.

A threshold that was chosen on the same data makes P(success) look better than it is; the whole curve with a band that
holds for all τ together does not. The band is Dvoretzky, Kiefer & Wolfowitz's with Massart's constant (1990):
± sqrt(ln(2/α) / 2n), .30 at 20 runs. "At or above" is the rule of a success, so the curve at the rule's threshold is
P(success).
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SurvivalCurve:
    """A step curve that falls after each of its thresholds, with a simultaneous band.

    thresholds   [point], the scores that occurred, ascending
    value        [point], the share of runs with known outcome whose score is at or above the threshold
    low, high    [point], the band; it holds for all τ together
    """

    thresholds: Floats
    value: Floats
    low: Floats
    high: Floats
    level: float
    cohort: Cohort
    method: str = "DKW"
    unit: str = "run"
    stopping_rule: str = FIXED

    def at(self, threshold: float) -> tuple[float, float, float]:
        """Return (value, low, high) at any τ; beyond the largest score the value is 0."""
        place = int(np.searchsorted(self.thresholds, threshold))
        if place < len(self.thresholds):
            return float(self.value[place]), float(self.low[place]), float(self.high[place])
        half = half_width(self.cohort.known, self.level)
        return (0.0, 0.0, half) if self.cohort.known else (float("nan"), 0.0, 1.0)


def half_width(n: int, level: float = 0.95) -> float:
    """Return the half-width of the band of n runs, at most 1."""
    return min(1.0, sqrt(log(2 / (1 - level)) / (2 * n))) if n else 1.0


def survival_curve(scores: Floats, cohort: Cohort, level: float = 0.95) -> SurvivalCurve:
    """Return the curve from the scores [run] of the runs that finished; diverged runs lie below every threshold.

    Raises ValueError if there is not one score for every finished run.
    """
    if len(scores) != cohort.finished or np.isnan(scores).any():
        raise ValueError(
            f"{len(scores)} scores (NaN: {int(np.isnan(scores).sum())}) of {cohort.finished} finished runs"
        )
    thresholds = np.unique(scores)
    at_or_above = len(scores) - np.searchsorted(np.sort(scores), thresholds)
    value = at_or_above / max(cohort.known, 1)
    half = half_width(cohort.known, level)
    return SurvivalCurve(thresholds, value, np.clip(value - half, 0, 1), np.clip(value + half, 0, 1), level, cohort)
