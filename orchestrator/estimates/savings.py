"""How much less of something a run takes than its partner to get as far as that one got.

A run's goal is where its partner ends. Both are charged what they had spent at the first probe at which they are
there, so a grid of probes is as coarse for one as for the other. Who is never there has saved nothing that could be
told: it counts as the least of all, and the median over pairs with its exact interval needs no more than that order.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.onset import Direction
from orchestrator.estimates.order_statistics import quantile_over_runs
from orchestrator.estimates.success import wilson

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Savings:
    """Pairs of runs, one of each condition.

    beside     the condition of the partners
    saved      median over pairs of 1 - spent / spent by the partner: below 0 where more was spent
    reached    P(a run gets as far as its partner ends), Wilson
    spent      median over runs of what was spent until then; `partner` the same of the partners
    """

    beside: str
    saved: Estimate
    reached: Estimate
    spent: Estimate
    partner: Estimate


def spent_until(values: Floats, spent: Floats, goals: Floats, direction: Direction) -> Floats:
    """Return [run]: what each had spent at the first probe at which it had reached its goal; inf where it never had.

    values, spent: [run, probe], NaN where a run was not measured; goals: [run]. direction: "down" for a loss. Raises
    ValueError where a run's `spent` falls, or is below 0.
    """
    there = ~(np.isnan(values) | np.isnan(spent))
    for row, is_there in zip(spent, there, strict=True):
        kept = row[is_there]
        if len(kept) and (kept[0] < 0 or (np.diff(kept) < 0).any()):
            raise ValueError("what is spent only grows from 0 on: name such a metric, as cost.flops")
    reached = there & (values >= goals[:, None] if direction == "up" else values <= goals[:, None])
    first = reached.argmax(axis=1)
    return np.where(reached.any(axis=1), spent[np.arange(len(spent)), first], inf)


def savings(
    mine: Floats, partners: Floats, cohorts: tuple[Cohort, Cohort], beside: str = "", level: float = 0.95
) -> Savings:
    """Return what runs save; [pair] what each spent until its partner's end was reached, inf where it never was.

    cohorts: of the runs and of the partners; diverged runs are pairs in which nothing was reached. Of a partner that
    had spent nothing, nothing can be saved: 0 where the run had spent nothing either. Raises ValueError without a pair,
    and where a partner's end is not known.
    """
    if not len(mine):
        raise ValueError("no run has finished whose partner has finished, too")
    if not np.isfinite(partners).all():
        raise ValueError("what a partner had spent at its end was not measured")
    parts = np.divide(mine, partners, out=np.where(mine > 0, inf, 1.0), where=partners > 0)
    saved = 1 - parts
    count, reached = len(mine) + cohorts[0].diverged, int(np.isfinite(mine).sum())
    share = Estimate(reached / count, *wilson(reached, count, level), "wilson", level, cohorts[0])
    return Savings(
        beside,
        quantile_over_runs(saved, 0.5, cohorts[0], level),
        share,
        quantile_over_runs(mine, 0.5, cohorts[0], level, worst=inf),
        quantile_over_runs(partners, 0.5, cohorts[1], level, worst=inf),
    )
