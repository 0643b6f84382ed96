"""Is a jump of the mean a jump of any run? What of the mean's change over scale is a change of P(success).

Between two scales the change of the mean splits exactly (Kitagawa 1955) into

    ΔP · (gap between successes and failures)  +  P · Δ(mean of successes)  +  (1 - P) · Δ(mean of failures)

with P and the gap averaged over the two. A share of the first term near one says that runs got no better at what
they do: more of them do it. Where a scale has runs of one kind only, the other kind's mean is the nearest scale's.

`rivals` puts the mixture against the naive law of the mean: does each reproduce the data's means (parametric
bootstrap p), and which predicts the runs of a scale that it has not seen better (CRPS, Gneiting & Raftery 2007)?
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.distribution_law import (
    Parts,
    Sums,
    check,
    distribution_law,
    fit_parts,
    sums_of,
)
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.log_link import means_at
from orchestrator.estimates.outcomes import Outcomes, percentile_ends

Floats = NDArray[np.float64]
FEW_RUNS = 50
FEW_NOTE = "below 50 runs a scale, where P comes near 0 or 1, covered less often than said: .90 at 20 runs"
_LEAST_SCALES = 3


@dataclass(frozen=True, slots=True)
class ChangeOfMean:
    """What the change of the mean between the smallest and the largest scale is made of.

    change      of the mean, in units of the score
    by_weight   the part of it that is a change of P(success); the rest is change within the components
    share       by_weight / change; unbounded where the change itself may be zero
    steps       [scale - 1, 2], change and by_weight between neighbouring scales
    """

    change: Estimate
    by_weight: Estimate
    share: Estimate
    steps: Floats
    cohort: Cohort
    method: str = "Kitagawa, runs resampled"
    level: float = 0.95
    unit: str = "run"
    stopping_rule: str = FIXED


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A scale that was predicted from the smaller ones alone."""

    scale: float
    runs: int
    mean: float
    composite_mean: float
    naive_mean: float
    composite_crps: float
    naive_crps: float


@dataclass(frozen=True, slots=True)
class Rivals:
    """The mixture against the law of the mean.

    composite_p, naive_p  how often data made by the model miss their own fit by as much; small: the model is wrong
    held_out              each scale from the fourth on, predicted by the smaller ones
    """

    composite_p: float
    naive_p: float
    held_out: tuple[HeldOut, ...]
    method: str
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED


