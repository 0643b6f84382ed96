"""Did the distribution over runs move from one scale to the next, and how far?

W1 = ∫|F - G|, W2² = ∫(F⁻¹ - G⁻¹)², energy² = 2∫(F - G)², KS = sup|F - G|. Whether it moved is for the permutation p
to say. The distance of two samples is positive even when nothing moved (W1 of two samples of one bimodal law averages
.15 at n = 10), so its interval over resampled runs never holds 0: it says how far, once p has said that. `corrected`
takes off the mean distance of the pooled runs dealt out anew.
Sources: Villani 2003, 2.2; Székely & Rizzo 2004; Phipson & Smyth 2010 for p = (b + 1)/(m + 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, fisher_exact, hypergeom

from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.outcomes import percentile_ends

Floats = NDArray[np.float64]


class Kind(StrEnum):
    """Which distance."""

    W1 = "w1"
    W2 = "w2"
    ENERGY = "energy"
    KS = "ks"


@dataclass(frozen=True, slots=True)
class Distance:
    """How far apart the distributions of two sets of runs are.

    value       of the samples as they are; biased upwards
    corrected   value less the mean of the permutations, at least 0
    p           share of permutations at least as far apart; never 0
    low, high   of `value` over resampled runs, between expanded percentiles: of the size only, never a test
    runs        how many on each side
    """

    kind: Kind
    value: float
    corrected: float
    p: float
    low: float
    high: float
    runs: tuple[int, int]
    permutations: int
    level: float
    cohort: Cohort
    method: str = "permutation p; expanded percentiles over resampled runs"
    unit: str = "run"
    stopping_rule: str = FIXED


def distances(a: Floats, b: Floats, kind: Kind) -> Floats:
    """Return [pair]: the distances between a [pair, run] and b [pair, run], row by row."""
    if kind in (Kind.W1, Kind.W2):
        return _between_quantiles(np.sort(a, axis=1), np.sort(b, axis=1), 1 if kind is Kind.W1 else 2)
    merged = np.concatenate([a, b], axis=1)
    order = np.argsort(merged, axis=1, kind="stable")
    values = np.take_along_axis(merged, order, axis=1)
    mine = order < a.shape[1]
    apart = np.cumsum(mine, axis=1) / a.shape[1] - np.cumsum(~mine, axis=1) / b.shape[1]
    gaps = np.diff(values, axis=1)
    if kind is Kind.ENERGY:
        return np.asarray(np.sqrt(2 * (apart[:, :-1] ** 2 * gaps).sum(axis=1)), np.float64)
    # Inside a tie neither distribution function has that value.
    return np.asarray(np.where(gaps > 0, np.abs(apart[:, :-1]), 0.0).max(axis=1, initial=0.0), np.float64)


def distance(a: Floats, b: Floats, kind: Kind) -> float:
    """Return the distance between two samples, [run] each."""
    _check(a, b)
    return float(distances(a[None, :], b[None, :], kind)[0])


def compare(
    a: Floats,
    b: Floats,
    cohort: Cohort,
    generator: np.random.Generator,
    kind: Kind = Kind.W1,
    permutations: int = 9999,
    resamples: int = 2000,
    level: float = 0.95,
) -> Distance:
    """Return the distance between the scores of two sets of runs, whether it is more than chance, and its size."""
    _check(a, b)
    value = distance(a, b, kind)
    pooled = np.sort(np.concatenate([a, b]))
    dealt = generator.permuted(np.tile(pooled, (permutations, 1)), axis=1)
    chance = distances(dealt[:, : len(a)], dealt[:, len(a) :], kind)
    # The same deal summed in another order must count as equal.
    p = (1 + int((chance >= value - 1e-12 * max(value, 1.0)).sum())) / (1 + permutations)
    low, high = bootstrap_interval(a, b, generator, kind, resamples, level)
    corrected = max(value - float(chance.mean()), 0.0)
    return Distance(kind, value, corrected, p, low, high, (len(a), len(b)), permutations, level, cohort)


def bootstrap_interval(
    a: Floats, b: Floats, generator: np.random.Generator, kind: Kind, resamples: int, level: float
) -> tuple[float, float]:
    """Return the interval of a distance over resampled runs; it does not hold 0 when nothing moved.

    Between expanded percentiles (`outcomes.py`): plain ones covered .92 at 20 runs a side.
    """
    ordered_a, ordered_b = np.sort(a), np.sort(b)
    drawn_a = ordered_a[generator.integers(0, len(a), (resamples, len(a)))]
    drawn_b = ordered_b[generator.integers(0, len(b), (resamples, len(b)))]
    tails = percentile_ends(min(len(a), len(b)), level)
    low, high = np.quantile(distances(drawn_a, drawn_b, kind), tails)
    return float(low), float(high)


def neighbours(
    scores: Sequence[Floats],
    cohorts: Sequence[Cohort],
    generator: np.random.Generator,
    kind: Kind = Kind.W1,
    permutations: int = 9999,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[Distance, ...]:
    """Return the comparison of every scale with the next; p as it is (Holm's is in `comparisons.py`)."""
    return tuple(
        compare(
            scores[i], scores[i + 1], Cohort.pooled(cohorts[i : i + 2]), generator, kind, permutations, resamples, level
        )
        for i in range(len(scores) - 1)
    )


def fisher_p(k_a: int, n_a: int, k_b: int, n_b: int) -> float:
    """Return the p-value of Fisher's exact test that two sets of runs have one P(success)."""
    return float(fisher_exact([[k_a, n_a - k_a], [k_b, n_b - k_b]]).pvalue)


def fisher_power(p_a: float, p_b: float, n: int, alpha: float = 0.05) -> float:
    """Return the chance that Fisher's test of n runs each tells P = p_a from P = p_b, computed exactly."""
    counts = np.arange(n + 1)
    chance = binom.pmf(counts, n, p_a)[:, None] * binom.pmf(counts, n, p_b)
    power = 0.0
    for total in range(2 * n + 1):
        k_a = np.arange(max(0, total - n), min(n, total) + 1)
        weight = hypergeom.pmf(k_a, 2 * n, total, n)
        # Two-sided p: all tables at most as likely; the slack is that of scipy's own test.
        p = np.where(weight <= weight[:, None] * (1 + 1e-7), weight, 0.0).sum(axis=1)
        power += float(chance[k_a, total - k_a][p <= alpha].sum())
    return power


def _between_quantiles(a: Floats, b: Floats, power: int) -> Floats:
    n, m = a.shape[1], b.shape[1]
    # Levels as whole numbers of 1/(n·m): i/n and j/m that are equal meet exactly.
    levels = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    width = np.diff(levels, prepend=0) / (n * m)
    apart = np.abs(a[:, (levels - 1) // m] - b[:, (levels - 1) // n])
    total = (apart**power * width).sum(axis=1)
    return np.asarray(total if power == 1 else np.sqrt(total), np.float64)


def _check(a: Floats, b: Floats) -> None:
    if a.ndim != 1 or b.ndim != 1 or not len(a) or not len(b):
        raise ValueError("a distance is between two samples [run] of at least one run each")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("scores must be finite: say what a diverged run counts as before you compare")
