"""Performance profiles: the share of runs above a score, for all scores at once.

One task: the survival curve P(score > τ) with the band of Dvoretzky, Kiefer & Wolfowitz in Massart's form (1990),
±√(ln(2/α) / 2n), for every τ together and any distribution. Several tasks: the mean over tasks of those curves
(Agarwal et al. 2021), whose rows belong to seeds, so its band is the sup-t band over seeds.
"""

from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.bands import mean_band
from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Profile:
    """P(score > τ) at each of `thresholds`, with a band that holds for all of them at once.

    value, low, high  [threshold]
    """

    thresholds: Floats
    value: Floats
    low: Floats
    high: Floats
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED


def dkw_half_width(n: int, level: float = 0.95) -> float:
    """Return the half-width of the band for n runs; 1 without any."""
    return min(1.0, sqrt(log(2 / (1 - level)) / (2 * n))) if n else 1.0


def survival_of_scores(scores: Floats, cohort: Cohort, level: float = 0.95) -> Profile:
    """Return the profile of one task at every score that occurs.

    scores: [run], of the finished runs; the cohort's diverged runs count as below every score.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: leave runs without a score out, and count them as censored")
    thresholds, places = np.unique(scores, return_inverse=True)
    n = len(scores) + cohort.diverged
    at_each = np.bincount(places, minlength=len(thresholds))
    value = (len(scores) - np.cumsum(at_each)) / max(n, 1)
    half = dkw_half_width(n, level)
    low, high = np.maximum(value - half, 0.0), np.minimum(value + half, 1.0)
    return Profile(thresholds, value, low, high, "DKW", level, cohort)


def performance_profile(
    scores: Floats, thresholds: Floats, cohort: Cohort, rng: np.random.Generator, level: float = 0.95
) -> Profile:
    """Return the mean over tasks of P(score > τ) of [seed, task], rows resampled."""
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError("scores are [seed, task], all finite")
    above = np.stack([(scores > threshold).mean(axis=1) for threshold in thresholds], axis=1)
    band = mean_band(above, cohort, rng, level)
    low, high = np.maximum(band.low, 0.0), np.minimum(band.high, 1.0)
    return Profile(thresholds, band.value, low, high, band.method, level, cohort)
