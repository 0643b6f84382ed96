"""P(success) at a scale that was not run, from rivals that disagree, and how such predictions did so far.

A two-parameter curve fitted to a P that levels off at .8 covers 29 % of the time one doubling on and 5 % two doublings
on. So three rivals predict: that curve, a curve with floor and ceiling, and "as at the largest scales" (isotonic, then
flat). What each would have said of every scale from the smaller ones alone gives it its weight; published are the union
of their intervals and the record of the held-out scales, as counts: with five scales a calibration has few points.
Sources: Yao et al. 2018, Bayesian Analysis 13 (weights by held-out log score); Dawid 1984 (prequential).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, logsumexp, ndtri
from scipy.stats import binom

from orchestrator.estimates.asymptote import plateau_at
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.firth import Counts
from orchestrator.estimates.isotonic import pool
from orchestrator.estimates.success import wilson
from orchestrator.estimates.success_over_scale import counts_of, eta_interval

Floats = NDArray[np.float64]
RIVALS = ("logistic", "logistic with floor and ceiling", "isotonic, then flat")
FEWEST = 3  # scales that are fitted before the next is predicted
_POINTS = (np.arange(41) + 0.5) / 41  # of a rival's distribution
_EDGE = 1e-6


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One scale, predicted from the smaller ones.

    probability, log_score, brier  of the weighted rivals; Brier's score is the mean over the runs of the scale
    low, high                      the union of the rivals' intervals
    pit                            (P(K < k), P(K <= k)) under the prediction: where the outcome fell
    inside                         whether k lies in the central `level` of what the union allows
    """

    scale: float
    k: int
    n: int
    probability: float
    low: float
    high: float
    log_score: float
    brier: float
    pit: tuple[float, float]
    inside: bool


@dataclass(frozen=True, slots=True)
class Prediction:
    """P at an unseen scale.

    estimate  the weighted mean with the union of the rivals' intervals
    stacked   (low, high) of the rivals' distributions mixed by weight: narrower, and only as good as the weights
    rivals    rival → (P, low, high); weights: rival → weight
    record    held-out scales, ascending
    """

    scale: float
    estimate: Estimate
    stacked: tuple[float, float]
    rivals: dict[str, tuple[float, float, float]]
    weights: dict[str, float]
    record: tuple[HeldOut, ...]

    @property
    def says(self) -> str:
        """Return the record in words: '3 of 4 held-out scales inside'."""
        inside = sum(one.inside for one in self.record)
        return f"{inside} of {len(self.record)} held-out scales inside"


def predict(
    scales: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    unseen: float,
    cohort: Cohort,
    level: float = 0.95,
    stopping_rule: str = FIXED,
) -> Prediction:
    """Return P at scale `unseen` from k [scale] successes of n [scale] runs with known outcome.

    Raises ValueError for fewer than three scales with runs, and for an unseen scale that is not positive.
    """
    counts = counts_of(scales, k, n)
    if len(counts.x) < FEWEST:
        raise ValueError(f"a prediction needs runs at {FEWEST} scales, not {len(counts.x)}")
    if unseen <= 0:
        raise ValueError(f"a scale is positive, not {unseen}")
    record, scores = _record(counts, level)
    weights = _weights(scores)
    found = rivals_at(counts, log10(unseen), level)
    value = float(weights @ [one[0] for one in found])
    estimate = Estimate(
        value, min(one[1] for one in found), max(one[2] for one in found), "union of rivals", level, cohort, "run",
        stopping_rule,
    )  # fmt: skip
    return Prediction(
        scale=unseen,
        estimate=estimate,
        stacked=_stack(found, weights, level),
        rivals=dict(zip(RIVALS, found, strict=True)),
        weights=dict(zip(RIVALS, weights.tolist(), strict=True)),
        record=record,
    )


