"""What runs spend to get as far as others end: FLOPs, examples, or steps, seed by seed."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.declared import DeclaredRun
from orchestrator.estimates.onset import Direction
from orchestrator.estimates.savings import Savings, savings, spent_until
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Spending:
    """The runs of one condition: what was measured, and what was spent until then.

    keys           [run] what tells runs of one condition apart: seeds, and where they begin
    values, spent  [run, probe], NaN where a run was not measured
    """

    run_ids: tuple[str, ...]
    keys: tuple[tuple[int | str, ...], ...]
    values: Floats
    spent: Floats


def saving(question: Question) -> Each[Savings]:
    """Return how much less each condition spends than the first one to get as far as that ends, seed by seed.

    What is spent is `against`, a metric that grows, or where it is empty steps since a run began.
    """
    summary = question.summary()
    conditions = summary.conditions
    if len(conditions) < 2:
        raise QueryError("a saving is of one condition beside another: the first in the grid's order is compared with")
    first, ours = conditions[0], spending(question, conditions[0])
    goals = _ended(question, first, ours)
    direction: Direction = "down" if question.options.falling else "up"

    def answer(condition: ConditionSummary) -> Savings:
        mine = spending(question, condition)
        ended = _ended(question, condition, mine)
        pairs = [key for key in ended if key in goals]
        at, spent = np.array([goals[key][1] for key in pairs]), []
        for side, last in ((mine, ended), (ours, goals)):
            rows = [last[key][0] for key in pairs]
            spent.append(spent_until(side.values[rows], side.spent[rows], at, direction))
        cohorts = condition.success.cohort, first.success.cohort
        return savings(spent[0], spent[1], cohorts, first.condition.label, question.level([condition]))

    return each(replace(summary, conditions=conditions[1:]), answer, question.watch)


def spending(question: Question, condition: ConditionSummary) -> Spending:
    """Return what the runs of a condition spend; raises QueryError where a metric was not measured."""
    curves = condition.curves
    runs = {run.id: run for run in question.declared.runs}
    if question.options.against:
        others = {c.condition.id: c.curves for c in question.summary(question.options.against).conditions}
        other = others[condition.condition.id]
        spent = np.full(curves.values.shape, np.nan)
        common, here, there = np.intersect1d(curves.steps, other.steps, return_indices=True)
        if len(common):
            rows = [other.run_ids.index(run) for run in curves.run_ids]
            spent[:, here] = other.values[rows][:, there]
    else:
        began = np.array([_began(runs[run]) for run in curves.run_ids], np.int64)
        spent = np.asarray(curves.steps[None, :] - began[:, None], np.float64)
    keys = tuple(_key(runs[run]) for run in curves.run_ids)
    return Spending(curves.run_ids, keys, curves.values, spent)


def _began(run: DeclaredRun) -> int:
    return run.origin.step if run.origin else 0


def _key(run: DeclaredRun) -> tuple[int | str, ...]:
    parent = (run.origin.run_id, run.origin.step) if run.origin else ()
    return (*run.seeds.as_dict().values(), *parent)


def _ended(
    question: Question, condition: ConditionSummary, side: Spending
) -> dict[tuple[int | str, ...], tuple[int, float]]:
    """Return key → (row, final score) of the finished runs; of several runs with one key the first by id."""
    found: dict[tuple[int | str, ...], tuple[int, float]] = {}
    for run, score in zip(question.scored(condition), condition.scores.tolist(), strict=True):
        row = side.run_ids.index(run)
        found.setdefault(side.keys[row], (row, score))
    return found
