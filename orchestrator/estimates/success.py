"""P(success) at one condition: k of n runs, and what is known of it.

Any interval for a proportion that is not randomised covers 95 % only on average over P at small n: Wilson's
averages .955 at n = 5 and .953 at n = 20, and at single P falls to .83 and .85 (computed exactly in the tests).
Clopper-Pearson's never falls below its level, and is wider. Agresti-Coull's is Wilson's with room to spare: what
stopping by width needs (`stopping.py`). Seeds in groups are the matter of `grouped.py`, noisy items of `item_noise.py`.
Sources: Wilson 1927; Brown, Cai & DasGupta 2001; Clopper & Pearson 1934; Agresti & Coull 1998; Manski 1989.
"""

from math import sqrt

from scipy.special import betaincinv, ndtri

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate

Interval = tuple[float, float]
NO_RUNS: Interval = (0.0, 1.0)


def wilson(k: int, n: int, level: float = 0.95) -> Interval:
    """Return Wilson's score interval for k successes of n."""
    _check(k, n)
    if n == 0:
        return NO_RUNS
    z = float(ndtri((1 + level) / 2))
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At the ends the bound is 0 or 1 exactly; the formula misses it by rounding.
    return (0.0 if k == 0 else centre - half, 1.0 if k == n else centre + half)


def jeffreys(k: int, n: int, level: float = 0.95) -> Interval:
    """Return the equal-tailed interval of Beta(k + ½, n - k + ½), with bound 0 at k = 0 and 1 at k = n."""
    _check(k, n)
    if n == 0:
        return NO_RUNS
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k + 0.5, n - k + 0.5, tail))
    high = 1.0 if k == n else float(betaincinv(k + 0.5, n - k + 0.5, 1 - tail))
    return low, high


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Interval:
    """Return the exact interval: it covers at least `level` at every P."""
    _check(k, n)
    if n == 0:
        return NO_RUNS
    tail = (1 - level) / 2
    low = 0.0 if k == 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k == n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def agresti_coull(k: int, n: int, level: float = 0.95) -> Interval:
    """Return Wald's interval after z²/2 successes and as many failures were added, clipped to [0, 1]."""
    _check(k, n)
    if n == 0:
        return NO_RUNS
    z = float(ndtri((1 + level) / 2))
    trials = n + z * z
    p = (k + z * z / 2) / trials
    half = z * sqrt(p * (1 - p) / trials)
    return max(0.0, p - half), min(1.0, p + half)


def upper_bound_of_none(n: int, level: float = 0.95) -> float:
    """Return the exact one-sided upper bound for P when none of n runs succeeded: 1 - (1 - level)^(1/n)."""
    _check(0, n)
    return float(1 - (1 - level) ** (1 / n)) if n else 1.0


def manski(k: int, n: int, unknown: int) -> Interval:
    """Return the share of successes if none, and if all, of the `unknown` runs had been successes."""
    _check(k, n)
    total = n + unknown
    return (k / total, (k + unknown) / total) if total else NO_RUNS


def manski_interval(k: int, n: int, unknown: int, level: float = 0.95) -> Interval:
    """Return Clopper-Pearson's bounds at both of Manski's: no lost run, and every lost run, a success.

    It covers at least `level` at every P, whatever made runs get lost, also if failures crash more often; an interval
    of the known runs alone covers only if it was not the outcome (Imbens & Manski 2004, Econometrica 72).
    """
    _check(k, n)
    return clopper_pearson(k, n + unknown, level)[0], clopper_pearson(k + unknown, n + unknown, level)[1]


METHODS = {
    "wilson": wilson,
    "jeffreys": jeffreys,
    "clopper-pearson": clopper_pearson,
    "agresti-coull": agresti_coull,
}


def success_probability(
    k: int, cohort: Cohort, method: str = "wilson", level: float = 0.95, stopping_rule: str = FIXED
) -> Estimate:
    """Return P(success) from k successes among the runs of a cohort whose outcome is known.

    A diverged run is known: it did not succeed. A censored one is in neither number; `manski` bounds its part.
    The value is NaN where no outcome is known.
    """
    n = cohort.finished + cohort.diverged
    low, high = METHODS[method](k, n, level)
    return Estimate(k / n if n else float("nan"), low, high, method, level, cohort, stopping_rule=stopping_rule)


def _check(k: int, n: int) -> None:
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n} runs")
