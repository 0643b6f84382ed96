"""Questions about two metrics of the same runs: how far one lies above the other at the last step."""

from dataclasses import dataclass

import numpy as np

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.means import mean_bca, mean_t
from orchestrator.estimates.success import wilson
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the metric lies above another one, run by run, so that what a run's seeds do to both cancels.

    t, bca  the mean difference over runs, with Student's interval and with the BCa bootstrap's
    above   P(a run's metric lies above its other one), Wilson; runs with equal ones do not
    """

    t: Estimate
    bca: Estimate
    above: Estimate


def difference(question: Question) -> Each[Difference]:
    """Return the metric less `against` at the last step, over the finished runs of each condition."""
    if not question.options.against:
        names = ", ".join(question.metrics())
        raise QueryError(f"a difference is between two metrics: say --against, one of {names}")
    others = {c.condition.id: c for c in question.summary(question.options.against).conditions}

    def answer(condition: ConditionSummary) -> Difference:
        other = others[condition.condition.id]
        taken = dict(zip(question.scored(other), other.scores.tolist(), strict=True))
        own = zip(question.scored(condition), condition.scores.tolist(), strict=True)
        found = np.array([score - taken[run] for run, score in own if run in taken])
        if len(found) != len(condition.scores) or not len(found):
            raise QueryError("the two metrics were not measured on the same finished runs")
        cohort, level = condition.success.cohort, question.level([condition])
        rng, above = question.generator("difference", cohort), int((found > 0).sum())
        share = Estimate(above / len(found), *wilson(above, len(found), level), "wilson", level, cohort)
        return Difference(mean_t(found, cohort, level), mean_bca(found, cohort, rng, level), share)

    return each(question.summary(), answer, question.watch)
