"""Power before spending: how many seeds a question needs. Exact wherever outcomes are counts.

Half-widths and tests on k of n are sums over all outcomes; only the test on whole distributions is simulated. What a
number of seeds cannot answer is said before they are trained: at 10 seeds nothing tells P = .3 from P = .6.
Sources: Fisher 1935; Boschloo's and others' remarks on exact power, Lydersen et al. 2009, Statistics in Medicine 28.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.success import METHODS

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]
MOST = 20_000


def chance_of_half_width(n: int, half_width: float, p: float, method: str = "wilson", level: float = 0.95) -> float:
    """Return the probability that the interval of n seeds has this half-width or less, exactly, if P is p."""
    from scipy.stats import binom  # 50 MB and a second: readers of a store do without

    bounds = np.array([METHODS[method](k, n, level) for k in range(n + 1)])
    narrow = (bounds[:, 1] - bounds[:, 0]) / 2 <= half_width
    return float(binom.pmf(np.arange(n + 1), n, p) @ narrow)


@dataclass(frozen=True, slots=True)
class HalfWidths:
    """The half-width of an interval of P(success) now, and after more seeds: expected, least, most."""

    now: float
    expected: float
    least: float
    most: float


def half_width_after(k: int, n: int, more: int, method: str = "wilson", level: float = 0.95) -> HalfWidths:
    """Return the half-width of k successes of n, and what it will be after `more` seeds whose outcomes are not known.

    The expectation is over the beta-binomial of those outcomes under Jeffreys' prior, so that k = 0 does not promise
    k = 0 again. Least and most are over all outcomes, however unlikely. Raises ValueError for impossible counts.
    """
    if more < 0:
        raise ValueError(f"{more} more seeds")
    from scipy.stats import betabinom

    interval = METHODS[method]
    low, high = interval(k, n, level)
    bounds = np.array([interval(k + x, n + more, level) for x in range(more + 1)])
    halves = (bounds[:, 1] - bounds[:, 0]) / 2
    chances = betabinom.pmf(np.arange(more + 1), more, k + 0.5, n - k + 0.5)
    return HalfWidths((high - low) / 2, float(halves @ chances), float(halves.min()), float(halves.max()))


def seeds_for_half_width(
    half_width: float, p: float, chance: float = 0.8, method: str = "wilson", level: float = 0.95
) -> int:
    """Return the least n from which on the interval is as narrow as this with probability `chance`, if P is p.

    The chance is not monotone in n; the least n is taken that keeps it for the next ten. Raises ValueError where
    more than 20,000 seeds would be needed.
    """
    _check(p=p, chance=chance)
    if not 0 < half_width < 0.5:
        raise ValueError(f"a half-width lies between 0 and 0.5, not at {half_width}")
    n = 1
    while n <= MOST:
        missing = next((m for m in range(n + 10, n - 1, -1) if not _enough(m, half_width, p, chance, method, level)), 0)
        if not missing:
            return n
        n = missing + 1
    raise ValueError(f"a half-width of {half_width} at P = {p} needs more than {MOST} seeds")


def seeds_to_exclude(p: float, level: float = 0.95) -> int:
    """Return how many seeds without a success exclude P >= p: 59 for .05."""
    _check(p=p)
    return ceil(log(1 - level) / log(1 - p))


def chance_of_mode(n: int, weight: float, least: int = 2) -> float:
    """Return the probability that n seeds hold at least `least` of a mode of this weight, and of the rest."""
    from scipy.stats import binom

    _check(p=weight)
    return float(max(0.0, binom.cdf(n - least, n, weight) - binom.cdf(least - 1, n, weight)))


def seeds_for_mode(weight: float, chance: float = 0.8, least: int = 2) -> int:
    """Return the least n that holds at least `least` seeds of either mode with probability `chance`.

    A bound from below on seeing two modes: whether a test tells them apart depends on their spread (`modes.py`).
    """
    _check(p=weight, chance=chance)
    found = next((n for n in range(2 * least, MOST) if chance_of_mode(n, weight, least) >= chance), 0)
    if not found:
        raise ValueError(f"a mode of weight {weight} needs more than {MOST} seeds")
    return found


def fisher_power(n: int, other_n: int, p: float, other_p: float, alpha: float = 0.05) -> float:
    """Return the probability, exact, that Fisher's two-sided test of two conditions rejects at level alpha."""
    from scipy.stats import binom

    return float(
        binom.pmf(np.arange(n + 1), n, p)
        @ (_fisher_p(n, other_n) <= alpha)
        @ binom.pmf(np.arange(other_n + 1), other_n, other_p)
    )


def seeds_to_tell_apart(p: float, other_p: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the least n per condition at which Fisher's test has this power, and keeps it for the next five."""
    _check(p=p, chance=power)
    _check(p=other_p)
    if p == other_p:
        raise ValueError("two conditions of the same P cannot be told apart")
    n = 2
    while n <= 2_000:
        short = next((m for m in range(n + 5, n - 1, -1) if fisher_power(m, m, p, other_p, alpha) < power), 0)
        if not short:
            return n
        # Power grows about as n does: half of what is missing is a safe jump.
        n = max(short + 1, n + int(n * (power - fisher_power(n, n, p, other_p, alpha)) / 2))
    raise ValueError(f"telling P = {p} from P = {other_p} needs more than 2,000 seeds a condition")


def w1_power(
    draw: Draw, other: Draw, n: int, rng: np.random.Generator, alpha: float = 0.05, samples: int = 200,
    permutations: int = 199,
) -> float:  # fmt: skip
    """Return the share of simulated pairs of samples of n whose W1 distance has a permutation p of at most alpha.

    draw, other  (rng, shape) → values of that shape, of either condition
    """
    pairs = np.concatenate([draw(rng, (samples, n)), other(rng, (samples, n))], axis=1)
    order = rng.random((permutations, 2 * n)).argsort(axis=1)
    seen = _w1(pairs[:, :n], pairs[:, n:])
    larger = np.zeros(samples)
    for places in order:
        shuffled = pairs[:, places]
        larger += _w1(shuffled[:, :n], shuffled[:, n:]) >= seen - 1e-12
    return float(((1 + larger) / (permutations + 1) <= alpha).mean())


def _w1(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.abs(np.sort(first, axis=1) - np.sort(second, axis=1)).mean(axis=1))


def _fisher_p(n: int, other_n: int) -> Floats:
    """Return [k, other k]: the two-sided p, the sum of all tables of the margin that are no likelier."""
    from scipy.stats import hypergeom

    p = np.ones((n + 1, other_n + 1))
    for total in range(n + other_n + 1):
        k = np.arange(max(0, total - other_n), min(n, total) + 1)
        chances = hypergeom.pmf(k, n + other_n, total, n)
        order = np.sort(chances)
        cumulated = np.cumsum(order)
        # Equal tables differ by rounding: one part in 10^7, as R's and scipy's tests allow.
        places = np.searchsorted(order, chances * (1 + 1e-7), side="right") - 1
        p[k, total - k] = np.minimum(cumulated[places], 1.0)
    return p


def _enough(n: int, half_width: float, p: float, chance: float, method: str, level: float) -> bool:
    return chance_of_half_width(n, half_width, p, method, level) >= chance


def _check(p: float, chance: float = 0.5) -> None:
    if not 0 < p < 1:
        raise ValueError(f"a probability or weight lies between 0 and 1, not at {p}")
    if not 0 < chance < 1:
        raise ValueError(f"the chance of being told lies between 0 and 1, not at {chance}")