def change_of_mean(
    outcomes: Outcomes, threshold: float, rng: np.random.Generator, level: float = 0.95, resamples: int = 2_000
) -> ChangeOfMean:
    """Return the parts of the mean's change over scale, with expanded percentiles of resampled runs."""
    point = _steps(check(outcomes, threshold))
    drawn = _steps(sums_of(outcomes.drawn(rng, resamples), threshold))
    ends = percentile_ends(int(outcomes.runs.min()), level)
    method = "Kitagawa, runs resampled"

    few = FEW_NOTE if outcomes.runs.min() < FEW_RUNS else ""

    def estimate(part: int) -> Estimate:
        low, high = np.quantile(drawn[:, :, part].sum(axis=1), ends)
        value = float(point[0, :, part].sum())
        return Estimate(value, float(low), float(high), method, level, outcomes.cohort, note=few)

    change, by_weight = estimate(0), estimate(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = by_weight.value / np.float64(change.value)
        bounds = np.quantile(drawn[:, :, 1].sum(axis=1) / drawn[:, :, 0].sum(axis=1), ends)
    tied = change.low <= 0 <= change.high
    low, high = (-np.inf, np.inf) if tied else bounds
    note = "the mean may not change at all, so shares of its change have no bound" if tied else few
    share = Estimate(float(ratio), float(low), float(high), method, level, outcomes.cohort, note=note)
    return ChangeOfMean(change, by_weight, share, point[0], outcomes.cohort, method, level)


def rivals(outcomes: Outcomes, threshold: float, rng: np.random.Generator, simulations: int = 499) -> Rivals:
    """Return how both laws fare against the data, within the scales and beyond them."""
    sums = check(outcomes, threshold)
    held_out = []
    for count in range(_LEAST_SCALES, len(outcomes.scale)):
        try:
            held_out.append(_held_out(outcomes, threshold, count, rng))
        except ValueError:  # below this scale there is one component only: nothing to extrapolate
            continue
    return Rivals(
        composite_p=_misfit(outcomes, threshold, sums, rng, simulations, is_naive=False),
        naive_p=_misfit(outcomes, threshold, sums, rng, simulations, is_naive=True),
        held_out=tuple(held_out),
        method=f"parametric bootstrap of the means, {simulations} data sets; CRPS at scales held out",
        cohort=outcomes.cohort,
    )


def crps(scores: Floats, weight: Floats, observed: Floats) -> float:
    """Return the mean CRPS of a discrete distribution (ascending scores, weights that sum to 1) over observations."""
    first = np.abs(scores[:, None] - observed).T @ weight
    # Σ w_i w_j |x_i - x_j| / 2 = Σ gap · F (1 - F) over the gaps between ascending scores.
    below = np.cumsum(weight)[:-1]
    return float(first.mean() - (np.diff(scores) * below * (1 - below)).sum())


def _steps(sums: Sums) -> Floats:
    """Return [data set, scale - 1, 2]: the change of the mean from scale to scale, and its part by P."""
    mean = (sums.of_failures + sums.of_successes) / sums.runs
    p = sums.successes / sums.runs
    with np.errstate(invalid="ignore", divide="ignore"):
        success, failure = sums.of_successes / sums.successes, sums.of_failures / (sums.runs - sums.successes)
    gap = _filled(success) - _filled(failure)
    by_weight = np.diff(p, axis=1) * (gap[:, 1:] + gap[:, :-1]) / 2
    return np.stack([np.diff(mean, axis=1), by_weight], axis=2)


def _filled(means: Floats) -> Floats:
    """Return [data set, scale] with every NaN replaced by the nearest scale's value; 0 where a row has none."""
    place = np.arange(means.shape[1])
    distance = np.abs(place[:, None] - place)[None] + np.where(np.isnan(means), 1_000, 0)[:, None, :]
    return np.nan_to_num(np.take_along_axis(means, distance.argmin(axis=2), axis=1))


def _misfit(
    outcomes: Outcomes, threshold: float, sums: Sums, rng: np.random.Generator, simulations: int, is_naive: bool
) -> float:
    """Return the parametric bootstrap p of Σ (mean - model)² / variance over the scales."""
    log_x = np.log(outcomes.scale)
    point = fit_parts(log_x, sums)
    made = _made(outcomes, threshold, point, rng, simulations, is_naive)
    # A resample of a component that never occurs has no law of its own.
    again = fit_parts(log_x, sums_of(made, threshold), spare=point)

    def curve(parts: Parts) -> Floats:
        return means_at(parts.naive, log_x) if is_naive else parts.composite(log_x)

    means = np.stack([values.mean(axis=1) for values in made], axis=1)
    variance = np.maximum(means.var(axis=0), 1e-300)
    observed = ((outcomes.means - curve(point)[0]) ** 2 / variance).sum()
    simulated = ((means - curve(again)) ** 2 / variance).sum(axis=1)
    return float((1 + (simulated >= observed * (1 - 1e-9)).sum()) / (simulations + 1))


def _made(
    outcomes: Outcomes, threshold: float, point: Parts, rng: np.random.Generator, count: int, is_naive: bool
) -> list[Floats]:
    """Return for each scale [data set, run]: scores drawn from the model."""
    law = distribution_law(outcomes, threshold, outcomes.scale, rng, resamples=1)
    naive = means_at(point.naive, np.log(outcomes.scale))[0]
    pooled = np.concatenate([scores / m for scores, m in zip(outcomes.scores, naive, strict=True)])
    made = []
    for place, runs in enumerate(outcomes.runs):
        scores, weight = (
            (pooled * naive[place], np.full(len(pooled), 1 / len(pooled))) if is_naive else law.atoms(place)
        )
        made.append(rng.choice(scores, size=(count, int(runs)), p=weight / weight.sum()))
    return made


def _held_out(outcomes: Outcomes, threshold: float, count: int, rng: np.random.Generator) -> HeldOut:
    seen, top = outcomes.up_to(count), outcomes.scale[count]
    law = distribution_law(seen, threshold, outcomes.scale[count : count + 1], rng, resamples=1)
    point = fit_parts(np.log(seen.scale), check(seen, threshold))
    naive = means_at(point.naive, np.log(seen.scale))[0]
    pooled = np.sort(np.concatenate([scores / m for scores, m in zip(seen.scores, naive, strict=True)]))
    observed = outcomes.scores[count]
    return HeldOut(
        scale=float(top),
        runs=len(observed),
        mean=float(observed.mean()),
        composite_mean=float(law.mean.value[0]),
        naive_mean=float(law.naive.value[0]),
        composite_crps=crps(*law.atoms(0), observed),
        naive_crps=crps(pooled * law.naive.value[0], np.full(len(pooled), 1 / len(pooled)), observed),
    )
