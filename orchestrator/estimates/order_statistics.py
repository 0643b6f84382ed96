"""Quantiles over runs with exact intervals between two order statistics: no assumption on the distribution.

[x_(l), x_(u)] covers the quantile q with probability P(l <= K < u), K ~ Binomial(n, q) (David & Nagaraja 2003, 7.1).
Where no order statistic is far enough out, the bound is infinite: 95 % for q10 or q90 needs 36 runs on the far side,
so at 20 runs neither has a finite two-sided interval. A diverged run has no score; it counts as the worst one.
"""

from math import inf

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]


def ranks(n: int, q: float, level: float = 0.95) -> tuple[int, int]:
    """Return the ranks (from 1) of the order statistics that bound the quantile q; 0 and n + 1 stand for no bound.

    Equal tails: each side misses with probability at most (1 - level) / 2.
    """
    if not 0 < q < 1:
        raise ValueError(f"a quantile lies between 0 and 1, not at {q}")
    from scipy.stats import binom  # 50 MB and a second: readers of a store do without

    tail = (1 - level) / 2
    below = binom.cdf(np.arange(n + 1), n, q)
    # l: the largest with P(K < l) <= tail; u: the smallest with P(K >= u) <= tail.
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return low, min(high, n + 1)


def exact_level(n: int, q: float, level: float = 0.95) -> float:
    """Return with which probability the interval of `ranks` covers, for any continuous distribution."""
    from scipy.stats import binom

    low, high = ranks(n, q, level)
    return float(binom.cdf(high - 1, n, q) - (binom.cdf(low - 1, n, q) if low else 0.0))


def quantile_over_runs(scores: Floats, q: float, cohort: Cohort, level: float = 0.95, worst: float = -inf) -> Estimate:
    """Return the quantile q of the runs' scores with its exact interval.

    scores: [run], of the finished runs; the cohort's diverged runs enter as `worst` (-inf where more is better, inf
    for a loss). The value is the lower sample quantile x_(⌈nq⌉), NaN without runs.
    """
    if np.isnan(scores).any():
        raise ValueError("a score is NaN: leave runs without a score out, and count them as censored")
    ordered = np.sort(np.concatenate([scores, np.full(cohort.diverged, worst)]))
    n = len(ordered)
    padded = np.concatenate([[-inf], ordered, [inf]])
    low, high = ranks(n, q, level)
    note = "" if low > 0 and high <= n else f"{n} runs do not bound this quantile on both sides"
    value = float(np.quantile(ordered, q, method="inverted_cdf")) if n else float("nan")
    return Estimate(value, float(padded[low]), float(padded[high]), "order statistics", level, cohort, note=note)
