"""P(success) as a function of scale: a logistic curve in log10 scale, and what the data say of it.

Penalised fit (`firth.py`); every interval is the profile likelihood's, never Wald's. The midpoint, the scale at which
P is one half, comes by test inversion: all scales at which "η = 0 here" is not rejected. Where "P is the same at all
scales" is not rejected either, that set has no end, and the bounds say so: they are infinite. P may fall with scale.
Two parameters must not extrapolate alone: past the largest scale use `prediction.py`.
Sources: Heinze & Schemper 2002; Venzon & Moolgavkar 1988, Applied Statistics 37; Fieller 1954 for sets without an end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, nan
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.firth import Counts, fit, penalised, profile_at, profile_slope

Floats = NDArray[np.float64]
Direction = Literal["either", "increasing", "decreasing"]
METHOD = "Firth logistic, profile likelihood"
UNBOUNDED = "the data do not bound the midpoint: P may be the same at all scales"
_DOUBLINGS = 40
_HALVINGS = 45
_NO_SLOPE = 1e-9  # logits over all scales: what is left of a slope of zero after rounding
_FAR = 1000.0  # spans of the scales away, a midpoint is that of a constant


@dataclass(frozen=True, slots=True)
class ScaleCurve:
    """The logistic curve of P over scale.

    slope      change of logit P per decade of scale
    midpoint   log10 of the scale at which P is one half; infinite bounds where the data do not bound it
    separated  no scale order is broken: plain maximum likelihood would have no finite fit
    """

    counts: Counts
    intercept: Estimate
    slope: Estimate
    midpoint: Estimate
    separated: bool
    level: float
    cohort: Cohort
    stopping_rule: str = FIXED
    method: str = METHOD
    unit: str = "run"

    def at(self, scale: float) -> Estimate:
        """Return P at one scale; at scales that were not run this is the two-parameter curve's word alone."""
        x = np.array([np.log10(scale)])
        eta, low, high = eta_interval(self.counts, x, self.level)
        low_p, high_p = _clear_ends(self.counts, expit(low), expit(high))
        return Estimate(
            float(expit(eta[0])), float(low_p[0]), float(high_p[0]), METHOD, self.level, self.cohort, "run",
            self.stopping_rule,
        )  # fmt: skip


def success_over_scale(
    scales: ArrayLike,
    k: ArrayLike,
    n: ArrayLike,
    cohort: Cohort,
    level: float = 0.95,
    direction: Direction = "either",
    stopping_rule: str = FIXED,
) -> ScaleCurve:
    """Return the curve from k [scale] successes of n [scale] runs with known outcome at positive scales [scale].

    `direction` says what was known before the data: with "increasing" a midpoint can be bounded on one side alone.
    Raises ValueError for fewer than two scales with runs, or impossible counts.
    """
    counts = counts_of(scales, k, n)
    intercept, slope, _ = fit(counts)

    def estimate(value: float, low: Floats, high: Floats) -> Estimate:
        return Estimate(value, float(low[0]), float(high[0]), METHOD, level, cohort, "run", stopping_rule)

    return ScaleCurve(
        counts=counts,
        intercept=estimate(float(intercept[0]), *eta_interval(counts, np.zeros(1), level)[1:]),
        slope=estimate(float(slope[0]), *slope_interval(counts, level)),
        midpoint=midpoint_over_scale(counts, cohort, level, direction, stopping_rule),
        separated=separated(counts),
        level=level,
        cohort=cohort,
        stopping_rule=stopping_rule,
    )


def midpoint_over_scale(
    counts: Counts,
    cohort: Cohort,
    level: float = 0.95,
    direction: Direction = "either",
    stopping_rule: str = FIXED,
) -> Estimate:
    """Return log10 of the scale at which P is one half, from the counts of one data set."""
    middle, low, high = midpoint_interval(counts, level, direction)
    note = UNBOUNDED if np.isinf(low[0]) or np.isinf(high[0]) else ""
    value, bounds = float(middle[0]), (float(low[0]), float(high[0]))
    return Estimate(value, *bounds, METHOD, level, cohort, "run", stopping_rule, note)


def counts_of(scales: ArrayLike, k: ArrayLike, n: ArrayLike) -> Counts:
    """Return the counts of one data set in ascending order of scale, without scales that have no runs."""
    s, successes, runs = (np.atleast_1d(np.asarray(values, float)) for values in (scales, k, n))
    if not len(s) == len(successes) == len(runs):
        raise ValueError(f"{len(s)} scales, {len(successes)} counts of successes, {len(runs)} of runs")
    if (s <= 0).any() or not np.isfinite(s).all():
        raise ValueError("scales must be positive and finite: the curve is in their logarithm")
    if (successes < 0).any() or (successes > runs).any():
        raise ValueError("a scale cannot have more successes than runs")
    order = [i for i in np.argsort(s, kind="stable") if runs[i] > 0]
    if len(np.unique(s[order])) < 2:
        raise ValueError("a curve over scale needs runs at two scales at least")
    return Counts(np.log10(s[order]), successes[None, order], runs[None, order])


