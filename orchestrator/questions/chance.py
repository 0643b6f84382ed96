"""Questions about one condition: how likely is success, for which threshold, in one mode or two, and means."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.bands import Band, mean_band
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.item_noise import success_from_items
from orchestrator.estimates.means import mean_bca, mean_t
from orchestrator.estimates.modes import Modes, ThresholdRow, count_modes, threshold_sweep, value_modes
from orchestrator.estimates.success import Interval, success_probability
from orchestrator.estimates.survival_curve import SurvivalCurve, survival_curve
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary, StudySummary

Floats = NDArray[np.float64]
LOSS = "train.loss"
_SWEEP = 9  # thresholds


@dataclass(frozen=True, slots=True)
class Success:
    """P(success) of one condition.

    value          with the interval that holds under the study's own rule: Wilson's where the number of seeds is fixed
    if_censored    its bounds if no, and if every, run without a known outcome had been a success (Manski)
    true_accuracy  P(the accuracy on endless items is at or above the threshold); None where no items were counted
    """

    successes: int
    value: Estimate
    wilson: Estimate
    jeffreys: Estimate
    clopper_pearson: Estimate
    if_censored: Interval
    true_accuracy: Estimate | None


@dataclass(frozen=True, slots=True)
class OneOrTwo:
    """One mode or two, by three roads.

    score  on the metric at the last step: on its counts where there are any
    loss   on the final training loss, the free null: modes in accuracy alone may be the metric's doing
    sweep  what other thresholds of success would say
    without  why `loss` is None
    """

    score: Modes
    loss: Modes | None
    sweep: tuple[ThresholdRow, ...]
    without: str


@dataclass(frozen=True, slots=True)
class Means:
    """The mean over runs, with Student's interval and with the BCa bootstrap's."""

    t: Estimate
    bca: Estimate


@dataclass(frozen=True, slots=True)
class CurveOfMean:
    """The mean over runs at every step [step]; with probability `level` the band holds everywhere at once."""

    steps: NDArray[np.int64]
    band: Band


def success(question: Question) -> Each[Success]:
    """Return P(success) of each condition."""

    def answer(condition: ConditionSummary) -> Success:
        own = own_success(question, condition)
        k, cohort, level = condition.successes, own.cohort, own.level
        wilson, jeffreys, exact = (
            success_probability(k, cohort, name, level) for name in ("wilson", "jeffreys", "clopper-pearson")
        )
        return Success(k, own, wilson, jeffreys, exact, condition.bounds, _from_items(question, condition, level))

    return each(question.summary(), answer, question.watch)


def own_success(question: Question, condition: ConditionSummary) -> Estimate:
    """Return P(success) with the interval that holds under the study's own rule, at the level that was asked for."""
    own, level = condition.success, question.level([condition])
    if level == own.level:
        return own
    return success_probability(condition.successes, own.cohort, own.method, level, own.stopping_rule)


def survival(question: Question) -> Each[SurvivalCurve]:
    """Return P(score >= τ) for every τ at once, of each condition."""
    return each(
        question.summary(), lambda c: survival_curve(c.scores, c.success.cohort, question.level([c])), question.watch
    )


def mean(question: Question) -> Each[Means]:
    """Return the mean of the metric at the last step over the finished runs of each condition."""

    def answer(condition: ConditionSummary) -> Means:
        rng = question.generator("mean", condition.success.cohort)
        t = own_mean(question, condition)
        return Means(t, mean_bca(condition.scores, condition.success.cohort, rng, t.level))

    return each(question.summary(), answer, question.watch)


def curve(question: Question) -> Each[CurveOfMean]:
    """Return the mean over runs at every step, with one band that holds at all steps together."""

    def answer(condition: ConditionSummary) -> CurveOfMean:
        curves, cohort = condition.curves, condition.success.cohort
        if (curves.measured > 1).sum() < 1:
            raise QueryError("a band needs two runs that were measured at one step")
        rng = question.generator("curve", cohort)
        return CurveOfMean(curves.steps, mean_band(curves.values, cohort, rng, question.level([condition])))

    return each(question.summary(), answer, question.watch)


def own_mean(question: Question, condition: ConditionSummary) -> Estimate:
    """Return the mean score with Student's interval; raises QueryError where no run has finished."""
    if not len(condition.scores):
        raise QueryError("no run has finished yet")
    found = mean_t(condition.scores, condition.success.cohort, question.level([condition]))
    return replace(found, stopping_rule=condition.success.stopping_rule)


def modes(question: Question) -> Each[OneOrTwo]:
    """Return for each condition whether its final scores have one mode or two."""
    summary = question.summary()
    losses = _losses(question)

    def answer(condition: ConditionSummary) -> OneOrTwo:
        scores, cohort, gap = condition.scores, condition.success.cohort, question.options.gap
        counted = counts_of(question, condition)
        rng = question.generator("modes", cohort)
        found = count_modes(*counted, gap, cohort, rng) if counted else value_modes(np.sort(scores), gap, cohort, rng)
        rows = threshold_sweep(np.sort(scores), _thresholds(scores, counted is not None), found, cohort)
        loss, without = _loss_modes(question, losses.get(condition.condition.id, np.empty(0)), cohort)
        return OneOrTwo(found, loss, tuple(rows), without)

    return each(summary, answer, question.watch)


def _loss_modes(question: Question, losses: Floats, cohort: Cohort) -> tuple[Modes | None, str]:
    try:
        rng = question.generator("modes of the loss", cohort)
        return value_modes(np.sort(losses), question.options.loss_gap, cohort, rng), ""
    except ValueError as error:
        return None, str(error)


def _losses(question: Question) -> dict[str, Floats]:
    """Return condition → the final training losses of its finished runs; empty where that was not measured."""
    if LOSS not in question.metrics():
        return {}
    summary: StudySummary = question.summary(LOSS)
    return {condition.condition.id: condition.scores for condition in summary.conditions}


def _thresholds(scores: Floats, is_share: bool) -> Floats:
    if is_share:
        return np.arange(1, _SWEEP + 1) / (_SWEEP + 1)
    return np.linspace(scores.min(), scores.max(), _SWEEP)


def counts_of(question: Question, condition: ConditionSummary) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return (correct [run], items [run]) of the finished runs, ascending in score; None where none were counted."""
    rows = question.rows().filter(pc.field("step") == condition.condition.planned_steps)
    columns = (rows[name].to_pylist() for name in ("run_id", "value", "correct", "total"))
    counted = {run: (value, k, m) for run, value, k, m in zip(*columns, strict=True) if m}
    runs = question.scored(condition)
    if not runs or any(run not in counted for run in runs):
        return None
    _, correct, items = zip(*sorted(counted[run] for run in runs), strict=True)
    return np.array(correct, np.int64), np.array(items, np.int64)


def _from_items(question: Question, condition: ConditionSummary, level: float) -> Estimate | None:
    counted, threshold = counts_of(question, condition), question.threshold
    if counted is None or not 0 < threshold < 1:
        return None
    return success_from_items(*counted, threshold, condition.success.cohort, level)
