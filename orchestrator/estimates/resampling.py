"""How far out the percentiles of resampled runs have to be.

Plain percentiles of resamples of n runs are too near: a resample's variance is (n - 1)/n of what it should be, and the
normal quantile is not Student's. Expanded by both they are, for a mean, nearly its t interval.
Source: Hesterberg 2015, The American Statistician 69, section 3.3 and its footnotes.
"""

from math import sqrt

from scipy.special import ndtr, stdtrit


def expanded_tails(units: int, level: float) -> tuple[float, float]:
    """Return the two probabilities at which quantiles over resamples of so many units bound an interval."""
    if units < 2:
        return 0.0, 1.0
    far = float(stdtrit(units - 1, (1 + level) / 2)) * sqrt(units / (units - 1))
    return float(ndtr(-far)), float(ndtr(far))
