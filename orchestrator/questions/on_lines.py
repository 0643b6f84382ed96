"""Questions about runs that begin on straight lines between others: are these in one basin?

A study with `fork.line` has a condition for each point of the lines and a run for each pair. Here the points of a pair
are put together again. The metric is a loss, or an accuracy, of which the error is the height.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from jobs.study import label_of
from orchestrator.declared import DeclaredRun
from orchestrator.estimates.barriers import Heights, heights, matrix_of, mean_over_pairs
from orchestrator.estimates.clusters import Clusters, clusters
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.success import clopper_pearson
from orchestrator.questions.asked import Each, Question

Floats = NDArray[np.float64]
Places = NDArray[np.int64]
FRACTION = "fork.fraction"
STABLE = 0.02  # of error: Frankle et al. 2020
_PERMUTATIONS = 999
_FEWEST = 4  # runs that may fall into groups


@dataclass(frozen=True, slots=True)
class Lines:
    """The straight lines between runs that begin at one step of one condition.

    run_ids     the runs at the ends; `ends` [pair, 2]: their places here
    losses      [pair, point]: the height at `fractions` [point] of the way; `height` says what that is
    left_out    pairs that lack a point
    connected   share of the pairs whose instability is below .02
    clusters    groups of runs by the convexity gap, where all pairs of four runs or more were measured
    """

    height: str
    run_ids: tuple[str, ...]
    ends: Places
    fractions: Floats
    losses: Floats
    left_out: int
    found: Heights
    barrier: Estimate
    convexity_gap: Estimate
    instability: Estimate
    connected: Estimate
    clusters: Clusters | None


def between_runs(question: Question) -> Each[Lines]:
    """Return what the lines of each condition of the parents show; raises QueryError for a study without lines."""
    rows = question.rows()
    is_share = rows.num_rows > 0 and rows["total"].null_count == 0
    last: dict[str, tuple[int, float]] = {}
    for run, step, value in zip(*(rows[name].to_pylist() for name in ("run_id", "step", "value")), strict=True):
        last[run] = max(last.get(run, (-1, 0.0)), (step, 1 - value if is_share else value))
    values = {run: value for run, (_, value) in last.items()}
    height = f"1 - {question.metric}" if is_share else question.metric
    found: dict[str, Lines] = {}
    left_out: dict[str, str] = {}
    for label, of_line, cohort in _groups(question):
        try:
            found[label] = _lines(question, of_line, values, cohort, height)
        except QueryError as error:
            left_out[label] = str(error)
    if not found:
        raise QueryError(next(iter(left_out.values())))
    return Each(found, left_out)


def _groups(question: Question) -> Iterator[tuple[str, list[DeclaredRun], Cohort]]:
    """Yield the label, the runs and the cohort of the conditions that differ in nothing but the point on the line."""
    chosen = {one.condition.id: one for one in question.summary().conditions}
    if not any(FRACTION in one.condition.factors for one in chosen.values()):
        raise QueryError("no run begins on a line between two others: that is a study with `fork: {line: …}`")
    labels: dict[str, str] = {}
    cohorts: dict[str, list[Cohort]] = {}
    for identity, one in chosen.items():
        labels[identity] = label_of((name, v) for name, v in one.condition.factors.items() if name != FRACTION)
        cohorts.setdefault(labels[identity], []).append(one.success.cohort)
    runs: dict[str, list[DeclaredRun]] = {}
    for run in question.declared.runs:
        if run.condition.id in chosen:
            runs.setdefault(labels[run.condition.id], []).append(run)
    for label, mine in runs.items():
        yield label, mine, Cohort.pooled(cohorts[label])


def _lines(question: Question, runs: list[DeclaredRun], value: dict[str, float], cohort: Cohort, height: str) -> Lines:
    fractions = sorted({float(run.condition.factors[FRACTION]) for run in runs})
    names: dict[str, None] = {}
    table: dict[tuple[str, str], dict[float, float]] = {}
    for run in runs:
        if run.origin is None or run.origin.toward is None:
            continue
        pair = (run.origin.run_id, run.origin.toward.run_id)
        names |= dict.fromkeys(pair)
        table.setdefault(pair, {})
        if run.id in value:
            table[pair][float(run.condition.factors[FRACTION])] = value[run.id]
    whole = {pair: [points[f] for f in fractions] for pair, points in table.items() if len(points) == len(fractions)}
    if not whole:
        raise QueryError(f"no pair was measured at all {len(fractions)} points yet")
    places = {name: place for place, name in enumerate(names)}
    ends = np.array([[places[one], places[other]] for one, other in whole], np.int64)
    families = [question.declared.families.get(name, name) for name in names]
    known = sorted(set(families))
    units = np.array([known.index(family) for family in families], np.int64)[ends]
    forked = len(known) < len(names)
    at, losses = np.array(fractions), np.array([*whole.values()])
    found = heights(losses, at)
    level = question.level(question.summary().conditions)

    def mean(values: Floats, least: float = -inf, most: float = inf) -> Estimate:
        return mean_over_pairs(values, units, cohort, "parent run" if forked else "run", level, (least, most))

    return Lines(
        height,
        tuple(names),
        ends,
        at,
        losses,
        len(table) - len(whole),
        found,
        mean(found.barriers, 0.0),
        mean(found.gaps, 0.0),
        mean(found.instabilities),
        _share(mean((found.instabilities < STABLE).astype(float), 0.0, 1.0), len(np.unique(units))),
        _grouped(question, found.gaps, ends, len(names), cohort),
    )


def _share(found: Estimate, units: int) -> Estimate:
    """Return a share of pairs; where it is none or all of them, with the bounds of so many units (Clopper-Pearson)."""
    if found.value not in (0.0, 1.0):
        return found
    low, high = clopper_pearson(int(found.value) * units, units, found.level)
    return replace(found, low=low, high=high, method="all pairs alike: Clopper-Pearson over units", note="")


def _grouped(question: Question, gaps: Floats, ends: Places, runs: int, cohort: Cohort) -> Clusters | None:
    if runs < _FEWEST or len(ends) < runs * (runs - 1) // 2:
        return None
    rng = question.generator("lines", cohort)
    return clusters(matrix_of(gaps, ends, runs), cohort, rng, permutations=_PERMUTATIONS)
