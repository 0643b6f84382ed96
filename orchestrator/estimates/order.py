"""Does A come before B? Onsets of two metrics in the same runs, each known as a bracket of the probe grid.

A run speaks for "A first" only if A's bracket ends before B's begins (high_A ≤ low_B); brackets that overlap are ties
and say nothing. Order is never cause: that A is needed for B asks for an arm in which A is suppressed.
Sources: the sign test, exact; Wilson 1927; Kendall 1938 (τ_b); Garwood 1936 for the Poisson bound.
"""

from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri
from scipy.stats import binomtest

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.success import wilson

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Brackets:
    """Onsets (low, high] of one metric, [run], in the order of the runs of the other metric."""

    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Order:
    """What the runs say of the order of two onsets.

    first, last, tied  runs with A before B, with B before A, and with brackets that overlap
    p_two_sided        exact sign test on the untied
    p_first            exact, one-sided: "A is not first more often"
    a_before_b         P(A before B | the order can be told), with Wilson's interval
    b_without_a        runs in which B was seen, and A never was
    """

    first: int
    last: int
    tied: int
    p_two_sided: float
    p_first: float
    a_before_b: Estimate
    b_without_a: int
    cohort: Cohort
    method: str = "exact sign test on disjoint brackets"
    unit: str = "run"
    level: float = 0.95
    stopping_rule: str = FIXED


def order_of(a: Brackets, b: Brackets, cohort: Cohort, level: float = 0.95) -> Order:
    """Return the order of two onsets over the same runs; p is 1 where no run tells it."""
    _check(a, b)
    first = int((a.high <= b.low).sum())
    last = int((b.high <= a.low).sum())
    told = first + last
    two_sided = float(binomtest(first, told).pvalue) if told else 1.0
    one_sided = float(binomtest(first, told, alternative="greater").pvalue) if told else 1.0
    share = Estimate(first / told if told else nan, *wilson(first, told, level), "wilson", level, cohort)
    without = int((np.isfinite(b.high) & np.isinf(a.high)).sum())
    return Order(first, last, len(a.low) - told, two_sided, one_sided, share, without, cohort, level=level)


def rate_without(a: Brackets, b: Brackets, cohort: Cohort, level: float = 0.95) -> Estimate:
    """Return onsets of B per step of training in which A had surely not happened, with its exact upper bound.

    Counted are onsets of B that end before A's bracket begins. A run's exposure ends where A or B may have begun,
    whichever is sooner, so it is never too long and the bound never too small. The bound is one-sided (3.0/exposure
    for no onset at 95 %); the value is NaN and the bound infinite without exposure.
    """
    _check(a, b)
    events = int((b.high <= a.low).sum())
    exposure = float(np.maximum(np.minimum(a.low, b.low), 0.0).sum())
    method = "exact poisson, one-sided"
    if exposure <= 0:
        return Estimate(nan, 0.0, inf, method, level, cohort, note="no run was probed before A may have begun")
    upper = float(chdtri(2 * (events + 1), 1 - level)) / 2
    return Estimate(events / exposure, 0.0, upper / exposure, method, level, cohort)


def kendall_tau(
    a: Brackets,
    b: Brackets,
    cohort: Cohort,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Return Kendall's τ_b between the two onsets over runs: do runs that are early in A tend to be early in B?

    Two runs are tied in a metric if their brackets overlap. The interval is the percentile one over resampled runs;
    NaN where all runs are tied.
    """
    _check(a, b)
    first, second = _earlier(a), _earlier(b)
    runs = len(a.low)
    drawn = generator.multinomial(runs, np.full(runs, 1 / runs), size=resamples) if runs else np.ones((resamples, 0))
    weights = np.vstack([np.ones((1, runs)), drawn]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        both, alone, other = (_pairs(weights, m) for m in (first * second, first * first, second * second))
        tau = both / np.sqrt(alone * other)
    known = tau[1:][~np.isnan(tau[1:])]
    tail = (1 - level) / 2
    low, high = np.quantile(known, [tail, 1 - tail]) if len(known) else (-1.0, 1.0)
    note = "" if len(known) == resamples else f"{resamples - len(known)} resamples were all ties and left out"
    method = "kendall tau-b, percentile over resampled runs"
    return Estimate(float(tau[0]), float(low), float(high), method, level, cohort, note=note)


def _earlier(brackets: Brackets) -> Floats:
    """Return [run, run]: 1 where the first is surely earlier, -1 where later, 0 where they are tied."""
    before = brackets.high[:, None] <= brackets.low
    return before.astype(np.float64) - before.T


def _pairs(weights: Floats, scores: Floats) -> Floats:
    return np.asarray(((weights @ scores) * weights).sum(axis=1), np.float64)


def _check(a: Brackets, b: Brackets) -> None:
    if not a.low.shape == a.high.shape == b.low.shape == b.high.shape or a.low.ndim != 1:
        raise ValueError("the brackets of A and B are [run], over the same runs in the same order")
    for name, side in (("A", a), ("B", b)):
        if not (side.low < side.high).all():
            raise ValueError(f"a bracket (low, high] has low < high; those of {name} have not")
