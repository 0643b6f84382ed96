"""The cheap questions that are always open, as the rows of the table `estimates`.

P(success), the median onset and the means of all final metrics of every condition; over scale the midpoint and the
slope of P(success). They are the numbers that `seedbed estimate` gives without options, bit for bit.
"""

from collections.abc import Iterator
from math import isnan

import pyarrow as pa

from jobs.errors import QueryError
from jobs.records import ESTIMATES
from orchestrator.estimates.estimate import Estimate
from orchestrator.questions.along_training import median_of
from orchestrator.questions.asked import Question
from orchestrator.questions.chance import own_mean, own_success
from orchestrator.questions.over_scale import curve_of, in_units
from orchestrator.summary import ConditionSummary


def standing(question: Question) -> pa.Table:
    """Return the estimates of one study; its schema is ESTIMATES, its order that of the grid."""
    rows = [_row(question.declared.name, *each) for each in (*_of_conditions(question), *_of_scale(question))]
    return pa.Table.from_pylist(rows, schema=ESTIMATES)


def _of_conditions(question: Question) -> Iterator[tuple[str, str, ConditionSummary, Estimate]]:
    for condition in question.summary().conditions:
        yield "success", "P(success)", condition, own_success(question, condition)
        if question.ended(condition).any():
            yield "onset", "median", condition, median_of(question, condition)
    for metric in question.metrics():
        for condition in question.summary(metric).conditions:
            if len(condition.scores):
                yield "mean", metric, condition, own_mean(question, condition)


def _of_scale(question: Question) -> Iterator[tuple[str, str, None, Estimate]]:
    try:
        curve = curve_of(question)
    except QueryError:  # no scale, or runs at one of them: the question is not open yet
        return
    yield "success-over-scale", "midpoint", None, in_units(curve.midpoint)
    yield "success-over-scale", "slope", None, curve.slope


def _row(study: str, question: str, name: str, of: ConditionSummary | None, found: Estimate) -> dict[str, object]:
    cohort = found.cohort
    return {
        "study": study,
        "question": question,
        "condition_id": of.condition.id if of else "",
        "condition": of.condition.label if of else "",
        "name": name,
        "value": None if isnan(found.value) else found.value,
        "low": None if isnan(found.low) else found.low,
        "high": None if isnan(found.high) else found.high,
        "method": found.method,
        "level": found.level,
        "unit": found.unit,
        "stopping_rule": found.stopping_rule,
        "cohort": cohort.digest,
        "launched": cohort.launched,
        "finished": cohort.finished,
        "diverged": cohort.diverged,
        "censored": cohort.censored,
        "mixed": cohort.mixed,
        "disputed": cohort.disputed,
        "note": found.note,
    }
