"""What a figure is to show of a study: which metric, which conditions, which scale; and the data for it."""

from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from jobs.errors import QueryError
from jobs.records import Status
from jobs.study import SuccessRule
from orchestrator.collected import Tables, metric_names
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.summary import ConditionSummary, StudySummary, summarise

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Options:
    """What may be chosen; an empty text means what the study itself says.

    metric      the metric to draw; `against` a second one, for figures of two
    conditions  labels, or parts of labels, of the conditions to draw; all where there are none
    scale       the factor on the axis of scale
    threshold   of success; NaN for the study's own
    """

    metric: str = ""
    against: str = ""
    conditions: tuple[str, ...] = ()
    scale: str = ""
    threshold: float = float("nan")


@dataclass(frozen=True, slots=True)
class Question:
    """A study's declaration and tables, and what of them is to be drawn."""

    declared: Declared
    tables: Tables
    options: Options

    @property
    def metric(self) -> str:
        """Return the metric that is drawn."""
        return self.options.metric or self.declared.success.metric

    def metrics(self) -> list[str]:
        """Return the names of all metrics that were measured, sorted."""
        return metric_names(self.tables)

    def summary(self, metric: str = "") -> StudySummary:
        """Return what the chosen conditions show of a metric; raises QueryError for what the study has not."""
        chosen = self.known_metric(metric or self.metric)
        rule = self.declared.success
        threshold = rule.threshold if np.isnan(self.options.threshold) else self.options.threshold
        asked = SuccessRule(metric=chosen, threshold=threshold, sustained=rule.sustained)
        whole = summarise(replace(self.declared, success=asked, scale=self.scale), self.tables)
        return replace(whole, conditions=tuple(self._chosen(whole)))

    @property
    def scale(self) -> str:
        """Return the factor on the axis of scale; raises QueryError for one that no condition has."""
        asked = self.options.scale or self.declared.scale
        factors = sorted({name for condition in self.declared.conditions for name in condition.factors})
        if asked and asked not in factors:
            raise QueryError(f"no factor is called {asked!r}; the study varies {', '.join(factors) or 'none'}")
        return asked

    def by_scale(self) -> tuple[Floats, list[ConditionSummary]]:
        """Return the scales, ascending, and the one condition at each; raises QueryError where that is not so."""
        summary, name = self.summary(), self.scale
        if not name:
            raise QueryError("this figure needs a scale, and the study names none: give a numeric factor as --scale")
        found: dict[float, ConditionSummary] = {}
        for condition in summary.conditions:
            value = condition.condition.factors.get(name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise QueryError(f"{condition.condition.label}: {name} is {value!r}, not a positive number")
            if float(value) in found:
                raise QueryError(f"several conditions share {name} = {value:g}: choose among them with --condition")
            found[float(value)] = condition
        scales = sorted(found)
        return np.array(scales), [found[scale] for scale in scales]

    def outcomes(self) -> tuple[Outcomes, list[ConditionSummary]]:
        """Return the final scores by scale, of scales with finished runs, and their conditions."""
        scales, conditions = self.by_scale()
        there = [index for index, condition in enumerate(conditions) if len(condition.scores)]
        if not there:
            raise QueryError("no run has finished yet: there is no final score to draw")
        kept = [conditions[index] for index in there]
        cohort = Cohort.pooled([condition.success.cohort for condition in kept])
        return Outcomes.of(scales[there], [condition.scores for condition in kept], cohort), kept

    def ended(self, condition: ConditionSummary) -> NDArray[np.bool_]:
        """Return [run], in the order of the curves: whether the run finished or diverged."""
        runs = self.tables["runs"]
        status = dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))
        over = (Status.FINISHED, Status.DIVERGED)
        return np.array([Status(status[run]) in over for run in condition.curves.run_ids], bool)

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


def generator_of(cohort: Cohort) -> np.random.Generator:
    """Return a generator keyed by the cohort: the same runs give the same interval, in every figure and every time."""
    return np.random.default_rng(int(cohort.digest[:16], 16))
