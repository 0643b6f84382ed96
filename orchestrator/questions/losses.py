"""The question of L(N, D): which law do final losses follow over parameters and tokens?

N is the factor on the axis of scale, D the factor that is named as tokens, or the steps that a condition trains. Every
finished run is a point: losses on the way belong to a learning-rate schedule that was not over.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.loss_law import LossLaw, LossPoints, loss_law
from orchestrator.questions.asked import Question, positive
from orchestrator.questions.chance import LOSS
from orchestrator.summary import ConditionSummary

STEPS = "training.steps"


@dataclass(frozen=True, slots=True)
class LawOfLoss:
    """A fitted L(N, D).

    parameters, tokens  what N and D are; metric: the loss
    conditions          how many points of (N, D); runs: how many losses
    """

    parameters: str
    tokens: str
    metric: str
    conditions: int
    runs: int
    law: LossLaw


def law_of_loss(question: Question) -> LawOfLoss:
    """Return the law of the final training loss, or of the metric that was chosen, over N and D."""
    metric = question.options.metric or (LOSS if LOSS in question.metrics() else question.metric)
    asked = replace(question, options=replace(question.options, metric=metric))
    parameters, tokens = asked.scale, asked.known_factor(asked.options.tokens)
    if not parameters:
        raise QueryError("L(N, D) needs N: give the factor that is the number of parameters as --scale")
    there = [condition for condition in asked.summary().conditions if len(condition.scores)]
    if not there:
        raise QueryError("no run has finished yet")
    n = [positive(condition, parameters) for condition in there]
    d = [positive(c, tokens) if tokens else float(c.condition.planned_steps) for c in there]
    counts = [len(condition.scores) for condition in there]
    cohort = Cohort.pooled([condition.success.cohort for condition in there])
    # Where a condition has one run, no run is a replicate: conditions themselves are drawn again.
    alone = min(counts) < 2
    points = _points(there, n, d, alone=alone)
    rng, level = asked.generator("loss law", cohort), asked.level(there)
    law = loss_law(points, cohort, rng, resampled=alone, level=level)
    return LawOfLoss(parameters, tokens or STEPS, metric, len(there), sum(counts), law)


def _points(conditions: list[ConditionSummary], n: list[float], d: list[float], *, alone: bool) -> LossPoints:
    counts = [len(condition.scores) for condition in conditions]
    place: NDArray[np.int64] = np.repeat(np.arange(len(counts)), counts)
    runs = np.arange(len(place))
    losses = np.concatenate([np.sort(condition.scores) for condition in conditions])
    where = np.zeros_like(place) if alone else place
    return LossPoints(np.array(n)[place], np.array(d)[place], losses, runs, where)
