"""What is asked of a study: which metric, which conditions, which scale; and the data for it.

Figures, the report, the command line, SQL and Python select their data here and nowhere else. Randomness is keyed by
what is asked and of which runs, so that a question has one answer, whoever asks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from math import isnan, nan
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from jobs.errors import QueryError
from jobs.identity import canonical_json, sha256
from jobs.records import Status
from jobs.study import SuccessRule
from orchestrator.collected import Tables, items_of, metric_names, rows_of
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.summary import ConditionSummary, StudySummary, summarise
from orchestrator.text import amount

Floats = NDArray[np.float64]
R = TypeVar("R")
SEED_NAMES = ("init", "data", "dropout", "evaluation")


Watch = Callable[[int, int], None]


def unwatched(done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen; an empty text means what the study itself says.

    metric      the metric; `against` a second one, for questions about two
    conditions  labels, or parts of labels, of the conditions that are meant; all where there are none
    scale       the factor on the axis of scale
    threshold   of success; NaN for the study's own; `against_threshold` of the second metric, NaN for the first one's
    level       of intervals; NaN for the study's own: .95, or what its stop rule says
    at          scales at which a fit is to be read
    gap         how far apart two modes must be to matter, in the unit of the metric; `loss_gap` of the final loss
    window      of the break statistic, in steps; 0: a tenth of the training
    falling     whether the metric breaks through downwards, as a loss does
    tokens      the factor that is D in L(N, D); empty: the steps that a condition trains
    shared      the seed that runs of one group share, such as init; empty: every one that makes groups
    tolerance   a run commits to a rule that explains all items but this part; NaN: not said
    unstable    mean change between probes above which a run is called unstable; NaN: not said
    seed        0, or another number for other resamples
    """

    metric: str = ""
    against: str = ""
    conditions: tuple[str, ...] = ()
    scale: str = ""
    threshold: float = nan
    against_threshold: float = nan
    level: float = nan
    at: tuple[float, ...] = ()
    gap: float = 0.2
    loss_gap: float = 0.1
    window: int = 0
    falling: bool = False
    tokens: str = ""
    shared: str = ""
    tolerance: float = nan
    unstable: float = nan
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isnan(self.level) or 0 < self.level < 1):
            raise QueryError(f"a level lies between 0 and 1, such as 0.95, not at {self.level:g}")
        if not (self.gap > 0 and self.loss_gap > 0):
            raise QueryError("the gap between modes that matters is positive, in the unit of the metric")
        if self.window < 0 or self.seed < 0:
            raise QueryError("window and seed are 0 or more")
        if self.shared not in ("", *SEED_NAMES):
            raise QueryError(f"no seed is called {self.shared!r}; there are {', '.join(SEED_NAMES)}")
        if any(not 0 < scale < float("inf") for scale in self.at):
            raise QueryError("a scale (at) is positive and finite")


