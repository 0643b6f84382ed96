"""Questions about runs that share one of their seeds: how alike are they, and how likely is success all the same?

A group is the runs of one condition with one value of the seed. Groups are independent of each other only if nothing
else is shared: in a crossed design every data order is shared across initialisations, and `variance` is the question.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from jobs.records import Status
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.grouped import grouped_bootstrap, grouped_success
from orchestrator.estimates.icc import twins as icc_of_twins
from orchestrator.estimates.variance import VarianceComponents, one_way
from orchestrator.questions.asked import SEED_NAMES, Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
CROSSED = "groups share other seeds among each other: they are not independent, and this interval may be too narrow"


@dataclass(frozen=True, slots=True)
class Alike:
    """How alike the final scores of runs are that share one seed and nothing else.

    icc         ICC(1), the share of the variance that partners have in common; negative where they differ more than
                strangers do (groups of one size alone: else it is the share of `between`, at least 0)
    components  between groups and within them
    """

    groups: int
    icc: Estimate
    components: VarianceComponents


@dataclass(frozen=True, slots=True)
class InGroups:
    """P(success) over groups of runs: by the likelihood of a Beta distribution of P, and by groups drawn again."""

    groups: int
    mean: Estimate
    precision: Estimate
    drawn_again: Estimate


def alike(question: Question) -> Each[dict[str, Alike]]:
    """Return ICC(1) by the seed that is shared, of each condition."""

    def answer(condition: ConditionSummary) -> dict[str, Alike]:
        scores = dict(zip(question.scored(condition), condition.scores.tolist(), strict=True))
        found = {}
        for name, groups in _groups(question, tuple(scores)):
            if _differ_otherwise(question, groups, name):
                found[name] = _alike(question, condition, name, [[scores[run] for run in group] for group in groups])
        if not found:
            raise QueryError(
                "no runs share one seed and differ in all others: twins are two runs or more with one init (or data) "
                "seed; where all seeds are crossed, ask for `variance`"
            )
        return found

    return each(question.summary(), answer, question.watch)


def in_groups(question: Question) -> Each[dict[str, InGroups]]:
    """Return P(success) over groups by the seed that is shared, of each condition."""

    def answer(condition: ConditionSummary) -> dict[str, InGroups]:
        known = _known(question, condition)
        found = {}
        for name, groups in _groups(question, tuple(known)):
            note = "" if _differ_otherwise(question, groups, name) else CROSSED
            found[name] = _in_groups(question, condition, name, [[known[run] for run in g] for g in groups], note)
        if not found:
            raise QueryError("no two groups of runs share a seed here: every run is a group of its own; ask `success`")
        return found

    return each(question.summary(), answer, question.watch)


def _alike(question: Question, condition: ConditionSummary, name: str, groups: list[list[float]]) -> Alike:
    table = np.full((len(groups), max(map(len, groups))), np.nan)
    for row, scores in enumerate(groups):
        table[row, : len(scores)] = scores
    cohort, level = condition.success.cohort, question.level([condition])
    components = one_way(table, cohort, question.generator(f"twins by {name}", cohort), level)
    whole = not np.isnan(table).any()
    icc = icc_of_twins(table, cohort, level) if whole else components["between"].share
    return Alike(len(groups), icc, components)


def _in_groups(
    question: Question, condition: ConditionSummary, name: str, groups: list[list[bool]], note: str
) -> InGroups:
    k, n = (np.array([count(group) for group in groups], np.int64) for count in (sum, len))
    cohort, level = condition.success.cohort, question.level([condition])
    modelled = grouped_success(k, n, cohort, level)
    again = grouped_bootstrap(k, n, cohort, question.generator(f"groups by {name}", cohort), level)
    mean, precision, again = (
        replace(one, note="; ".join(filter(None, (one.note, note))))
        for one in (modelled.mean, modelled.precision, again)
    )
    return InGroups(len(groups), mean, precision, again)


def _known(question: Question, condition: ConditionSummary) -> dict[str, bool]:
    """Return run → whether it succeeded, of runs with a known outcome."""
    runs = question.tables["runs"]
    status = dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))
    scores = zip(question.scored(condition), condition.scores.tolist(), strict=True)
    diverged = (run for run in condition.curves.run_ids if status[run] == Status.DIVERGED)
    return dict.fromkeys(diverged, False) | {run: score >= question.threshold for run, score in scores}


def _groups(question: Question, runs: tuple[str, ...]) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield the name of a seed and the runs by it, ascending, where there are two groups, and one holds two runs.

    Seeds that make the same groups, as dropout's and the data's do, are one: the first of them is named.
    """
    seeds = {run.id: run.seeds.as_dict() for run in question.declared.runs}
    made: list[list[list[str]]] = []
    for name in SEED_NAMES:
        found: dict[int, list[str]] = {}
        for run in sorted(runs):
            found.setdefault(seeds[run][name], []).append(run)
        groups = [found[seed] for seed in sorted(found)]
        if 1 < len(groups) < len(runs) and sorted(groups) not in made and question.options.shared in ("", name):
            made.append(sorted(groups))
            yield name, groups


def _differ_otherwise(question: Question, groups: list[list[str]], name: str) -> bool:
    """Return whether these runs differ in every other seed that varies, and there is one that does."""
    seeds = {run.id: run.seeds.as_dict() for run in question.declared.runs}
    runs = [run for group in groups for run in group]
    mine = [seeds[run][name] for run in runs]
    others = [[seeds[run][other] for run in runs] for other in SEED_NAMES if other != name]
    vary = [other for other in others if len(set(other)) > 1 and len(set(zip(mine, other, strict=True))) > len(groups)]
    return bool(vary) and all(len(set(other)) == len(runs) for other in vary)
