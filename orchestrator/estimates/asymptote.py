"""P over scale with a floor and a ceiling: P = γ + (1 - γ - λ) σ(b (x - m)), x = log10 of the scale.

The rival of the two-parameter curve where P levels off below one. Plain likelihood; the interval for P at any scale is
the profile likelihood's: the least and the largest P there among all curves that the data do not reject. A grid finds
the region, a constrained search its ends. With fewer than two scales on the plateau the ceiling is not known, and the
interval says so by its width. Sources: Wichmann & Hill 2001 (lapses and guesses); Venzon & Moolgavkar 1988.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, xlogy
from scipy.stats import chi2

from orchestrator.estimates.firth import Counts

Floats = NDArray[np.float64]
METHOD = "logistic with floor and ceiling, profile likelihood"
_FLOORS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35)
_LAPSES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6)
_MIDPOINTS, _SLOPES = 31, 10
_STEEPEST, _FLATTEST = 40.0, 0.8  # per decade
_LEAST = 1e-9  # P is kept this far from 0 and 1
_BOUNDS = ((-_STEEPEST, _STEEPEST), (0.0, 0.5), (0.0, 0.9))


@dataclass(frozen=True, slots=True)
class Plateau:
    """The curve at its largest likelihood; `midpoint` is log10 of the scale halfway between floor and ceiling."""

    midpoint: float
    slope: float
    floor: float
    ceiling: float
    log_likelihood: float

    def at(self, x: Floats) -> Floats:
        """Return P at log10 scales."""
        return _curve(np.array([self.midpoint, self.slope, self.floor, 1 - self.ceiling]), x)


def fit_plateau(counts: Counts) -> Plateau:
    """Return the best curve of one data set: the best of a grid, then polished."""
    grid, p = _grid(tuple(counts.x))
    start = grid[int(_on_grid(counts, p).argmax())]
    found = minimize(lambda q: -_likelihood(counts, q), start, method="L-BFGS-B", bounds=_bounds(counts))
    best = found.x if -found.fun >= _likelihood(counts, start) else start
    return Plateau(float(best[0]), float(best[1]), float(best[2]), float(1 - best[3]), _likelihood(counts, best))


def plateau_at(counts: Counts, x: float, level: float = 0.95) -> tuple[float, float, float]:
    """Return (P, low, high) at log10 scale x of one data set."""
    best = fit_plateau(counts)
    grid, p = _grid(tuple(counts.x))
    allowed = best.log_likelihood - float(chi2.ppf(level, 1)) / 2
    inside = grid[_on_grid(counts, p) >= allowed]
    value = float(best.at(np.array([x]))[0])
    there = np.array([_curve(q, np.array([x]))[0] for q in inside]) if len(inside) < 50 else _curves(inside, x)
    ends = []
    for sign in (1.0, -1.0):
        start = inside[int((sign * there).argmin())] if len(inside) else _parameters(best)
        ends.append(_extreme(counts, x, sign, start, allowed))
    low, high = min(ends[0], value, *there), max(ends[1], value, *there)
    return value, low, high


def _extreme(counts: Counts, x: float, sign: float, start: Floats, allowed: float) -> float:
    """Return the least (sign 1) or largest (-1) P at x among curves of likelihood `allowed` or more."""
    place = np.array([x])
    found = minimize(
        lambda q: sign * _curve(q, place)[0],
        start,
        method="SLSQP",
        bounds=_bounds(counts),
        constraints={"type": "ineq", "fun": lambda q: _likelihood(counts, q) - allowed},
        options={"maxiter": 60, "ftol": 1e-7},
    )
    # A search that left the region proves nothing; the grid's own extreme stands.
    ended = found.x if _likelihood(counts, found.x) >= allowed - 1e-4 else start
    return float(_curve(ended, place)[0])


def _likelihood(counts: Counts, parameters: Floats) -> float:
    p = np.clip(_curve(parameters, counts.x), _LEAST, 1 - _LEAST)
    return float((xlogy(counts.k[0], p) + xlogy(counts.n[0] - counts.k[0], 1 - p)).sum())


def _curve(parameters: Floats, x: Floats) -> Floats:
    midpoint, slope, floor, lapse = parameters
    return np.asarray(floor + (1 - floor - lapse) * expit(slope * (x - midpoint)))


def _curves(points: Floats, x: float) -> Floats:
    return np.asarray(points[:, 2] + (1 - points[:, 2] - points[:, 3]) * expit(points[:, 1] * (x - points[:, 0])))


def _on_grid(counts: Counts, p: tuple[Floats, Floats]) -> Floats:
    return np.asarray(p[0] @ counts.k[0] + p[1] @ (counts.n[0] - counts.k[0]))


@lru_cache(maxsize=32)
def _grid(x: tuple[float, ...]) -> tuple[Floats, tuple[Floats, Floats]]:
    """Return (points [point, parameter], (log P, log 1 - P) [point, scale]) for these log10 scales."""
    span = max(x) - min(x)
    middle = np.linspace(min(x) - span / 2, max(x) + span, _MIDPOINTS)
    steep = np.geomspace(_FLATTEST, _STEEPEST, _SLOPES)
    axes = np.meshgrid(middle, np.concatenate([-steep[::-1], steep]), _FLOORS, _LAPSES, indexing="ij")
    points = np.stack([axis.ravel() for axis in axes], axis=1)
    p = np.clip(np.stack([_curves(points, place) for place in x], axis=1), _LEAST, 1 - _LEAST)
    return points, (np.log(p), np.log1p(-p))


def _bounds(counts: Counts) -> tuple[tuple[float, float], ...]:
    span = float(np.ptp(counts.x))
    return ((float(counts.x.min()) - span, float(counts.x.max()) + 2 * span), *_BOUNDS)


def _parameters(plateau: Plateau) -> Floats:
    return np.array([plateau.midpoint, plateau.slope, plateau.floor, 1 - plateau.ceiling])
