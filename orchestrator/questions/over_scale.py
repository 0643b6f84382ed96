"""Questions about scale: where P(success) is one half, what lies beyond, and which law the scores follow."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.comparisons import holm
from orchestrator.estimates.distances import Distance, Kind, neighbours
from orchestrator.estimates.distribution_law import DistributionLaw, distribution_law
from orchestrator.estimates.emergence import ChangeOfMean, Rivals, change_of_mean, rivals
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.isotonic import ShapeCheck, shape_check
from orchestrator.estimates.lineages import Lineages, RePairings, lineages, re_pairings
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.estimates.prediction import FEWEST, Prediction, predict
from orchestrator.estimates.quantile_law import QuantileLaws, quantile_laws
from orchestrator.estimates.success_over_scale import ScaleCurve, success_over_scale
from orchestrator.questions.asked import Question
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
PAST = 2.0  # the scale that is predicted where none is named: so many times the largest


@dataclass(frozen=True, slots=True)
class OverScale:
    """P(success) over scale.

    midpoint  the scale at which P is one half, in the factor's own unit (`curve` has its log10)
    slope     change of logit P per decade of scale
    at        scale → P by the two-parameter curve, for the scales that were asked for
    shape     whether P rises, falls, and whether two parameters suffice
    """

    scale: str
    midpoint: Estimate
    slope: Estimate
    at: dict[float, Estimate]
    shape: ShapeCheck
    curve: ScaleCurve


@dataclass(frozen=True, slots=True)
class Predictions:
    """P(success) at scales that need not have been run, by rivals that are weighted by their record."""

    scale: str
    at: dict[float, Prediction]


@dataclass(frozen=True, slots=True)
class Laws:
    """The distributional scaling law beside the law of the mean.

    change  of the mean between the ends: how much of it is a change of P(success)
    rivals  how both laws fare against the data
    """

    scale: str
    law: DistributionLaw
    change: ChangeOfMean
    rivals: Rivals


@dataclass(frozen=True, slots=True)
class Move:
    """The distance between the scores of one scale and the next; adjusted_p: Holm's, over all such pairs."""

    smaller: float
    larger: float
    distance: Distance
    adjusted_p: float


@dataclass(frozen=True, slots=True)
class Moves:
    """Did the distribution of scores move between neighbouring scales? By W1, and by W2, which minds far ones more."""

    scale: str
    w1: tuple[Move, ...]
    w2: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class OfLineages:
    """What single seeds do over scale, beside random re-pairings of runs."""

    scale: str
    seeds: tuple[str, ...]
    lineages: Lineages
    re_pairings: RePairings


def over_scale(question: Question) -> OverScale:
    """Return the curve of P(success) over scale, its midpoint and its shape."""
    curve = curve_of(question)
    shape = shape_check(curve.counts, curve.cohort, question.generator("success-over-scale", curve.cohort))
    at = {scale: curve.at(scale) for scale in question.options.at}
    return OverScale(question.scale, in_units(curve.midpoint), curve.slope, at, shape, curve)


def curve_of(question: Question) -> ScaleCurve:
    """Return the curve of P(success) over scale alone."""
    scales, k, n, conditions, cohort = counted(question)
    level, rule = question.level(conditions), conditions[0].success.stopping_rule
    return success_over_scale(scales, k, n, cohort, level, stopping_rule=rule)


def in_units(midpoint: Estimate) -> Estimate:
    """Return a log10 scale as a scale; no lower bound is 0, no upper bound is infinite."""
    with np.errstate(over="ignore"):
        value, low, high = (float(np.power(10.0, bound)) for bound in (midpoint.value, midpoint.low, midpoint.high))
    return replace(midpoint, value=value, low=low, high=high)


def prediction(question: Question) -> Predictions:
    """Return P(success) at the scales `at`, or at twice the largest one."""
    scales, k, n, conditions, cohort = counted(question, FEWEST)
    level, rule = question.level(conditions), conditions[0].success.stopping_rule
    wanted = question.options.at or (float(scales.max() * PAST),)
    return Predictions(question.scale, {scale: predict(scales, k, n, scale, cohort, level, rule) for scale in wanted})


