"""P(success) when seeds come in groups that share something: a data order, a machine, a release.

Ten runs of one data order are not ten independent runs: pooled, 5 groups of 10 whose P varies as Beta(2, 2) give a
Wilson interval that covers 73 %. Here each group has its own P from a Beta distribution of mean `mean` and precision
`precision` (a + b; infinite: groups do not differ), and the group is the unit. The likelihood is profiled over the
other parameter; the cut is the one that makes the likelihood ratio of a normal mean exact, G ln(1 + t²/(G - 1)):
chi-squared's is too small for few groups. Who does not want to believe in a Beta distribution draws whole groups again
(`grouped_bootstrap`), and needs more of them. Sources: Williams 1975, Biometrics 31; Pawitan 2001, In All Likelihood;
Davison & Hinkley 1997, 3.8 (groups drawn whole).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import exp, inf, log1p

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, expit
from scipy.stats import t as student

from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.outcomes import percentile_ends
from orchestrator.estimates.success import clopper_pearson, wilson

Floats = NDArray[np.float64]
METHOD = "beta-binomial profile"
UNIT = "group of runs"
ENOUGH_GROUPS = 10
_LOGITS = np.linspace(-9, 9, 361)
_LOG_PRECISIONS = np.linspace(-3, 9, 61)


@dataclass(frozen=True, slots=True)
class GroupedSuccess:
    """The mean of P over groups, and how alike the groups are."""

    mean: Estimate
    precision: Estimate
    groups: int


def grouped_success(k: NDArray[np.int64], n: NDArray[np.int64], cohort: Cohort, level: float = 0.95) -> GroupedSuccess:
    """Return mean and precision of P over groups from k [group] successes of n [group] runs.

    Raises ValueError for fewer than two groups: one group says nothing about others.
    """
    _check(k, n)
    surface = np.zeros((len(_LOGITS), len(_LOG_PRECISIONS)))
    for successes, runs in sorted(zip(k.tolist(), n.tolist(), strict=True)):
        surface = surface + _log_likelihood(successes, runs)
    groups = int((n > 0).sum())
    cut = groups * log1p(float(student.ppf((1 + level) / 2, groups - 1)) ** 2 / (groups - 1))
    best = np.unravel_index(int(surface.argmax()), surface.shape)
    low, high = region(_LOGITS, surface.max(axis=1), cut)
    mean = Estimate(float(expit(_LOGITS[best[0]])), float(expit(low)), float(expit(high)), METHOD, level, cohort, UNIT)
    low, high = region(_LOG_PRECISIONS, surface.max(axis=0), cut)
    at_most = best[1] == len(_LOG_PRECISIONS) - 1
    precision = Estimate(
        inf if at_most else exp(_LOG_PRECISIONS[best[1]]), exp(low), exp(high), METHOD, level, cohort, UNIT
    )
    return GroupedSuccess(mean, precision, groups)


def grouped_bootstrap(
    k: NDArray[np.int64],
    n: NDArray[np.int64],
    cohort: Cohort,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 4000,
) -> Estimate:
    """Return P(success) of k [group] successes of n [group] runs, the interval from whole groups drawn again.

    Between expanded percentiles (`outcomes.py`). The interval is never narrower than Wilson's, as if runs were
    independent; where no group had a success (or a failure) it ends where a group is one trial, since
    E(1 - P)^n <= 1 - E P. Raises ValueError for fewer than two groups.
    """
    _check(k, n)
    there = sorted(zip(k[n > 0].tolist(), n[n > 0].tolist(), strict=True))
    successes, runs = np.array(there, np.float64).T
    groups, total, of = len(there), int(successes.sum()), int(runs.sum())
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float64)
    low, high = np.quantile((drawn @ successes) / (drawn @ runs), percentile_ends(groups, level))
    alone = wilson(total, of, level)
    ends = clopper_pearson(groups if total else 0, groups, level) if total in (0, of) else alone
    note = "" if groups >= ENOUGH_GROUPS else f"{groups} groups are few to be drawn again: prefer the beta-binomial"
    return Estimate(
        value=total / of,
        low=min(float(low), alone[0], ends[0]),
        high=max(float(high), alone[1], ends[1]),
        method="groups drawn again, expanded percentiles",
        level=level,
        cohort=cohort,
        unit=UNIT,
        note=note,
    )


def region(places: Floats, profile: Floats, cut: float) -> tuple[float, float]:
    """Return where 2 (max - profile) <= cut on an ascending grid, ends interpolated; infinite where the grid ends."""
    distance = 2 * (profile.max() - profile) - cut
    inside = np.flatnonzero(distance <= 0)
    first, last = int(inside[0]), int(inside[-1])
    low = -inf if first == 0 else _crossing(places, distance, first - 1)
    high = inf if last == len(places) - 1 else _crossing(places, distance, last)
    return low, high


def _crossing(places: Floats, distance: Floats, left: int) -> float:
    before, after = distance[left], distance[left + 1]
    return float(places[left] + (places[left + 1] - places[left]) * before / (before - after))


@lru_cache(maxsize=4096)
def _log_likelihood(k: int, n: int) -> Floats:
    """Return [logit of mean, log precision]: the beta-binomial log likelihood, without the binomial coefficient."""
    mean, precision = expit(_LOGITS)[:, None], np.exp(_LOG_PRECISIONS)
    a, b = mean * precision, expit(-_LOGITS)[:, None] * precision
    return np.asarray(betaln(k + a, n - k + b) - betaln(a, b))


def _check(k: NDArray[np.int64], n: NDArray[np.int64]) -> None:
    if k.shape != n.shape or k.ndim != 1:
        raise ValueError(f"successes [group] and runs [group] must be alike, not {k.shape} and {n.shape}")
    if (k < 0).any() or (k > n).any():
        raise ValueError("a group cannot have more successes than runs")
    if (n > 0).sum() < 2:
        raise ValueError("one group of seeds says nothing about others; at least two are needed")
