"""The top of a log-likelihood, and the intervals between which a parameter's profile stays near it.

A profile interval holds the values that a likelihood-ratio test does not reject. It follows the likelihood's
shape where a standard error does not, and it is infinite on the side on which the data do not bound the parameter.
Source: Venzon & Moolgavkar 1988, with regula falsi in place of their Newton steps.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from math import inf, isfinite, isinf, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

Floats = NDArray[np.float64]
Likelihood = Callable[[Floats], tuple[float, Floats, Floats]]
_ITERATIONS, _GRADIENT, _LONGEST = 200, 1e-6, 2.0
_DOUBLINGS, _HALVINGS, _FAR = 24, 60, 60.0


@dataclass(frozen=True, slots=True)
class Top:
    """Where a log-likelihood is largest; `converged` says whether the gradient vanished there."""

    parameters: Floats
    value: float
    hessian: Floats
    converged: bool


def maximise(likelihood: Likelihood, start: Floats, fixed: int = -1) -> Top:
    """Return the top, by Newton steps that are shortened until they climb; the parameter `fixed` stays as it is."""
    free = np.flatnonzero(np.arange(len(start)) != fixed)
    here = start.astype(np.float64).copy()
    value, gradient, hessian = likelihood(here)
    for _ in range(_ITERATIONS):
        slope = gradient[free]
        if not len(free) or np.abs(slope).max() < _GRADIENT:
            return Top(here, value, hessian, converged=True)
        step = _uphill(slope, hessian[np.ix_(free, free)])
        length = min(1.0, _LONGEST / float(np.abs(step).max()))
        for _ in range(_HALVINGS):
            there = here.copy()
            there[free] += length * step
            trial = likelihood(there)
            if np.isfinite(trial[0]) and trial[0] >= value:
                break
            length /= 2
        else:
            return Top(here, value, hessian, converged=False)
        gained, here = trial[0] - value, there
        value, gradient, hessian = trial
        # A ridge that flattens out for ever (P = 1, say) has its top at infinity: it ends where nothing is gained.
        if gained < 1e-12 * (1 + abs(value)) and np.abs(gradient[free]).max() < 1e-4:
            return Top(here, value, hessian, converged=True)
    return Top(here, value, hessian, converged=False)


def _uphill(slope: Floats, hessian: Floats) -> Floats:
    """Return the Newton step, with the curvature made negative where it is not."""
    with contextlib.suppress(np.linalg.LinAlgError):
        factor = np.linalg.cholesky(-hessian)
        return np.asarray(np.linalg.solve(factor.T, np.linalg.solve(factor, slope)), np.float64)
    values, vectors = np.linalg.eigh(-(hessian + hessian.T) / 2)
    floor = max(1e-8 * float(np.abs(values).max()), 1e-10)
    return np.asarray(vectors @ ((vectors.T @ slope) / np.maximum(np.abs(values), floor)), np.float64)


def profile_interval(
    likelihood: Likelihood, top: Top, which: int, level: float, degrees: float = inf
) -> tuple[float, float]:
    """Return the ends of the profile-likelihood interval of one parameter; infinite where it is not bounded.

    degrees: of freedom left for the spread; the root of the deviance is held against Student's t with as many, as
    for profiles in least squares (Bates & Watts 1988, 6.1), and infinitely many give the likelihood-ratio test.
    """
    rest = np.flatnonzero(np.arange(len(top.parameters)) != which)
    information = -top.hessian
    inner = information[np.ix_(rest, rest)]
    curvature = information[which, which]
    if len(rest):
        curvature -= information[which, rest] @ np.linalg.pinv(inner) @ information[rest, which]
    root = critical(level, degrees)
    scale = min(max(root / sqrt(curvature) if curvature > 1e-6 else 1.0, 1e-3), 5.0)
    return _end(likelihood, top, which, root, -scale), _end(likelihood, top, which, root, scale)


def critical(level: float, degrees: float) -> float:
    """Return how far the signed root of the deviance may be from 0."""
    return float(ndtri((1 + level) / 2) if isinf(degrees) else stdtrit(degrees, (1 + level) / 2))


def _end(likelihood: Likelihood, top: Top, which: int, root: float, step: float) -> float:
    """Return where the signed root of the deviance, nearly a straight line, passes `root`."""
    near, short, start = float(top.parameters[which]), -root, top.parameters
    centre = near
    for _ in range(_DOUBLINGS):
        far = near + step
        excess, found = _excess(likelihood, top, which, far, start, root)
        if excess >= 0:
            return _between(likelihood, top, which, root, (near, short), (far, excess), start)
        near, short, start = far, excess, found
        step *= 1.5
        if abs(near - centre) > _FAR:
            break
    return inf if step > 0 else -inf


def _between(
    likelihood: Likelihood,
    top: Top,
    which: int,
    root: float,
    inside: tuple[float, float],
    outside: tuple[float, float],
    start: Floats,
) -> float:
    """Return the place of the root between two, by regula falsi with the Illinois rule."""
    (near, short), (far, over) = inside, outside
    last = 0
    for turn in range(_HALVINGS):
        share = -short / (over - short) if isfinite(over) and turn % 8 != 7 else 0.5
        middle = near + share * (far - near)
        excess, found = _excess(likelihood, top, which, middle, start, root)
        if abs(excess) < 1e-6 * root or abs(far - near) < 1e-10 * (1 + abs(near)):
            return middle
        if excess < 0:
            near, short, start = middle, excess, found
            over = over / 2 if last < 0 else over
            last = -1
        else:
            far, over = middle, excess
            short = short / 2 if last > 0 else short
            last = 1
    return near


def _excess(
    likelihood: Likelihood, top: Top, which: int, at: float, start: Floats, root: float
) -> tuple[float, Floats]:
    """Return (signed root of the deviance at a value, less `root`; the best parameters there)."""
    trial = start.copy()
    trial[which] = at
    found = maximise(likelihood, trial, which)
    deviance = 2 * (top.value - found.value)
    return (sqrt(max(deviance, 0.0)) - root if isfinite(deviance) else inf), found.parameters