def separated(counts: Counts) -> bool:
    """Return whether a scale parts all failures from all successes, or there is only one kind of outcome."""
    failing = counts.x[(counts.n - counts.k)[0] > 0]
    succeeding = counts.x[counts.k[0] > 0]
    if not len(failing) or not len(succeeding):
        return True
    return bool(failing.max() <= succeeding.min() or succeeding.max() <= failing.min())


def eta_interval(counts: Counts, at: Floats, level: float = 0.95) -> tuple[Floats, Floats, Floats]:
    """Return (η, low, high), each [data set], at log10 scales `at` [data set]."""
    intercept, slope, top = fit(counts)
    eta, cut, memory = intercept + slope * at, _cut(level), slope

    def excess(value: Floats) -> Floats:
        nonlocal memory
        reached, memory = profile_at(counts, at, value, memory)
        return 2 * (top - reached) - cut

    return eta, *_ends(excess, eta, np.ones_like(eta))


def slope_interval(counts: Counts, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return (low, high), each [data set], of the slope per decade."""
    intercept, slope, top = fit(counts)
    cut, memory = _cut(level), intercept

    def excess(value: Floats) -> Floats:
        nonlocal memory
        reached, memory = profile_slope(counts, value, memory)
        return 2 * (top - reached) - cut

    return _ends(excess, slope, 1 + np.abs(slope) / 4)


def midpoint_interval(
    counts: Counts, level: float = 0.95, direction: Direction = "either"
) -> tuple[Floats, Floats, Floats]:
    """Return (midpoint, low, high), each [data set], as log10 scale; NaN where P is the same at all scales.

    Far away "η = 0 here" becomes "P is the same everywhere", so a side has an end exactly if that is rejected. Where
    the fit goes against `direction` the best curve is a constant, and its midpoint is infinite.
    """
    intercept, slope, top = fit(counts)
    slope = np.where(np.abs(slope) * np.ptp(counts.x) < _NO_SLOPE, 0.0, slope)
    cut, memory, span = _cut(level), slope, np.ptp(counts.x)
    half = penalised(counts, np.zeros_like(counts.k))
    constant, logit = profile_slope(counts, np.zeros_like(slope), np.zeros_like(slope))
    sign = {"either": 0.0, "increasing": 1.0, "decreasing": -1.0}[direction]
    flat = (sign * slope < 0) | (slope == 0)
    # The constant curve of an increasing P below one half has its midpoint beyond all scales.
    far = np.where(sign * logit < 0, 1.0, -1.0)
    middle = np.where(flat, counts.x.mean() + far * _FAR * span, -intercept / np.where(slope == 0, 1, slope))
    top = np.where(flat, constant, top)

    def excess(value: Floats) -> Floats:
        nonlocal memory
        reached, memory = profile_at(counts, value, np.zeros_like(value), memory)
        return 2 * (top - np.where(sign * memory < 0, half, reached)) - cut

    end_above = 2 * (top - np.where(sign * logit <= 0, constant, half)) > cut
    end_below = 2 * (top - np.where(sign * logit >= 0, constant, half)) > cut
    low, high = _ends(excess, middle, np.full_like(middle, span / 8))
    value = np.where(flat, far * inf if sign else nan, middle)
    return value, np.where(end_below, low, -inf), np.where(end_above, high, inf)


def _ends(excess: Callable[[Floats], Floats], best: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Return where `excess` turns positive below and above `best`, by doubling steps and then bisection."""
    found = []
    for sign in (-1.0, 1.0):
        inner, outer = best, best + sign * step
        for doubling in range(_DOUBLINGS):
            inside = excess(outer) < 0
            if not inside.any():
                break
            inner = np.where(inside, outer, inner)
            outer = np.where(inside, best + sign * step * 2.0 ** (doubling + 1), outer)
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            inside = excess(middle) < 0
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        found.append(inner)
    return found[0], found[1]


def _clear_ends(counts: Counts, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the bounds with 0 where nothing ever succeeded and 1 where nothing ever failed."""
    return (
        np.where(counts.k.sum(axis=1) == 0, 0.0, low),
        np.where(counts.k.sum(axis=1) == counts.n.sum(axis=1), 1.0, high),
    )


def _cut(level: float) -> float:
    from scipy.stats import chi2  # 50 MB and a second: readers of a store do without

    return float(chi2.ppf(level, 1))
