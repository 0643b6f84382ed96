"""What a study shows so far, condition by condition: the numbers of the table, the figures and the report.

The same function serves live progress, the command line, the report and the notebook, so they show the same
numbers. Unfinished studies are the usual case: every run is counted in the status it has.
"""

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.records import Status
from jobs.stop import StopRule
from jobs.study import SuccessRule
from orchestrator.collected import Tables, rows_of
from orchestrator.declared import Declared, DeclaredCondition
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.onset import Bracket, MedianOnset, median_onset, onsets
from orchestrator.estimates.success import Interval, jeffreys, manski, success_probability
from orchestrator.stop_rules import published, rule_id

Floats = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Curves:
    """One metric of every run of a condition.

    run_ids  sorted
    steps    [step], every step at which any run was measured
    values   [run, step], NaN where a run was not measured
    """

    run_ids: tuple[str, ...]
    steps: NDArray[np.int64]
    values: Floats

    @property
    def measured(self) -> NDArray[np.int64]:
        """Return [step]: how many runs were measured there."""
        return np.asarray((~np.isnan(self.values)).sum(axis=0), np.int64)


@dataclass(frozen=True, slots=True)
class ConditionSummary:
    """One condition: what became of its runs, and what they show.

    scores      of the runs that finished, in the order of their ids: the rule's metric at the last step
    success     P(success) with Wilson's interval; `jeffreys` beside it
    bounds      the share of successes if no, and if every, censored run had been one (Manski)
    mean_of_*   mean score among successes and among finished runs that are none; None without any
    latest      share of runs at or above the threshold at their newest probe (progress, not an estimate)
    """

    condition: DeclaredCondition
    counts: dict[Status, int]
    scores: Floats
    successes: int
    success: Estimate
    jeffreys: Interval
    bounds: Interval
    mean_of_successes: float | None
    mean_of_failures: float | None
    onset: MedianOnset
    curves: Curves
    latest: tuple[int, int]

    @property
    def launched(self) -> int:
        """Return how many runs were declared."""
        return self.success.cohort.launched

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data; infinite bounds are null."""
        return {
            "condition": self.condition.label,
            "condition_id": self.condition.id,
            "factors": self.condition.factors,
            "launched": self.launched,
            **{str(status): self.counts[status] for status in Status},
            "successes": self.successes,
            "success": _without_nan(self.success.as_dict()),
            "jeffreys": list(self.jeffreys),
            "bounds": list(self.bounds),
            "mean_of_successes": self.mean_of_successes,
            "mean_of_failures": self.mean_of_failures,
            "onset": {
                "after": _finite(self.onset.bracket.low),
                "until": _finite(self.onset.bracket.high),
                "interval": [_finite(bound) for bound in self.onset.interval],
                "level": self.onset.level,
                "runs": self.onset.runs,
                "method": self.onset.method,
                "note": self.onset.note,
                "cohort": self.onset.cohort.digest,
            },
        }


@dataclass(frozen=True, slots=True)
class StudySummary:
    """A study: its question and rule, and its conditions in the order of the grid.

    findings  rows of the `audit` table: what does not fit together in the store
    """

    name: str
    question: str
    paper: str
    text: str
    scale: str
    rule: SuccessRule
    conditions: tuple[ConditionSummary, ...]
    findings: int

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the curves as plain data."""
        return {
            "study": self.name,
            "question": self.question,
            "scale": self.scale,
            "success_rule": self.rule.model_dump(mode="json"),
            "findings": self.findings,
            "conditions": [condition.as_dict() for condition in self.conditions],
        }