def scaling_law(question: Question) -> Laws:
    """Return the mixture over scale beside the law of the mean, at the scales that were run and those of `at`."""
    outcomes, conditions = question.outcomes()
    level = question.level(conditions)
    at = np.unique(np.concatenate([outcomes.scale, question.options.at]))
    tried = rivals(outcomes, question.threshold, question.generator("rival laws", outcomes.cohort))
    return Laws(question.scale, law_at(question, outcomes, at, level), mean_change(question, outcomes, level), tried)


def law_at(question: Question, outcomes: Outcomes, at: Floats, level: float) -> DistributionLaw:
    """Return the mixture at these scales; the resamples are the same ones wherever it is read."""
    rng = question.generator("scaling-law", outcomes.cohort)
    return distribution_law(outcomes, question.threshold, at, rng, level)


def mean_change(question: Question, outcomes: Outcomes, level: float) -> ChangeOfMean:
    """Return how much of the change of the mean between the ends is a change of P(success)."""
    rng = question.generator("change of the mean", outcomes.cohort)
    return change_of_mean(outcomes, question.threshold, rng, level)


def quantiles(question: Question) -> QuantileLaws:
    """Return the laws of the 10, 50 and 90 % quantiles; they do not cross up to the largest scale of `at`."""
    outcomes, conditions = question.outcomes()
    rng = question.generator("quantile-laws", outcomes.cohort)
    up_to = max(question.options.at, default=None)
    return quantile_laws(outcomes, rng, up_to=up_to, level=question.level(conditions))


def moves(question: Question) -> Moves:
    """Return how far the distribution of final scores moves between neighbouring scales."""
    scales, conditions = _with_scores(question)
    if len(scales) < 2:
        raise QueryError(f"distances are between scales: runs have finished at {len(scales)} of them")
    return Moves(question.scale, *(_moves(question, scales, conditions, kind) for kind in (Kind.W1, Kind.W2)))


def _moves(question: Question, scales: Floats, conditions: Sequence[ConditionSummary], kind: Kind) -> tuple[Move, ...]:
    cohorts = [condition.success.cohort for condition in conditions]
    rng = question.generator(f"distances, {kind.value}", Cohort.pooled(cohorts))
    scores, level = [condition.scores for condition in conditions], question.level(conditions)
    found = neighbours(scores, cohorts, rng, kind, level=level)
    adjusted, places = holm([one.p for one in found]).tolist(), scales.tolist()
    return tuple(Move(*each) for each in zip(places[:-1], places[1:], found, adjusted, strict=True))


def of_lineages(question: Question) -> OfLineages:
    """Return breakthroughness and linearity of runs of one seed over scale."""
    _, conditions = _with_scores(question)
    seeds = {run.id: "/".join(map(str, run.seeds.as_dict().values())) for run in question.declared.runs}
    by_seed = [
        {seeds[run]: score for run, score in zip(question.scored(c), c.scores.tolist(), strict=True)}
        for c in conditions
    ]
    names = sorted({name for scores in by_seed for name in scores})
    table = np.array([[scores.get(name, np.nan) for scores in by_seed] for name in names])
    cohort = Cohort.pooled([condition.success.cohort for condition in conditions])
    found = lineages(table, cohort)
    paired = re_pairings(table, cohort, question.generator("lineages", cohort))
    return OfLineages(question.scale, tuple(names[index] for index in found.kept.tolist()), found, paired)


def counted(
    question: Question, fewest: int = 2
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64], Sequence[ConditionSummary], Cohort]:
    """Return scales, successes, known outcomes, conditions, and the pooled cohort; raises QueryError below `fewest`."""
    scales, conditions = question.by_scale()
    k = np.array([condition.successes for condition in conditions])
    n = np.array([condition.success.cohort.known for condition in conditions])
    there = int((n > 0).sum())
    if there < fewest:
        raise QueryError(f"this needs runs with a known outcome at {fewest} scales, and there are {there}")
    return scales, k, n, conditions, Cohort.pooled([condition.success.cohort for condition in conditions])


def _with_scores(question: Question) -> tuple[Floats, list[ConditionSummary]]:
    scales, conditions = question.by_scale()
    there = [index for index, condition in enumerate(conditions) if len(condition.scores)]
    return scales[there], [conditions[index] for index in there]
