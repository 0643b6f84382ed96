"""Questions about how runs of one condition differ: sources of variance, groups, outliers."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.clusters import Clusters, clusters
from orchestrator.estimates.outliers import Outliers, outliers
from orchestrator.estimates.variance import VarianceComponents, crossed
from orchestrator.questions.along_training import ended_curves
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
_PERMUTATIONS = 999


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of runs by their whole curves; distances: [run, run], root mean square difference."""

    run_ids: tuple[str, ...]
    distances: Floats
    clusters: Clusters


@dataclass(frozen=True, slots=True)
class Unusual:
    """Runs unlike the others at the last step; run_ids: in the order of the rows of `outliers`."""

    run_ids: tuple[str, ...]
    metrics: tuple[str, ...]
    found: tuple[str, ...]
    outliers: Outliers


def variance(question: Question) -> Each[VarianceComponents]:
    """Return how much of the final score's variance is initialisation, data order, and the rest."""
    seeds = {run.id: run.seeds.as_dict() for run in question.declared.runs}

    def answer(condition: ConditionSummary) -> VarianceComponents:
        table = _table(question, condition, seeds)
        cohort = condition.success.cohort
        return crossed(table, cohort, question.generator("variance", cohort), question.level([condition]))

    return each(question.summary(), answer, question.watch)


def _table(question: Question, condition: ConditionSummary, seeds: dict[str, dict[str, int]]) -> Floats:
    """Return final scores [init, data, repeat], NaN where there is no run; repeats share both seeds."""
    scored = dict(zip(question.scored(condition), condition.scores.tolist(), strict=True))
    cells = sorted((seeds[run]["init"], seeds[run]["data"], *seeds[run].values(), run) for run in scored)
    grouped = [[str(one[-1]) for one in group] for _, group in groupby(cells, key=lambda one: one[:2])]
    rows, columns = (sorted({seeds[run][name] for run in scored}) for name in ("init", "data"))
    if min(len(rows), len(columns)) < 2 or len(grouped) <= max(len(rows), len(columns)):
        raise QueryError(
            "no design crosses initialisation with data order here: use the seed design `crossed`"
            if scored
            else "no run has finished yet"
        )
    table = np.full((len(rows), len(columns), max(map(len, grouped))), np.nan)
    for runs in grouped:
        place = rows.index(seeds[runs[0]]["init"]), columns.index(seeds[runs[0]]["data"])
        table[place][: len(runs)] = [scored[run] for run in runs]
    return table


def groups(question: Question) -> Each[Groups]:
    """Return the groups of each condition's finished runs by their whole curves, and a test that there are any."""

    def answer(condition: ConditionSummary) -> Groups:
        _, values, runs = ended_curves(question, condition)
        distances = np.sqrt(((values[:, None] - values) ** 2).mean(axis=2))
        cohort = condition.success.cohort
        rng = question.generator("clusters", cohort)
        return Groups(runs, distances, clusters(distances, cohort, rng, permutations=_PERMUTATIONS))

    return each(question.summary(), answer, question.watch)


def unusual(question: Question) -> Each[Unusual]:
    """Return the finished runs unlike the others at the last step: in the metric asked for, or in any but items."""
    names = (question.options.metric,) if question.options.metric else tuple(question.measures())
    summaries = {name: {c.condition.id: c for c in question.summary(name).conditions} for name in names}

    def answer(condition: ConditionSummary) -> Unusual:
        runs = question.scored(condition)
        if len(runs) < 3:
            raise QueryError(f"outliers need 3 finished runs, and there are {len(runs)}")
        table = np.full((len(runs), len(names)), np.nan)
        for column, name in enumerate(names):
            other = summaries[name][condition.condition.id]
            scores = dict(zip(question.scored(other), other.scores.tolist(), strict=True))
            table[:, column] = [scores.get(run, np.nan) for run in runs]
        found = outliers(table, condition.success.cohort)
        return Unusual(runs, names, tuple(runs[index] for index in found.runs), found)

    return each(question.summary(), answer, question.watch)
