"""Questions about single items: do runs give the same answers, and which of two conditions has the better ones?

An item is a metric of its own, NAME.ITEM, of which a run has k of 1 right. Runs are the replicates; items are what
they have in common.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.errors import QueryError
from jobs.seeds import Seeds
from orchestrator.collected import items_of, rows_of
from orchestrator.estimates.agreement import AgreementOverSteps, agreement_over_steps, consistency_over_steps
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.multibootstrap import MultiBootstrap, multi_bootstrap
from orchestrator.questions.along_training import ended_curves
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
Answers = dict[tuple[str, int, str], int]  # run, step, item → 1 where it was right
_RESAMPLES = 4_000
_NO_ITEMS = (
    "this compares answers item by item, and the study has none: probe every item as a metric of its own, "
    "NAME.ITEM with k of 1, and ask for --metric NAME"
)


@dataclass(frozen=True, slots=True)
class Agreement:
    """Cohen's kappa per item at every step: between runs, and of a run with its own last step."""

    items: int
    steps: NDArray[np.int64]
    run_ids: tuple[str, ...]
    between: AgreementOverSteps
    with_own_end: AgreementOverSteps


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two conditions on the items that all their finished runs have answered at the last step.

    seeds      how many on each side; pairs where both conditions were given the same ones
    left_out   items that a run has not answered
    """

    base: str
    other: str
    seeds: tuple[int, int]
    items: int
    left_out: int
    found: MultiBootstrap


def agreement(question: Question) -> Each[Agreement]:
    """Return how far runs agree item by item; raises QueryError where no metric holds single items."""
    items, answers = _answers(question)

    def answer(condition: ConditionSummary) -> Agreement:
        steps, _, runs = ended_curves(question, condition)
        if len(runs) < 2:
            raise QueryError("agreement is between runs: two must have finished")
        given = np.array(
            [[[answers.get((run, step, item), -1) for item in items] for step in steps.tolist()] for run in runs],
            np.int64,
        )
        cohort, level = condition.success.cohort, question.level([condition])
        between = agreement_over_steps(given, cohort, question.generator("agreement", cohort), level)
        own = consistency_over_steps(given, cohort, question.generator("own agreement", cohort), level)
        return Agreement(len(items), steps, runs, between, own)

    return each(question.summary(items[0]), answer, question.watch)


def compare(question: Question) -> Comparison:
    """Return the difference of two conditions' shares of right answers; paired where both were given the same seeds."""
    items, answers = _answers(question)
    conditions = question.summary(items[0]).conditions
    if len(conditions) != 2:
        labels = ", ".join(condition.condition.label for condition in conditions)
        raise QueryError(f"a comparison is of two conditions: choose them with --condition, twice, among {labels}")
    sides = [_by_seeds(question, condition) for condition in conditions]
    common = sorted(set(sides[0]) & set(sides[1]))
    paired = len(common) > 1 and _declared_seeds(question, conditions[0]) == _declared_seeds(question, conditions[1])
    chosen = [[side[seeds] for seeds in (common if paired else sorted(side))] for side in sides]
    tables = [
        np.array([[answers.get((run, c.condition.planned_steps, i), -1) for i in items] for run in runs], np.float64)
        for c, runs in zip(conditions, chosen, strict=True)
    ]
    if not all(map(len, tables)):
        raise QueryError("no run has finished yet in one of the two conditions")
    whole = np.concatenate(tables).min(axis=0) >= 0
    if not whole.any():
        raise QueryError("no item was answered by all finished runs at the last step")
    cohort = Cohort.pooled([condition.success.cohort for condition in conditions])
    base, other = (table[:, whole] for table in tables)
    rng, level = question.generator("compare", cohort), question.level(conditions)
    found = multi_bootstrap(base, other, cohort, rng, paired=paired, resamples=_RESAMPLES, level=level)
    counts = len(base), len(other)
    one, two = (condition.condition.label for condition in conditions)
    return Comparison(one, two, counts, int(whole.sum()), int((~whole).sum()), found)


def _answers(question: Question) -> tuple[list[str], Answers]:
    """Return the names of the items, and who answered which right, at every step."""
    prefix = f"{question.options.metric}." if question.options.metric else ""
    items = sorted(name for name in items_of(question.tables) if name.startswith(prefix))
    if len(items) < 2:
        raise QueryError(_NO_ITEMS)
    wanted = pa.concat_tables([rows_of(question.tables, name) for name in items])
    columns = (wanted[name].to_pylist() for name in ("run_id", "step", "metric", "correct"))
    return items, {(run, step, item): correct for run, step, item, correct in zip(*columns, strict=True)}


def _declared_seeds(question: Question, condition: ConditionSummary) -> set[Seeds]:
    return {run.seeds for run in question.declared.runs if run.condition.id == condition.condition.id}


def _by_seeds(question: Question, condition: ConditionSummary) -> dict[tuple[int, ...], str]:
    """Return seeds → the finished run with them; of several runs with the same seeds the first by id."""
    seeds = {run.id: tuple(run.seeds.as_dict().values()) for run in question.declared.runs}
    found: dict[tuple[int, ...], str] = {}
    for run in question.scored(condition):
        found.setdefault(seeds[run], run)
    return found