@dataclass(frozen=True, slots=True)
class Question:
    """A study's declaration and tables, and what is asked of them.

    watch  is told (conditions that have been asked, how many there are), for progress
    """

    declared: Declared
    tables: Tables
    options: Options
    watch: Watch = unwatched

    @property
    def metric(self) -> str:
        """Return the metric that is meant."""
        return self.options.metric or self.declared.success.metric

    def metrics(self) -> list[str]:
        """Return the names of all metrics that were measured, sorted."""
        return metric_names(self.tables)

    def measures(self) -> list[str]:
        """Return the names of metrics but for single items: a run is right there or wrong, and many are no measures."""
        items = items_of(self.tables)
        return [name for name in self.metrics() if name not in items]

    @property
    def threshold(self) -> float:
        """Return the threshold of success."""
        return self.declared.success.threshold if isnan(self.options.threshold) else self.options.threshold

    @property
    def second_threshold(self) -> float:
        """Return the threshold of the second metric, or of the second onset; the first one's where none is given."""
        return self.threshold if isnan(self.options.against_threshold) else self.options.against_threshold

    def level(self, conditions: Sequence[ConditionSummary]) -> float:
        """Return the level of intervals: the one that was asked for, else that of the study's own rule."""
        return self.options.level if not isnan(self.options.level) else conditions[0].success.level

    def summary(self, metric: str = "", threshold: float = nan) -> StudySummary:
        """Return what the chosen conditions show of a metric; raises QueryError for what the study has not."""
        chosen = self.known_metric(metric or self.metric)
        rule = self.declared.success
        threshold = self.threshold if isnan(threshold) else threshold
        asked = SuccessRule(metric=chosen, threshold=threshold, sustained=rule.sustained)
        whole = summarise(replace(self.declared, success=asked, scale=self.scale), self.tables)
        return replace(whole, conditions=tuple(self._chosen(whole)))

    @property
    def scale(self) -> str:
        """Return the factor on the axis of scale; raises QueryError for one that no condition has."""
        return self.known_factor(self.options.scale or self.declared.scale)

    def known_factor(self, asked: str) -> str:
        """Return the factor, or the empty text; raises QueryError for one that no condition has."""
        factors = sorted({name for condition in self.declared.conditions for name in condition.factors})
        if asked and asked not in factors:
            raise QueryError(f"no factor is called {asked!r}; the study varies {', '.join(factors) or 'none'}")
        return asked

    def by_scale(self) -> tuple[Floats, list[ConditionSummary]]:
        """Return the scales, ascending, and the one condition at each; raises QueryError where that is not so."""
        summary, name = self.summary(), self.scale
        if not name:
            raise QueryError("this needs a scale, and the study names none: give a numeric factor as --scale")
        found: dict[float, ConditionSummary] = {}
        for condition in summary.conditions:
            value = positive(condition, name)
            if value in found:
                raise QueryError(f"several conditions share {name} = {value:g}: choose among them with --condition")
            found[value] = condition
        scales = sorted(found)
        return np.array(scales), [found[scale] for scale in scales]

    def outcomes(self) -> tuple[Outcomes, list[ConditionSummary]]:
        """Return the final scores by scale, of scales with finished runs, and their conditions."""
        scales, conditions = self.by_scale()
        there = [index for index, condition in enumerate(conditions) if len(condition.scores)]
        if not there:
            raise QueryError("no run has finished yet: there is no final score")
        kept = [conditions[index] for index in there]
        cohort = Cohort.pooled([condition.success.cohort for condition in kept])
        return Outcomes.of(scales[there], [condition.scores for condition in kept], cohort), kept

    def generator(self, question: str, cohort: Cohort) -> np.random.Generator:
        """Return a generator keyed by what is asked and by the runs: the same answer everywhere and every time.

        Where a fit is read (`at`), its level, and which other conditions are shown change no draw.
        """
        asked = {
            "question": question,
            "metric": self.metric,
            "threshold": self.threshold,
            "against": self.options.against,
            "cohort": cohort.digest,
            "seed": self.options.seed,
        }
        return np.random.default_rng(int(sha256(canonical_json(asked)), 16))

    def rows(self) -> pa.Table:
        """Return the rows of the metric."""
        return rows_of(self.tables, self.known_metric(self.metric))

    def scored(self, condition: ConditionSummary) -> tuple[str, ...]:
        """Return the runs that have a final score, in the order of `condition.scores`."""
        curves = condition.curves
        last = np.flatnonzero(curves.steps == condition.condition.planned_steps)
        there = self._status(condition, Status.FINISHED)
        if not len(last):
            return ()
        there &= ~np.isnan(curves.values[:, last[0]])
        return tuple(run for run, is_there in zip(curves.run_ids, there.tolist(), strict=True) if is_there)

    def ended(self, condition: ConditionSummary) -> NDArray[np.bool_]:
        """Return [run], in the order of the curves: whether the run finished or diverged."""
        return self._status(condition, Status.FINISHED, Status.DIVERGED)

    def _status(self, condition: ConditionSummary, *wanted: Status) -> NDArray[np.bool_]:
        runs = self.tables["runs"]
        status = dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))
        return np.array([Status(status[run]) in wanted for run in condition.curves.run_ids], bool)

    def _chosen(self, summary: StudySummary) -> list[ConditionSummary]:
        asked = self.options.conditions
        if not asked:
            return list(summary.conditions)
        labels = [condition.condition.label for condition in summary.conditions]
        for one in asked:
            if not any(one in label for label in labels):
                raise QueryError(f"no condition is called {one!r}; there are {', '.join(labels)}")
        # A whole label is meant as such: model.width=1 is not model.width=16.
        return [
            condition
            for condition, label in zip(summary.conditions, labels, strict=True)
            if any(one == label or (one not in labels and one in label) for one in asked)
        ]

    def known_metric(self, metric: str) -> str:
        """Return the metric; raises QueryError with near names where nothing of that name was measured."""
        names = self.metrics()
        if names and metric not in names:
            near = get_close_matches(metric, names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise QueryError(f"no metric is called {metric!r}; there are {', '.join(names)}{hint}")
        return metric


def positive(condition: ConditionSummary, factor: str) -> float:
    """Return a factor's value at a condition, 14e6 for the text 14m; raises QueryError for what is not positive."""
    value = condition.condition.factors.get(factor)
    found = amount(value) if isinstance(value, str) else value
    if isinstance(found, bool) or not isinstance(found, int | float) or found <= 0:
        raise QueryError(f"{condition.condition.label}: {factor} is {value!r}, not a positive number")
    return float(found)


@dataclass(frozen=True, slots=True)
class Each(Generic[R]):
    """An answer for each condition.

    conditions  label → answer, in the order of the grid
    left_out    label → why that condition has no answer
    """

    conditions: dict[str, R]
    left_out: dict[str, str]

    def __getitem__(self, label: str) -> R:
        return self.conditions[label]


def each(summary: StudySummary, answer: Callable[[ConditionSummary], R], watch: Watch = unwatched) -> Each[R]:
    """Return the answer for each condition; raises QueryError where no condition has one."""
    found: dict[str, R] = {}
    left_out: dict[str, str] = {}
    for number, condition in enumerate(summary.conditions):
        watch(number, len(summary.conditions))
        try:
            found[condition.condition.label] = answer(condition)
        except (ValueError, QueryError) as error:
            left_out[condition.condition.label] = str(error)
    if not found:
        label, why = next(iter(left_out.items()))
        raise QueryError(f"{label}: {why}" if len(left_out) == 1 else f"no condition has an answer; {label}: {why}")
    return Each(found, left_out)
