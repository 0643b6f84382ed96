"""Questions about how steadily runs go: how much they waver, and whether they commit to a rule."""

from math import isnan

import numpy as np

from jobs.errors import QueryError
from orchestrator.estimates.instability import Commitment, Instability, commitment, instability
from orchestrator.questions.along_training import ended_curves
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary


def wavering(question: Question) -> Each[Instability]:
    """Return the total variation of the metric over the ended runs of each condition, on their common grid."""

    def answer(condition: ConditionSummary) -> Instability:
        steps, values, _ = ended_curves(question, condition)
        return instability(steps, values, condition.success.cohort, question.level([condition]))

    return each(question.summary(), answer, question.watch)


def committed(question: Question) -> Each[Commitment]:
    """Return which rule each run follows to its end: the metric is the share of items that the first rule explains.

    `against` is that of a second rule, if there is one. What is close enough to all items, and what is unstable, no
    paper states: both have to be said.
    """
    options = question.options
    if isnan(options.tolerance) or isnan(options.unstable):
        raise QueryError(
            "commitment asks what you call so: give --tolerance (a rule may fail to explain this part of the items, "
            "such as 0.1) and --unstable (mean change between probes above which a run is unstable, such as 0.05)"
        )
    second = {c.condition.id: c for c in question.summary(options.against).conditions} if options.against else {}

    def answer(condition: ConditionSummary) -> Commitment:
        steps, values, runs = ended_curves(question, condition)
        rules = {question.metric: (steps, values)}
        if second:
            other_steps, other, others = ended_curves(question, second[condition.condition.id])
            if others != runs:
                raise QueryError("the two rules were not measured on the same finished runs")
            rules[options.against] = other_steps, other
        common = steps[np.isin(steps, rules[options.against][0])] if second else steps
        scores = {name: line[:, np.isin(grid, common)] for name, (grid, line) in rules.items()}
        cohort, level = condition.success.cohort, question.level([condition])
        return commitment(common, scores, options.tolerance, options.unstable, cohort, level=level)

    return each(question.summary(), answer, question.watch)
