"""Which scale gets the next seeds, if the question is the scale at which P is one half.

A grid posterior over (midpoint, slope) of a logistic curve; for each scale the variance of the midpoint that is
expected after one more seed there; the seeds of a batch are drawn with probabilities ∝ gain². Never the best scale
alone: a batch is launched together, and all its seeds would go to one scale. On 7 scales this reached ±20 % of the
midpoint with half the seeds of an even design. The posterior allocates and is not published: after an adaptive design
publish `success_over_scale` at `ADAPTIVE_LEVEL`.
Sources: Kontsevich & Tyler 1999; Watson 2017 (QUEST+); Chaloner & Larntz 1989; Ford, Torsney & Wu 1992 (D-optimality).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit

Floats = NDArray[np.float64]
ADAPTIVE_LEVEL = 0.97  # nominal, so that 95 % is covered when the data chose the design
_MIDPOINTS, _SLOPES = 121, 31
_STEEPEST, _FLATTEST = 40.0, 1.0  # per decade, in absolute value


@dataclass(frozen=True, slots=True)
class Posterior:
    """Weights over a grid of curves.

    x                  [scale], log10 of the scales that may be run
    midpoints, slopes  [point], log10 scale and logits per decade
    weights            [point], summing to 1
    """

    x: Floats
    midpoints: Floats
    slopes: Floats
    weights: Floats

    @property
    def midpoint(self) -> tuple[float, float]:
        """Return mean and variance of the midpoint."""
        mean = float(self.weights @ self.midpoints)
        return mean, float(self.weights @ (self.midpoints - mean) ** 2)


def posterior(scales: Floats, k: Floats, n: Floats, falling: bool = False) -> Posterior:
    """Return the posterior after k [scale] successes of n [scale] seeds; zeros are allowed.

    The prior is flat in the midpoint, from half a span below the scales to half a span above, and in log slope.
    """
    x = np.log10(np.asarray(scales, float))
    if len(x) < 2 or (np.asarray(k) < 0).any() or (np.asarray(k) > np.asarray(n)).any():
        raise ValueError("seeds are shared out among at least two scales, with no more successes than runs")
    span = float(np.ptp(x))
    middle = np.linspace(x.min() - span / 2, x.max() + span / 2, _MIDPOINTS)
    steep = np.geomspace(_FLATTEST, _STEEPEST, _SLOPES) * (-1.0 if falling else 1.0)
    midpoints, slopes = (grid.ravel() for grid in np.meshgrid(middle, steep, indexing="ij"))
    eta = slopes[:, None] * (x - midpoints[:, None])
    logs = log_expit(eta) @ np.asarray(k, float) + log_expit(-eta) @ np.asarray(n - k, float)
    weights = np.exp(logs - logs.max())
    return Posterior(x, midpoints, slopes, weights / weights.sum())


def gains(state: Posterior) -> Floats:
    """Return [scale]: by how much the variance of the midpoint is expected to fall with one more seed there."""
    success = expit(state.slopes[:, None] * (state.x - state.midpoints[:, None]))
    _, before = state.midpoint
    after = np.zeros(len(state.x))
    for likelihood in (success, 1 - success):
        joint = state.weights[:, None] * likelihood
        chance = joint.sum(axis=0)
        mean = state.midpoints @ joint / chance
        after += chance * (state.midpoints**2 @ joint / chance - mean**2)
    return np.maximum(before - after, 0.0)


def next_seeds(state: Posterior, batch: int, rng: np.random.Generator, sharpness: float = 2.0) -> NDArray[np.int64]:
    """Return [scale]: how many of the next `batch` seeds each scale gets, drawn with probabilities ∝ gain^sharpness."""
    gain = gains(state)
    shares = (gain / gain.max()) ** sharpness if gain.max() > 0 else np.ones(len(gain))
    return np.asarray(rng.multinomial(batch, shares / shares.sum()), np.int64)


def d_optimal() -> tuple[float, float]:
    """Return (|η|, P) of the two points, half the seeds each, that make both parameters of a logistic known best.

    They maximise the determinant of the information, (P (1 - P))² η²: |η| = 1.5434, P = .176 and .824.
    """
    from scipy.optimize import minimize_scalar  # 25 MB: readers of a store do without

    found = minimize_scalar(lambda eta: -2 * (log_expit(eta) + log_expit(-eta) + np.log(eta)), bounds=(0.1, 5),
                            method="bounded", options={"xatol": 1e-10})  # fmt: skip
    return float(found.x), float(expit(-found.x))


def d_optimal_scales(midpoint: float, slope: float) -> tuple[float, float]:
    """Return the two scales, ascending, at which that holds; `midpoint` is log10 of a scale, `slope` per decade."""
    if slope == 0:
        raise ValueError("a curve without slope has no best scales")
    away = d_optimal()[0] / abs(slope)
    return 10 ** (midpoint - away), 10 ** (midpoint + away)


def seeds_for_midpoint(half_width: float, slope: float, level_z: float = 1.959964) -> float:
    """Return how many seeds at the midpoint itself are needed at least, slope known: 4 (z / half-width)² / slope².

    half_width  in log10 of the scale: ±10 % is .0414 and needs at least 90 seeds at slope 10, 360 at slope 5
    """
    return 4 * (level_z / half_width) ** 2 / slope**2
