"""How much a run wavers, and whether it commits to a rule.

Total variation is the sum of |change| from probe to probe. It grows with finer probes (one run: 5.24 on a 100-step
grid, 2.83 on a 200-step one), so the grid is part of the result, runs on different grids are refused, and beside the
sum stand the mean per interval and the part that is no trend: TV - |end - start|.
Commitment is this project's definition, after the finding that models are stable only when they follow one rule: in
the last part of training the rule's score never falls below 1 - tolerance. The paper's own threshold of instability is
not published; `unstable_above` is the user's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.success import wilson

Floats = NDArray[np.float64]
UNCOMMITTED = "uncommitted"


@dataclass(frozen=True, slots=True)
class Instability:
    """How much each run wavers on one grid of probes.

    total         [run], sum of |change|
    per_interval  [run], mean |change|
    net           [run], total less |end - start|: 0 for a run that only rises or only falls
    mean_*        over runs, with Student's t interval
    steps         [step], the grid
    """

    total: Floats
    per_interval: Floats
    net: Floats
    mean_total: Estimate
    mean_per_interval: Estimate
    mean_net: Estimate
    steps: NDArray[np.int64]
    cohort: Cohort
    method: str = "total variation, student t over runs"
    unit: str = "run"
    level: float = 0.95
    stopping_rule: str = FIXED


@dataclass(frozen=True, slots=True)
class Commitment:
    """Which rule each run follows to the end, if any.

    rules     [run], the name of a rule, or "uncommitted"
    shares    rule → P(a run commits to it), with Wilson's interval; "uncommitted" too
    unstable  [run], whether any rule's score changes by more than `unstable_above` per interval on average
    since     the first step that counts
    """

    rules: tuple[str, ...]
    shares: dict[str, Estimate]
    unstable: NDArray[np.bool_]
    since: int
    tolerance: float
    unstable_above: float
    cohort: Cohort
    method: str = "lowest score of the last part within tolerance of 1"
    unit: str = "run"
    level: float = 0.95
    stopping_rule: str = FIXED


def instability(steps: NDArray[np.int64], values: Floats, cohort: Cohort, level: float = 0.95) -> Instability:
    """Return the total variation of runs; values: [run, step], all of them measured at every step."""
    _check(steps, values)
    changes = np.abs(np.diff(values, axis=1))
    total, per_interval = changes.sum(axis=1), changes.mean(axis=1)
    net = np.maximum(total - np.abs(values[:, -1] - values[:, 0]), 0.0)
    return Instability(
        total=total,
        per_interval=per_interval,
        net=net,
        mean_total=_mean(total, cohort, level),
        mean_per_interval=_mean(per_interval, cohort, level),
        mean_net=_mean(net, cohort, level),
        steps=steps,
        cohort=cohort,
        level=level,
    )


def commitment(
    steps: NDArray[np.int64],
    scores: Mapping[str, Floats],
    tolerance: float,
    unstable_above: float,
    cohort: Cohort,
    last: float = 0.5,
    level: float = 0.95,
) -> Commitment:
    """Return which of several rules each run commits to.

    scores: rule → [run, step], the share of held-out items that the rule explains; rules exclude each other.
    tolerance: below ½, so that two rules cannot both be followed. last: the part of the steps that counts.
    """
    if not scores or not 0 <= tolerance < 0.5 or not 0 < last <= 1:
        raise ValueError("commitment needs at least one rule, a tolerance in [0, ½) and a last part in (0, 1]")
    names = sorted(scores)
    for name in names:
        _check(steps, scores[name])
    since = steps[0] + (1 - last) * (steps[-1] - steps[0])
    part = steps >= since
    stacked = np.stack([scores[name][:, part] for name in names])
    follows = stacked.min(axis=2) >= 1 - tolerance
    if (follows.sum(axis=0) > 1).any():
        raise ValueError("two rules explain the same items: they do not exclude each other")
    changes = np.abs(np.diff(stacked, axis=2))
    unstable = (changes.mean(axis=2) > unstable_above).any(axis=0) if changes.size else np.zeros(stacked.shape[1], bool)
    rules = tuple(names[int(f.argmax())] if f.any() else UNCOMMITTED for f in follows.T)
    n = len(rules)
    shares = {}
    for name in [*names, UNCOMMITTED]:
        k = rules.count(name)
        shares[name] = Estimate(k / n if n else nan, *wilson(k, n, level), "wilson", level, cohort)
    return Commitment(rules, shares, unstable, int(steps[part][0]), tolerance, unstable_above, cohort, level=level)


def _mean(values: Floats, cohort: Cohort, level: float) -> Estimate:
    """Return the mean over runs with Student's t interval; without bounds for fewer than two runs."""
    n = len(values)
    mean = float(values.mean()) if n else nan
    half = float(stdtrit(n - 1, (1 + level) / 2)) * float(values.std(ddof=1)) / sqrt(n) if n > 1 else inf
    return Estimate(mean, mean - half if n else -inf, mean + half if n else inf, "student t", level, cohort)


def _check(steps: NDArray[np.int64], values: Floats) -> None:
    if values.ndim != 2 or values.shape[1] != len(steps) or len(steps) < 2:
        raise ValueError(f"values are [run, step] with two steps or more, but have shape {values.shape}")
    if (np.diff(steps) <= 0).any():
        raise ValueError("steps must ascend")
    if np.isnan(values).any():
        raise ValueError("runs were probed at different steps, on which total variation depends: keep the common steps")
