"""How long until a metric breaks through, where every time is known or later than the run's end.

Kaplan-Meier with right-censoring, the median with an interval that may be infinite, and the log-rank test. A run
that ended, diverged or is still at work without an onset is censored at its last probe; it is never left out, and
never counted as an onset. For brackets of a probe grid see `turnbull.py`.
Sources: Kaplan & Meier 1958; Greenwood 1926 on the log-log scale (Kalbfleisch & Prentice 2002, 1.4); the median's
interval by Brookmeyer & Crowley 1982; Mantel 1966.
"""

from dataclasses import dataclass
from math import inf, nan

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtrc, ndtri

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Survival:
    """P(no onset by time t), a step function that falls at `times`.

    times      [time], distinct and ascending, at which there was an onset
    survival   [time], from that time on; 1 before the first
    low, high  [time], the band's pointwise ends
    at_risk    [time], runs without onset and still watched just before
    events     [time], onsets then
    median     first time with survival ≤ 1/2, infinite where the curve does not get there
    """

    times: Floats
    survival: Floats
    low: Floats
    high: Floats
    at_risk: Integers
    events: Integers
    median: Estimate
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    def at(self, time: float) -> float:
        """Return the survival at a time."""
        place = int(np.searchsorted(self.times, time, side="right"))
        return float(self.survival[place - 1]) if place else 1.0


@dataclass(frozen=True, slots=True)
class LogRank:
    """Whether the curves of several groups are one.

    observed, expected  [group], onsets, and those expected if all groups had one hazard
    """

    chi_squared: float
    degrees_of_freedom: int
    p: float
    observed: Floats
    expected: Floats
    cohort: Cohort
    method: str = "log-rank"
    unit: str = "run"
    stopping_rule: str = FIXED


def kaplan_meier(times: Floats, seen: NDArray[np.bool_], cohort: Cohort, level: float = 0.95) -> Survival:
    """Return the survival curve with log-log intervals.

    times: [run], of the onset, or of the last probe; seen: [run], whether it is an onset.
    """
    _check(times, seen)
    distinct, at_risk, events = _table(times, seen)
    kept = 1 - events / at_risk
    survival = np.asarray(np.cumprod(kept), np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.asarray(np.cumsum(events / (at_risk * (at_risk - events))), np.float64)
    low, high = log_log_band(survival, variance, level)
    median = Estimate(
        _first_below(distinct, survival),
        _first_below(distinct, low),
        _first_below(distinct, high),
        "kaplan-meier, brookmeyer-crowley on the log-log scale",
        level,
        cohort,
    )
    return Survival(
        distinct, survival, low, high, at_risk, events, median, "kaplan-meier, log-log greenwood", level, cohort
    )


def log_log_band(survival: Floats, variance: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the ends [time] of the interval S^exp(±z·se), se of log(-log S) from the variance of log S.

    Where the curve is at 0 the formula has no value: the low end is 0, the high end that of the time before.
    """
    z = float(ndtri((1 + level) / 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        half = z * np.sqrt(variance) / np.abs(np.log(survival))
        low, high = survival ** np.exp(half), survival ** np.exp(-half)
    whole, empty = survival >= 1, survival <= 0
    low = np.where(empty, 0.0, np.where(whole, 1.0, low))
    high = np.where(empty, nan, np.where(whole, 1.0, high))
    if len(high) and np.isnan(high[0]):
        high[0] = 1.0
    return low, np.fmin.accumulate(high)


def log_rank(times: Floats, seen: NDArray[np.bool_], group: Integers, cohort: Cohort) -> LogRank:
    """Return the test of equal hazards; group: [run], any labels, at least two of them."""
    _check(times, seen)
    labels, member = np.unique(group, return_inverse=True)
    if len(labels) < 2 or len(group) != len(times):
        raise ValueError("a log-rank test compares at least two groups, one label per run")
    distinct, at_risk, events = _table(times, seen)
    of = member == np.arange(len(labels))[:, None]
    mine = (of[:, None, :] & (times >= distinct[:, None])).sum(axis=2)
    observed = (of & seen).sum(axis=1).astype(np.float64)
    share = mine / at_risk
    expected = (share * events).sum(axis=1)
    spread = events * (at_risk - events) / np.maximum(at_risk - 1, 1)
    covariance = np.diag((share * spread).sum(axis=1)) - (share * spread) @ share.T
    excess = observed - expected
    chi = float(excess @ np.linalg.pinv(covariance) @ excess)
    degrees = len(labels) - 1
    return LogRank(chi, degrees, float(chdtrc(degrees, chi)), observed, expected, cohort)


def _table(times: Floats, seen: NDArray[np.bool_]) -> tuple[Floats, Integers, Integers]:
    """Return (distinct times of onsets, runs at risk, onsets), each [time]."""
    distinct, counts = np.unique(times[seen], return_counts=True)
    ordered = np.sort(times)
    at_risk = len(times) - np.searchsorted(ordered, distinct, side="left")
    return distinct, at_risk.astype(np.int64), counts.astype(np.int64)


def _first_below(times: Floats, curve: Floats) -> float:
    # A half that is one in exact arithmetic must not be missed by rounding.
    below = curve <= 0.5 + 1e-12
    return float(times[int(below.argmax())]) if below.any() else inf


def _check(times: Floats, seen: NDArray[np.bool_]) -> None:
    if times.ndim != 1 or times.shape != seen.shape or not len(times):
        raise ValueError(
            f"times and seen are [run] of at least one run, but have shapes {times.shape} and {seen.shape}"
        )
    if not np.isfinite(times).all():
        raise ValueError("a censored run has the time of its last probe; a time that is not finite has no place")
