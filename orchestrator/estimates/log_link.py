"""Means that follow a power law, M(x) = A x^-α, fitted to means themselves and not to their logs.

The score equations are those of Poisson regression with a log link: Σ n (m - M) = 0 and Σ n (m - M) log x = 0. They
need nothing of the distribution but its mean (Gourieroux, Monfort & Trognon 1984), and a mean of zero is a number
like any other, where the log of exact-match accuracy of failed runs would not exist. Many data sets at once.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_STEPS = 100
_LARGEST_STEP = 2.0  # in log M, at any scale
_NOTHING = -690.0  # log M of a component whose scores are all zero: e^-690 is zero to any sum


def fit_means(log_x: Floats, total: Floats, runs: Floats) -> Floats:
    """Return [data set, 2]: log A and α, from sums of scores and numbers of runs, both [data set, scale].

    With runs at one scale alone the mean is a constant; without any the law is NaN.
    """
    centre = float(log_x.mean())
    z = log_x - centre
    all_runs, all_total = runs.sum(axis=1), total.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = np.where(all_runs > 0, np.maximum(np.log(all_total / all_runs), _NOTHING), np.nan)
    slope = np.where(np.isnan(level), np.nan, 0.0)
    sloped = ((runs > 0).sum(axis=1) > 1) & (all_total > 0)
    for _ in range(_STEPS):
        expected = runs * np.exp(level[:, None] + slope[:, None] * z)
        missing = total - expected
        u0, u1 = missing.sum(axis=1), missing @ z
        s0, s1, s2 = expected.sum(axis=1), expected @ z, expected @ z**2
        with np.errstate(divide="ignore", invalid="ignore"):
            det = s0 * s2 - s1**2
            up, tilt = (s2 * u0 - s1 * u1) / det, (s0 * u1 - s1 * u0) / det
            largest = np.abs(up[:, None] + tilt[:, None] * z).max(axis=1)
            shrink = np.where(sloped & np.isfinite(largest), np.minimum(1, _LARGEST_STEP / largest), 0.0)
            up, tilt = np.where(shrink > 0, shrink * up, 0.0), np.where(shrink > 0, shrink * tilt, 0.0)
        level, slope = level + up, slope + tilt
        if max(np.abs(up).max(), np.abs(tilt).max()) < 1e-12:
            break
    return np.stack([level - slope * centre, -slope], axis=1)


def means_at(fitted: Floats, log_x: Floats) -> Floats:
    """Return M [data set, place] of laws [data set, 2] at log scales [place]."""
    return np.asarray(np.exp(fitted[:, :1] - fitted[:, 1:] * log_x), np.float64)