def summarise(declared: Declared, tables: Tables) -> StudySummary:
    """Return the summary of a study from its tables `runs`, `metrics` and `audit`, whatever the order of their rows."""
    rule = declared.success
    rows = rows_of(tables, rule.metric)
    runs = tables["runs"]
    by_condition: dict[str, list[_Ended]] = {c.id: [] for c in declared.conditions}
    disputed = frozenset(tables["audit"].filter(pc.field("finding") == "disagreement")["run_id"].to_pylist())
    columns = (runs[name].to_pylist() for name in ("condition_id", "run_id", "status", "mixed_environment"))
    for condition_id, run_id, status, mixed in sorted(zip(*columns, strict=True)):
        by_condition[condition_id].append(_Ended(run_id, Status(status), bool(mixed), run_id in disputed))
    return StudySummary(
        name=declared.name,
        question=declared.question,
        paper=declared.paper,
        text=declared.text,
        scale=declared.scale,
        rule=rule,
        conditions=tuple(_condition(c, by_condition[c.id], rows, declared) for c in declared.conditions),
        findings=tables["audit"].num_rows,
    )


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a run stands in the tables, and what is to be said of it."""

    run_id: str
    status: Status
    mixed: bool
    disputed: bool


def _condition(
    condition: DeclaredCondition, runs: list[_Ended], rows: pa.Table, declared: Declared
) -> ConditionSummary:
    rule = declared.success
    run_ids = [run.run_id for run in runs]
    status = {run.run_id: run.status for run in runs}
    curves = curves_of(rows, run_ids)
    counts = {state: sum(1 for other in status.values() if other is state) for state in Status}
    finals = dict(zip(curves.run_ids, _at(curves, condition.planned_steps), strict=True))
    # A finished run without its last probe cannot be scored; it is censored, not a failure.
    scored = [r for r in run_ids if status[r] is Status.FINISHED and not np.isnan(finals[r])]
    scores = np.array([finals[run_id] for run_id in scored])
    good = scores >= rule.threshold
    marked = sum(run.mixed for run in runs), sum(run.disputed for run in runs)
    cohort = Cohort.of(run_ids, len(scored), counts[Status.DIVERGED], *marked)
    successes, known = int(good.sum()), len(scored) + counts[Status.DIVERGED]
    ended = np.array([status[r] in (Status.FINISHED, Status.DIVERGED) for r in curves.run_ids], np.bool_)
    low, high = onsets(curves.steps, curves.values, rule.threshold, rule.sustained, ended=ended)
    # A run that failed or has not ended is later than its last probe, if no onset was seen: it is not left out.
    brackets = [Bracket(end, begin) for begin, end in zip(low.tolist(), high.tolist(), strict=True)]
    return ConditionSummary(
        condition=condition,
        counts=counts,
        scores=scores,
        successes=successes,
        success=_success(successes, cohort, declared.stop),
        jeffreys=jeffreys(successes, known, LEVEL),
        bounds=manski(successes, known, cohort.censored),
        mean_of_successes=float(scores[good].mean()) if good.any() else None,
        mean_of_failures=float(scores[~good].mean()) if (~good).any() else None,
        onset=median_onset(brackets, cohort, LEVEL),
        curves=curves,
        latest=_latest(curves, rule.threshold),
    )


def _success(k: int, cohort: Cohort, stop: tuple[StopRule, int] | None) -> Estimate:
    """Return P(success) with the interval that holds after the study's stop rule; Wilson's where there is none."""
    if stop is None:
        return success_probability(k, cohort, level=LEVEL)
    method, level = published(*stop)
    return success_probability(k, cohort, method, level, rule_id(*stop))


def curves_of(rows: pa.Table, run_ids: list[str]) -> Curves:
    """Return the curves of these runs from rows of one metric; a run without rows is all NaN."""
    ordered = tuple(sorted(run_ids))
    mine = rows.filter(pc.is_in(rows["run_id"], pa.array(ordered, pa.string())))
    steps, column = np.unique(mine["step"].to_numpy(), return_inverse=True)
    line = pc.index_in(mine["run_id"], pa.array(ordered, pa.string())).to_numpy()
    values = np.full((len(ordered), len(steps)), np.nan)
    values[line, column] = mine["value"].to_numpy()
    return Curves(ordered, steps.astype(np.int64), values)


def _at(curves: Curves, step: int) -> Floats:
    """Return every run's value at `step`, NaN where there is none."""
    place = int(np.searchsorted(curves.steps, step))
    if place == len(curves.steps) or curves.steps[place] != step:
        return np.full(len(curves.run_ids), np.nan)
    return curves.values[:, place]


def _latest(curves: Curves, threshold: float) -> tuple[int, int]:
    """Return (at or above the threshold, measured at all), each run at its newest probe."""
    above = measured = 0
    for line in curves.values:
        seen = line[~np.isnan(line)]
        measured += bool(len(seen))
        above += bool(len(seen) and seen[-1] >= threshold)
    return above, measured


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _without_nan(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _finite(value) if isinstance(value, float) else value for name, value in fields.items()}
