"""Performance profiles of several tasks: the share of (seed, task) scores above τ, for all τ at once.

The mean over tasks of the survival curves of scores (Agarwal et al. 2021). Its rows belong to seeds, so its band is the
sup-t band over seeds. One task has a band without assumptions: `survival_curve.py`.
"""

from dataclasses import dataclass

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
