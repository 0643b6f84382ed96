"""Questions about the course of training: when, in which order, through which states, and how steadily."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.breaks import Break, Breakthrough, break_of, breakthrough, resampled
from orchestrator.estimates.cure import CureFit, cure_weibull
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.hidden_states import Padded, standardise
from orchestrator.estimates.onset import Bracket, Direction, MedianOnset, median_onset, onsets
from orchestrator.estimates.order import Brackets, Order, kendall_tau, order_of, rate_without
from orchestrator.estimates.state_choice import StateChoice, choose_states
from orchestrator.estimates.success import wilson
from orchestrator.estimates.training_map import TrainingMap, training_map
from orchestrator.estimates.turnbull import Turnbull, turnbull
from orchestrator.estimates.weibull import WeibullFit, weibull_aft
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
_TRIED = (2, 3, 4)  # latent states
_RESTARTS = 20
_LEAST_PROBES = 8  # that a breakthrough is judged on


@dataclass(frozen=True, slots=True)
class OnsetsOfOne:
    """When the runs of one condition break through.

    median    the last step of its bracket of probes, with an exact interval between order statistics
    bracket   the same as brackets
    turnbull  the whole distribution, without a shape
    never     runs that ended without an onset
    """

    median: Estimate
    bracket: MedianOnset
    turnbull: Turnbull
    never: int


@dataclass(frozen=True, slots=True)
class Onsets:
    """Onsets of every condition, and over scale.

    weibull  a line over log10 scale, if every run would break through in the end
    cured    the same with a share that never would, read at the largest scale
    without  why either is None
    """

    conditions: Each[OnsetsOfOne]
    weibull: WeibullFit | None
    cured: CureFit | None
    without: str


@dataclass(frozen=True, slots=True)
class Ordered:
    """Does the metric break through before the second one (`against`) does?

    rate_of_second_alone  onsets of the second per step in which the first had surely not happened
    """

    order: Order
    rate_of_second_alone: Estimate
    tau: Estimate


@dataclass(frozen=True, slots=True)
class BreakOfRun:
    """The break statistic of one run, and whether there was a breakthrough at all."""

    run_id: str
    statistic: Break
    breakthrough: Breakthrough


@dataclass(frozen=True, slots=True)
class Breaks:
    """Breaks of every run of a condition; share: of runs with a declared breakthrough."""

    share: Estimate
    runs: tuple[BreakOfRun, ...]


@dataclass(frozen=True, slots=True)
class States:
    """Latent states of training, and the map of moves between them."""

    metrics: tuple[str, ...]
    run_ids: tuple[str, ...]
    choice: StateChoice
    map: TrainingMap


def onset(question: Question) -> Onsets:
    """Return when runs break through, by condition and over scale."""
    summary = question.summary()
    found = each(summary, lambda condition: onsets_of_one(question, condition), question.watch)
    try:
        scales, conditions = question.by_scale()
        if len(scales) < 2:
            raise QueryError("a line over scale needs runs at two scales")
        pairs = [brackets(question, condition) for condition in conditions]
        x = np.concatenate([np.full(len(p.low), np.log10(s)) for s, p in zip(scales, pairs, strict=True)])
        low, high = (np.concatenate([getattr(pair, side) for pair in pairs]) for side in ("low", "high"))
        cohort = Cohort.pooled([condition.success.cohort for condition in conditions])
        level = question.level(conditions)
        weibull = weibull_aft(low, high, cohort, x, level)
    except (QueryError, ValueError) as error:
        return Onsets(found, None, None, str(error))
    try:
        cured = cure_weibull(low, high, cohort, x, float(np.log10(scales[-1])), level)
    except ValueError as error:
        return Onsets(found, weibull, None, str(error))
    return Onsets(found, weibull, cured, "")


def onsets_of_one(question: Question, condition: ConditionSummary) -> OnsetsOfOne:
    """Return when the ended runs of one condition break through; raises QueryError where none has ended."""
    pair = brackets(question, condition)
    if not len(pair.low):
        raise QueryError("no run has ended yet")
    level, cohort = question.level([condition]), condition.success.cohort
    rng = question.generator("onset", cohort)
    return OnsetsOfOne(
        median_of(question, condition),
        _median(question, condition),
        turnbull(pair.low, pair.high, cohort, rng, level=level),
        int(np.isinf(pair.high).sum()),
    )


def median_of(question: Question, condition: ConditionSummary) -> Estimate:
    """Return the probe by which the median run has broken through: infinite where it did not, NaN without a run."""
    found, any_ended = _median(question, condition), bool(question.ended(condition).any())
    note = f"in ({found.bracket.low:g}, {found.bracket.high:g}]" if any_ended else "no run has ended yet"
    return Estimate(
        found.bracket.high if any_ended else nan, *found.interval, found.method, found.level, found.cohort, found.unit,
        condition.success.stopping_rule, "; ".join(filter(None, (note, found.note))),
    )  # fmt: skip


def _median(question: Question, condition: ConditionSummary) -> MedianOnset:
    """Return the median onset of all launched runs: one that was lost, or has not ended, bounds it on one side."""
    curves, direction = condition.curves, _direction(question)
    rule, ended = (question.threshold, question.declared.success.sustained), question.ended(condition)
    low, high = onsets(curves.steps, curves.values, *rule, direction, ended)
    listed = [Bracket(until, after) for after, until in zip(low.tolist(), high.tolist(), strict=True)]
    return median_onset(listed, condition.success.cohort, question.level([condition]))


def _direction(question: Question) -> Direction:
    return "down" if question.options.falling else "up"


def brackets(question: Question, condition: ConditionSummary, threshold: float | None = None) -> Brackets:
    """Return the onsets of the runs that have ended, in the order of their ids."""
    curves, ended = condition.curves, question.ended(condition)
    level = question.threshold if threshold is None else threshold
    direction = _direction(question)
    sustained = question.declared.success.sustained
    return Brackets(*onsets(curves.steps, curves.values[ended], level, sustained, direction))


def order(question: Question) -> Each[Ordered]:
    """Return whether the metric's onset comes before that of a second metric or of a second threshold."""
    options = question.options
    if not options.against and np.isnan(options.against_threshold):
        raise QueryError(
            "order compares two onsets: name a second metric (against), a second threshold (against_threshold), or"
            f" both; metrics are {', '.join(question.metrics())}"
        )
    others = {c.condition.id: c for c in question.summary(options.against or question.metric).conditions}

    def answer(condition: ConditionSummary) -> Ordered:
        a, b = (
            brackets(question, condition),
            brackets(question, others[condition.condition.id], question.second_threshold),
        )
        if not len(a.low):
            raise QueryError("no run has ended yet")
        cohort, level = condition.success.cohort, question.level([condition])
        tau = kendall_tau(a, b, cohort, question.generator("order", cohort), level=level)
        return Ordered(order_of(a, b, cohort, level), rate_without(a, b, cohort, level), tau)

    return each(question.summary(), answer, question.watch)


