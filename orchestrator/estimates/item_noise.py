"""P(success) when a score is k of m items: a run seen at 50.4 % of 500 items is not surely above one half.

A run succeeds if its true accuracy is at or above the threshold. True accuracies have any distribution at all; the
counts are binomial given them. P is the part of that distribution above the threshold, by non-parametric maximum
likelihood, and its interval is the profile likelihood's: with many items per run both become those of k successes
of n runs, with few the interval widens. Sources: Laird 1978, JASA 73; Murphy & van der Vaart 2000, JASA 95.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import xlog1py, xlogy
from scipy.stats import chi2

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]
_POINTS = 60  # support points on either side of the threshold
_SWEEPS = 400  # of EM; the profile is concave and is needed to about 0.01
_BISECTIONS = 30


def success_from_items(
    correct: NDArray[np.int64], items: NDArray[np.int64], threshold: float, cohort: Cohort, level: float = 0.95
) -> Estimate:
    """Return P(true accuracy >= threshold) from correct [run] of items [run] of the runs that finished.

    Diverged runs are added as failures that are sure. Raises ValueError for counts or thresholds out of range.
    """
    _check(correct, items, threshold)
    below, above = _likelihoods(correct, items, threshold)
    sure = np.zeros((cohort.diverged, above.shape[1]))
    below = np.vstack([below, np.ones((cohort.diverged, below.shape[1]))])
    above = np.vstack([above, sure])
    if not len(below):
        return Estimate(float("nan"), 0.0, 1.0, "item likelihood", level, cohort)
    best = _best(below, above)
    top = _profile(np.array([best]), below, above)[0]
    cut = float(chi2.ppf(level, 1)) / 2
    ends = _ends(best, top - cut, below, above)
    return Estimate(best, ends[0], ends[1], "item likelihood", level, cohort)


def _likelihoods(correct: NDArray[np.int64], items: NDArray[np.int64], threshold: float) -> tuple[Floats, Floats]:
    """Return ([run, point] below, [run, point] at or above the threshold), each run's largest being 1."""
    # Squared spacing puts points densely at the threshold, where a run's side is in doubt.
    spread = np.linspace(0, 1, _POINTS) ** 2
    below = threshold * (1 - np.maximum(spread, 1e-4))
    above = threshold + (1 - threshold) * spread
    seen, m = correct[:, None], items[:, None]
    logs = [xlogy(seen, p) + xlog1py(m - seen, -p) for p in (below, above)]
    most = np.maximum(logs[0].max(axis=1), logs[1].max(axis=1))[:, None]
    return np.exp(logs[0] - most), np.exp(logs[1] - most)


def _profile(shares: Floats, below: Floats, above: Floats) -> Floats:
    """Return [share]: the log likelihood at its largest over distributions with this part above the threshold."""
    low = np.full((len(shares), below.shape[1]), 1 / below.shape[1])
    high = np.full((len(shares), above.shape[1]), 1 / above.shape[1])
    for _ in range(_SWEEPS):
        density = (1 - shares)[:, None] * (low @ below.T) + shares[:, None] * (high @ above.T)
        weight = 1 / np.maximum(density, 1e-300)
        low = _normalised(low * (weight @ below))
        high = _normalised(high * (weight @ above))
    density = (1 - shares)[:, None] * (low @ below.T) + shares[:, None] * (high @ above.T)
    return np.asarray(np.log(np.maximum(density, 1e-300)).sum(axis=1))


def _normalised(weights: Floats) -> Floats:
    total = weights.sum(axis=1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / weights.shape[1])


def _best(below: Floats, above: Floats) -> float:
    """Return the share above the threshold at the maximum: EM over all points at once, then the profile's own."""
    likelihood = np.hstack([below, above])
    weights = np.full(likelihood.shape[1], 1 / likelihood.shape[1])
    for _ in range(_SWEEPS):
        weights = weights * ((1 / (likelihood @ weights)) @ likelihood) / len(likelihood)
    return float(np.clip(weights[below.shape[1] :].sum(), 0, 1))


def _ends(best: float, floor: float, below: Floats, above: Floats) -> tuple[float, float]:
    """Return where the concave profile falls to `floor` on either side, by bisection of both at once."""
    outer, inner = np.array([0.0, 1.0]), np.array([best, best])
    reached = _profile(outer, below, above) >= floor
    for _ in range(_BISECTIONS):
        middle = (outer + inner) / 2
        inside = _profile(middle, below, above) >= floor
        inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
    return 0.0 if reached[0] else float(inner[0]), 1.0 if reached[1] else float(inner[1])


def _check(correct: NDArray[np.int64], items: NDArray[np.int64], threshold: float) -> None:
    if correct.shape != items.shape or correct.ndim != 1:
        raise ValueError(f"correct [run] and items [run] must be alike, not {correct.shape} and {items.shape}")
    if (correct < 0).any() or (correct > items).any() or (items < 1).any():
        raise ValueError("every run needs at least one item, and no more correct than items")
    if not 0 < threshold < 1:
        raise ValueError(f"the threshold of an accuracy lies between 0 and 1, not at {threshold}")
