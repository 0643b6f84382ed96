"""The cheap questions that are always open, and those that a statement names, as the rows of the table `estimates`.

P(success), the median onset and the means of all final metrics of every condition; over scale the midpoint and the
slope of P(success). A statement with the text 'scaling-law' in it finds the answer to that question there, too. They
are the numbers that `seedbed estimate` gives without options, bit for bit.
"""

from collections.abc import Iterator

import pyarrow as pa

from jobs.errors import QueryError
from jobs.records import ESTIMATES
from orchestrator.estimates.estimate import Estimate
from orchestrator.questions.along_training import median_of
from orchestrator.questions.asked import Question
from orchestrator.questions.chance import own_mean, own_success
from orchestrator.questions.over_scale import curve_of, in_units
from orchestrator.questions.registry import QUESTIONS, ask
from orchestrator.questions.rows import row_of, rows_of_answer
from orchestrator.summary import ConditionSummary

STANDING = ("success", "onset", "mean", "success-over-scale")


def standing(question: Question) -> pa.Table:
    """Return the estimates of one study; its schema is ESTIMATES, its order that of the grid."""
    study = question.declared.name
    rows = [
        row_of(study, asked, (of.condition.id, of.condition.label) if of else ("", ""), name, found)
        for asked, name, of, found in (*_of_conditions(question), *_of_scale(question))
    ]
    return pa.Table.from_pylist(rows, schema=ESTIMATES)


def answered(question: Question, name: str) -> pa.Table:
    """Return the answer to one question as estimates; raises QueryError where the study has none."""
    found = ask(name, question.declared, question.tables, question.options)
    return pa.Table.from_pylist(rows_of_answer(question, name, found), schema=ESTIMATES)


def named_in(text: str) -> tuple[str, ...]:
    """Return the questions, but standing ones, whose names a statement of SQL has as text, such as 'scaling-law'."""
    return tuple(name for name in QUESTIONS if name not in STANDING and f"'{name}'" in text)


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
