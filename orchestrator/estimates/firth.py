"""Firth's logistic regression of successes on one variable, for many data sets at once.

    logit P(x) = η(x) = c + b (x - at),   ℓ*(c, b) = ℓ(c, b) + ½ ln det I(c, b)

The penalty (Jeffreys' prior) keeps the fit finite where the scales separate successes from failures, and removes most
of the bias of few seeds: at 6 scales × 10 seeds the plain fit was off by +6.7 in η one scale on, this one by -.03.
Everything that is said of a fit comes from one function, the profile: the largest ℓ* with η at one place held fixed.
Sources: Firth 1993, Biometrika 80; Heinze & Schemper 2002, Statistics in Medicine 21.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, xlogy

Floats = NDArray[np.float64]
_SCORING_STEPS = 200
_LARGEST_STEP = 3.0  # in η, at any scale
_TOLERANCE = 1e-10
_FLAT = 1e-300  # information below this is none


@dataclass(frozen=True, slots=True)
class Counts:
    """Successes by scale, of one or many data sets.

    x  [scale], log10 of the scale; k, n  [data set, scale], successes and runs with known outcome
    """

    x: Floats
    k: Floats
    n: Floats


def fit(counts: Counts) -> tuple[Floats, Floats, Floats]:
    """Return (intercept [data set], slope [data set], ℓ* [data set]) at the maximum of ℓ*."""
    centre = float(counts.x.mean())
    c, b = np.zeros(len(counts.k)), np.zeros(len(counts.k))
    z = counts.x - centre
    for _ in range(_SCORING_STEPS):
        p, weight, leverage = _pieces(c[:, None] + b[:, None] * z, counts.n, z)
        residual = counts.k - counts.n * p + leverage * (0.5 - p)
        s0, s1, s2, det = _information(weight, z)
        u0, u1 = residual.sum(axis=1), (residual * z).sum(axis=1)
        det = np.maximum(det, _FLAT)
        step_c, step_b = (s2 * u0 - s1 * u1) / det, (s0 * u1 - s1 * u0) / det
        shrink = _shrink(np.abs(step_c[:, None] + step_b[:, None] * z).max(axis=1))
        c, b = c + shrink * step_c, b + shrink * step_b
        if (np.abs(step_c) + np.abs(step_b)).max() < _TOLERANCE:
            break
    return c - b * centre, b, penalised(counts, c[:, None] + b[:, None] * z)


def penalised(counts: Counts, eta: Floats) -> Floats:
    """Return ℓ* [data set] at η [data set, scale], without the binomial coefficients."""
    p, weight, _ = _pieces(eta, counts.n, counts.x)
    det = _information(weight, counts.x - counts.x.mean())[3]
    likelihood = xlogy(counts.k, p) + xlogy(counts.n - counts.k, expit(-eta))
    return np.asarray(likelihood.sum(axis=1) + 0.5 * np.log(np.maximum(det, _FLAT)))


def profile_at(counts: Counts, at: Floats, eta: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return (largest ℓ*, the slope there), each [data set], with η(at) [data set] held fixed.

    start  [data set], the slope to begin from
    """
    z = counts.x - at[:, None]
    return _along(counts, z, eta[:, None] + np.zeros_like(z), start)


def profile_slope(counts: Counts, slope: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return (largest ℓ*, the intercept there), each [data set], with the slope [data set] held fixed."""
    ones = np.ones((len(slope), len(counts.x)))
    return _along(counts, ones, slope[:, None] * counts.x, start)


def _along(counts: Counts, direction: Floats, offset: Floats, start: Floats) -> tuple[Floats, Floats]:
    """Return (largest ℓ*, b) over b of η = offset + b direction, by scoring with the full penalty."""
    b = start
    for _ in range(_SCORING_STEPS):
        p, weight, leverage = _pieces(offset + b[:, None] * direction, counts.n, counts.x)
        score = ((counts.k - counts.n * p + leverage * (0.5 - p)) * direction).sum(axis=1)
        information = ((weight + leverage * p * (1 - p)) * direction**2).sum(axis=1)
        step = score / np.maximum(information, _FLAT)
        step = step * _shrink(np.abs(step[:, None] * direction).max(axis=1))
        b = b + step
        if np.abs(step[:, None] * direction).max() < 1e-9:
            break
    return penalised(counts, offset + b[:, None] * direction), b


def _pieces(eta: Floats, n: Floats, x: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (P, weight n P (1 - P), leverage), each [data set, scale]; leverages of a data set sum to 2."""
    p = expit(eta)
    weight = n * p * expit(-eta)
    z = x - x.mean()
    s0, s1, s2, det = _information(weight, z)
    spread = s2[:, None] - 2 * s1[:, None] * z + s0[:, None] * z**2
    return p, weight, weight * spread / np.maximum(det, _FLAT)[:, None]


def _information(weight: Floats, z: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the three sums of the information matrix and its determinant, each [data set]."""
    s0, s1, s2 = weight.sum(axis=1), (weight * z).sum(axis=1), (weight * z**2).sum(axis=1)
    # The determinant as a sum of squares: the difference of products loses its digits when almost separated.
    pairs = weight[:, :, None] * weight[:, None, :] * (z[:, None] - z) ** 2
    return s0, s1, s2, pairs.sum(axis=(1, 2)) / 2


def _shrink(largest: Floats) -> Floats:
    return np.minimum(1.0, _LARGEST_STEP / np.maximum(largest, _FLAT))