def ended_curves(question: Question, condition: ConditionSummary) -> tuple[NDArray[np.int64], Floats, tuple[str, ...]]:
    """Return (steps, values [run, step], run ids) of the runs that finished, at the probes that all of them have."""
    chosen = np.isin(condition.curves.run_ids, question.scored(condition))
    values = condition.curves.values[chosen]
    common = ~np.isnan(values).any(axis=0)
    if not len(values) or common.sum() < 2:
        raise QueryError(f"{len(values)} finished runs have {int(common.sum()) if len(values) else 0} probes in common")
    runs = tuple(run for run, mine in zip(condition.curves.run_ids, chosen.tolist(), strict=True) if mine)
    return condition.curves.steps[common], values[:, common], runs


def breaks(question: Question) -> Each[Breaks]:
    """Return where every finished run breaks, and the share of runs with a breakthrough, of each condition."""
    direction = _direction(question)

    def answer(condition: ConditionSummary) -> Breaks:
        steps, values, runs = ended_curves(question, condition)
        if len(steps) < _LEAST_PROBES:
            raise QueryError(f"a breakthrough is judged on {_LEAST_PROBES} probes or more, and there are {len(steps)}")
        every = int(np.diff(steps).min())
        window = question.options.window or max(round(int(steps[-1]) / 10), every)
        window = max(round(window / every), 1) * every
        found = [
            BreakOfRun(run, break_of(*resampled(steps, line, every), window, 1, direction), breakthrough(steps, line))
            for run, line in zip(runs, values, strict=True)
        ]
        k, n, level = sum(one.breakthrough.declared for one in found), len(found), question.level([condition])
        share = Estimate(k / n, *wilson(k, n, level), "wilson", level, condition.success.cohort)
        return Breaks(share, tuple(found))

    return each(question.summary(), answer, question.watch)


def states(question: Question) -> States:
    """Return the latent states of one condition's runs over all metrics but single items.

    Raises QueryError for several conditions.
    """
    conditions = question.summary().conditions
    if len(conditions) > 1:
        labels = ", ".join(condition.condition.label for condition in conditions)
        raise QueryError(f"latent states are of one condition: choose with --condition one of {labels}")
    names, condition = question.measures(), conditions[0]
    curves = [question.summary(name).conditions[0].curves for name in names]
    common = _common([curve.steps for curve in curves])
    ended = question.ended(condition)
    cube = np.stack([curve.values[:, np.isin(curve.steps, common)] for curve in curves], axis=2)[ended]
    if len(cube) < 3 or len(common) < 4:
        raise QueryError(f"latent states need 3 ended runs and 4 common probes, not {len(cube)} and {len(common)}")
    measured = [run[~np.isnan(run).any(axis=1)] for run in cube]
    if any(len(run) < 2 for run in measured):
        raise QueryError("a run has fewer than two probes at which every metric was measured")
    sequences = Padded.of(standardise(measured, over="cohort"))
    cohort = condition.success.cohort
    choice = choose_states(sequences, cohort, question.generator("states", cohort), tried=_TRIED, restarts=_RESTARTS)
    high = brackets(question, condition).high
    found = training_map(
        choice.model.paths(sequences), choice.states, np.where(np.isinf(high), np.nan, high), ~np.isinf(high), cohort
    )
    runs = tuple(run for run, mine in zip(condition.curves.run_ids, ended.tolist(), strict=True) if mine)
    return States(tuple(names), runs, choice, found)


def _common(grids: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    common = grids[0]
    for grid in grids[1:]:
        common = np.intersect1d(common, grid)
    return common