def rivals_at(counts: Counts, x: float, level: float) -> list[tuple[float, float, float]]:
    """Return (P, low, high) at log10 scale x of each rival, in the order of `RIVALS`."""
    eta, low, high = eta_interval(counts, np.array([x]), level)
    return [
        (float(expit(eta[0])), float(expit(low[0])), float(expit(high[0]))),
        plateau_at(counts, x, level),
        _flat(counts, x, level),
    ]


def _flat(counts: Counts, x: float, level: float) -> tuple[float, float, float]:
    """Return the isotonic fit at x (beyond the scales: of the last block), with Wilson's interval of its block."""
    shares = counts.k / counts.n
    fits = [pool(shares, counts.n, increasing)[0] for increasing in (True, False)]
    errors = [float((counts.n[0] * (shares[0] - fit) ** 2).sum()) for fit in fits]
    fitted = fits[int(errors[1] < errors[0])]
    place = min(max(int(np.searchsorted(counts.x, x, side="right")) - 1, 0), len(counts.x) - 1)
    block = np.isclose(fitted, fitted[place])
    k, n = int(counts.k[0][block].sum()), int(counts.n[0][block].sum())
    return k / n, *wilson(k, n, level)


def _record(counts: Counts, level: float) -> tuple[tuple[HeldOut, ...], Floats]:
    """Return the held-out scales, each predicted with the weights before it, and log scores [held out, rival]."""
    record: list[HeldOut] = []
    scores = np.zeros((0, len(RIVALS)))
    for top in range(FEWEST, len(counts.x)):
        before = Counts(counts.x[:top], counts.k[:, :top], counts.n[:, :top])
        k, n = int(counts.k[0, top]), int(counts.n[0, top])
        found = rivals_at(before, float(counts.x[top]), level)
        weights = _weights(scores)
        chances = np.stack([binom.pmf(np.arange(n + 1), n, _spread(one, level)[:, None]).mean(axis=0) for one in found])
        record.append(_held_out(10 ** float(counts.x[top]), k, n, found, weights, weights @ chances, level))
        scores = np.vstack([scores, np.log(np.maximum(chances[:, k], 1e-12))])
    return tuple(record), scores


def _held_out(
    scale: float,
    k: int,
    n: int,
    found: Sequence[tuple[float, float, float]],
    weights: Floats,
    chances: Floats,
    level: float,
) -> HeldOut:
    p = float(weights @ [one[0] for one in found])
    low, high = min(one[1] for one in found), max(one[2] for one in found)
    tail = (1 - level) / 2
    return HeldOut(
        scale=scale,
        k=k,
        n=n,
        probability=p,
        low=low,
        high=high,
        log_score=float(np.log(max(chances[k], 1e-12))),
        brier=(k * (1 - p) ** 2 + (n - k) * p**2) / n,
        pit=(float(chances[:k].sum()), float(chances[: k + 1].sum())),
        inside=bool(binom.ppf(tail, n, low) <= k <= binom.ppf(1 - tail, n, high)),
    )


def _weights(scores: Floats) -> Floats:
    """Return [rival]: weights ∝ exp(sum of held-out log scores); equal without any."""
    total = scores.sum(axis=0)
    return np.asarray(np.exp(total - logsumexp(total)))


def _spread(rival: tuple[float, float, float], level: float) -> Floats:
    """Return points [41] of a rival's P: normal in the logit on either side of its value, matched to its interval."""
    value, low, high = (logit(np.clip(p, _EDGE, 1 - _EDGE)) for p in rival)
    z = ndtri(_POINTS)
    width = np.where(z < 0, value - low, high - value) / ndtri((1 + level) / 2)
    return np.asarray(expit(value + z * width))


def _stack(found: Sequence[tuple[float, float, float]], weights: Floats, level: float) -> tuple[float, float]:
    points = np.concatenate([_spread(one, level) for one in found])
    order = np.argsort(points)
    mass = np.cumsum(np.repeat(weights / len(_POINTS), len(_POINTS))[order])
    tail = (1 - level) / 2
    first, last = np.searchsorted(mass, tail), min(int(np.searchsorted(mass, 1 - tail)), len(points) - 1)
    return float(points[order][first]), float(points[order][last])
