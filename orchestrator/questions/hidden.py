"""A question about runs that were looked at along directions: do clusters of tokens break through unseen by the mean?

A run here is a look back at a run that has ended (`polca` in a study file); its rows stand at the steps of that run.
The seed stays the unit: every number is one of a run, and intervals are over runs.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.hidden_breakthroughs import (
    Found,
    Late,
    late_breaks,
    places_and_kinds,
    purity,
    purity_by_chance,
    table_of,
)
from orchestrator.estimates.means import mean_t
from orchestrator.estimates.success import wilson
from orchestrator.questions.asked import Each, Question, each
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
LOSS = "loss"
_DEALS = 999
_NAME = re.compile(r".*?\.polca\.(.+)")
_CLUSTER = re.compile(r"([^.]+)\.cluster_(\d+)")
_COUNTED = re.compile(r"([^.]+)\.(cluster_\d+\.of|kept)\.(.+)")


@dataclass(frozen=True, slots=True)
class Look:
    """What one run's rows say: clusters along directions, and of the loss itself (`of_loss`).

    loss  [step] the mean loss at `steps`; along, of_loss: clusters' curves and counts, and where they break
    """

    run_id: str
    steps: Steps
    loss: Floats
    along: tuple[Found, ...]
    of_loss: tuple[Found, ...]
    late: Late
    late_of_loss: Late


@dataclass(frozen=True, slots=True)
class HiddenOfRun:
    """One run: clusters along its directions, how many of them are hidden, and how pure the purest is.

    flat_from  the step from which its mean loss is flat
    latest     the last step at which a hidden breakthrough begins; -1 without any
    by_chance  the mean purity with kinds dealt anew; p: how often that is as large as what was found
    """

    run_id: str
    flat_from: int
    clusters: int
    hidden: int
    latest: int
    purity: float
    by_chance: float
    p: float


@dataclass(frozen=True, slots=True)
class Hidden:
    """Hidden breakthroughs of the runs of one condition; names that end in `of_loss`: of clusters of the loss itself.

    kind          the kind of token that purity is of; tokens: the first digits of the SHA-256 of the set
    runs_with     P(a run has a hidden breakthrough in any cluster)
    part          the mean over runs of the part of its clusters that is hidden; a run without clusters has none
    late          the same where only the break counts, whether there is a breakthrough or not, as in the paper
    purity        the mean over runs of the largest share of the kind in a cluster
    above_chance  the mean over runs of the purity less that with kinds dealt anew
    captured      the mean over runs of the part of the squared way between steps that lies in the directions
    """

    kind: str
    tokens: str
    runs_with: Estimate
    runs_with_of_loss: Estimate
    part: Estimate
    part_of_loss: Estimate
    late: Estimate
    purity: Estimate
    purity_of_loss: Estimate
    above_chance: Estimate
    captured: Estimate
    runs: tuple[HiddenOfRun, ...]


@dataclass(slots=True)
class _Rows:
    """The rows of one run, by what stands behind `SET.polca.`."""

    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def curve(self, name: str) -> tuple[Steps, Floats]:
        """Return steps and values of a curve, by step."""
        points = sorted(self.curves[name].items())
        return np.array([step for step, _ in points], np.int64), np.array([value for _, value in points])


def hidden(question: Question) -> Each[Hidden]:
    """Return the hidden breakthroughs of each condition; raises QueryError where no run was looked at."""
    rows, kind = _rows(question), _kind(question)

    def answer(condition: ConditionSummary) -> Hidden:
        looked_at = [run for run in question.scored(condition) if run in rows]
        if not looked_at:
            raise QueryError("no run that was looked at along directions has finished")
        looks = _looks(question, condition, rows, kind, looked_at)
        return _told(question, condition, looks, [rows[run] for run in looked_at], kind)

    return each(question.summary(), answer, question.watch)


def looks_of(question: Question, condition: ConditionSummary) -> list[Look]:
    """Return what was seen of each finished run of a condition, for a figure."""
    rows, kind = _rows(question), _kind(question)
    return _looks(question, condition, rows, kind, [run for run in question.scored(condition) if run in rows])


def _looks(
    question: Question, condition: ConditionSummary, rows: dict[str, _Rows], kind: str, runs: list[str]
) -> list[Look]:
    rng = question.generator("hidden", condition.success.cohort)
    return [_look(run, rows[run], kind, question.options.window, rng) for run in runs]


def _told(question: Question, condition: ConditionSummary, looks: list[Look], rows: list[_Rows], kind: str) -> Hidden:
    cohort, level = condition.success.cohort, question.level([condition])
    sets = {f"{int(one.curve('set')[1][0]):012x}" for one in rows}
    if len(sets) > 1:
        raise QueryError("runs were looked at with different tokens: give one evaluation seed to all")
    rng = question.generator("purity", cohort)
    dealt = [purity_by_chance(look.along, rng, _DEALS) for look in looks]
    pure = [purity(look.along) for look in looks]
    more = [one - float(by_chance.mean()) for one, by_chance in zip(pure, dealt, strict=True)]

    def mean(of: Callable[[Look], float]) -> Estimate:
        return mean_t(np.array([of(look) for look in looks]), cohort, level)

    def share(of: Callable[[Look], bool]) -> Estimate:
        return _share(sum(map(of, looks)), len(looks), level, cohort)

    return Hidden(
        kind,
        sets.pop(),
        share(lambda look: bool(look.late.hidden.any())),
        share(lambda look: bool(look.late_of_loss.hidden.any())),
        mean(lambda look: _part(look.late.hidden)),
        mean(lambda look: _part(look.late_of_loss.hidden)),
        mean(lambda look: _part(look.late.late)),
        mean_t(np.array(pure), cohort, level),
        mean(lambda look: purity(look.of_loss)),
        mean_t(np.array(more), cohort, level),
        mean_t(np.array([float(one.curve("captured")[1][1:].mean()) for one in rows]), cohort, level),
        tuple(_of_run(*three) for three in zip(looks, pure, dealt, strict=True)),
    )


def _of_run(look: Look, pure: float, dealt: Floats) -> HiddenOfRun:
    late = look.late
    return HiddenOfRun(
        look.run_id,
        late.flat_from,
        len(late.breaks),
        int(late.hidden.sum()),
        int(late.breaks[late.hidden].max(initial=-1)),
        pure,
        float(dealt.mean()),
        (1 + int((dealt >= pure).sum())) / (1 + len(dealt)),
    )


def _share(k: int, n: int, level: float, cohort: Cohort) -> Estimate:
    return Estimate(k / n, *wilson(k, n, level), "wilson", level, cohort)


def _part(of: NDArray[np.bool_]) -> float:
    return float(of.mean()) if len(of) else 0.0


def _look(run: str, rows: _Rows, kind: str, window: int, rng: np.random.Generator) -> Look:
    steps, loss = rows.curve(LOSS)
    every = int(np.diff(steps).min())
    window = max(round((window or round(int(steps[-1]) / 10)) / every), 1) * every
    labels = sorted({name.partition(".")[0] for name in rows.curves} - {"set", "captured"})
    groups = {match[3] for name in rows.counts if (match := _COUNTED.fullmatch(name))}
    found = {label: _found(rows, label, kind, sorted(groups), len(steps)) for label in labels}
    along, of_loss = tuple(found[label] for label in labels if label != LOSS), (found[LOSS],)
    breaks = [late_breaks(steps, loss, some, window, rng) for some in (along, of_loss)]
    return Look(run, steps, loss, along, of_loss, *breaks)


def _found(rows: _Rows, label: str, kind: str, groups: list[str], steps: int) -> Found:
    mine = {name: one for name, one in rows.counts.items() if name.partition(".")[0] == label}
    parted = {name: match for name in mine if (match := _COUNTED.fullmatch(name))}
    places, kinds = places_and_kinds(groups)
    others = [other for other in kinds if other != kind]
    kept = {match[3]: mine[name][0] for name, match in parted.items() if match[2] == "kept"}
    numbers = sorted(int(match[2]) for name in rows.curves if (match := _CLUSTER.fullmatch(name)) and match[1] == label)
    curves = [rows.curve(f"{label}.cluster_{number}")[1] for number in numbers]
    members = [
        {match[3]: mine[name][0] for name, match in parted.items() if match[2] == f"cluster_{number}.of"}
        for number in numbers
    ]

    def table(wanted: list[str]) -> NDArray[np.int64]:
        return np.array([table_of(of, places, wanted) for of in members], np.int64).reshape(len(numbers), len(places))

    return Found(
        np.array(curves, np.float64).reshape(len(numbers), steps),
        table([kind]),
        table(others),
        table_of(kept, places, [kind]),
        table_of(kept, places, others),
    )


def _kind(question: Question) -> str:
    """Return the kind of token that is meant: `against`, or the first by name."""
    groups = {match[1] for name in question.metrics() if (match := re.fullmatch(r".*\.polca\.loss\.kept\.(.+)", name))}
    _, kinds = places_and_kinds(sorted(groups))
    asked = question.options.against
    if asked and asked not in kinds:
        raise QueryError(f"no kind of token is called {asked!r}; there are {', '.join(kinds) or 'none'}")
    return asked or next(iter(kinds), "")


def _rows(question: Question) -> dict[str, _Rows]:
    """Return run → its rows; raises QueryError where there are none."""
    table = question.tables["metrics"]
    table = table.filter(pc.match_substring(table["metric"], ".polca."))
    if not table.num_rows:
        raise QueryError("no run was looked at along directions: that is a study with `polca`, of a fork")
    found: dict[str, _Rows] = {}
    columns = (table[name].to_pylist() for name in ("run_id", "step", "metric", "value", "correct", "total"))
    for run, step, metric, value, correct, total in zip(*columns, strict=True):
        match = _NAME.fullmatch(metric)
        if match is None:
            continue
        mine = found.setdefault(run, _Rows())
        if correct is None:
            mine.curves.setdefault(match[1], {})[step] = value
        else:
            mine.counts[match[1]] = (correct, total)
    return found
