"""Summaries of studies, condition by condition: only those that changed are made anew, where there is room for them.

A summary here is without curves: a page reads those from the parts. The rows at the last step, which scores and their
groups are made from, are kept with it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.identity import canonical_json, sha256
from jobs.records import METRICS
from orchestrator.collected import Collected, rows_of
from orchestrator.dashboard.beside import Carried
from orchestrator.declared import Declared
from orchestrator.power_plan import bought
from orchestrator.summary import ConditionSummary, Curves, StudySummary, summarise

MORE_SEEDS = 8
_NO_CURVES = Curves((), np.empty(0, np.int64), np.empty((0, 0)))
MapTasks = Callable[[Callable[["SummaryTask"], "Summed"], Sequence["SummaryTask"]], Iterable["Summed"]]


@dataclass(frozen=True, slots=True)
class SummaryTask:
    """What the summary of a condition is made from: the study with this condition alone, its runs, its parts."""

    declared: Declared
    tables: Carried

    @property
    def files(self) -> list[tuple[str, str, str, int]]:
        """Return (store, key, SHA-256, size in bytes) of the parts."""
        return [(url, key, part.sha256, part.size_bytes) for part, url, key in self.tables.parts or ()]

    @property
    def source(self) -> str:
        """Return the digest of everything that decides the summary."""
        condition, rule, stop = self.declared.conditions[0], self.declared.success, self.declared.stop
        known = [repr(condition), repr(stop), rule.model_dump(mode="json"), [digest for _, _, digest, _ in self.files]]
        rows = [self.tables.small[name].to_pydict() for name in ("runs", "audit")]
        return sha256(canonical_json({"summary": [*known, *rows]}))


@dataclass(frozen=True, slots=True)
class Summed:
    """A condition's summary without its curves, and what pages make from it.

    last    rows of the rule's metric at the last step, of METRICS
    bought  what MORE_SEEDS more seeds would do to its interval
    """

    condition: ConditionSummary
    last: pa.Table
    bought: dict[str, object]


def sum_up(task: SummaryTask) -> Summed:
    """Return the summary of one condition; raises Corrupt, NotFound."""
    tables = task.tables.tables()
    summary = summarise(task.declared, tables)
    condition = summary.conditions[0]
    rows = rows_of(tables, task.declared.success.metric)
    last = rows.filter(pc.field("step") == condition.condition.planned_steps)
    # A copy of its own: a slice would keep all rows in memory.
    last = last.take(pa.array(range(last.num_rows), pa.int64()))
    return Summed(replace(condition, curves=_NO_CURVES), last, bought(summary, MORE_SEEDS)[0])


@dataclass(slots=True)
class Summaries:
    """Makes summaries of one study after another and remembers those of conditions that do not change."""

    map: MapTasks
    _known: dict[str, dict[str, Summed]] = field(default_factory=dict)

    def of(self, declared: Declared, tables: Collected) -> tuple[StudySummary, pa.Table, tuple[dict[str, object], ...]]:
        """Return the summary of a study, the rows of its rule's metric at the last steps, and what seeds would buy."""
        tasks = list(_tasks(declared, tables))
        sources = [task.source for task in tasks]
        known = self._known.get(declared.name, {})
        new = {source: task for source, task in zip(sources, tasks, strict=True) if source not in known}
        made = dict(zip(new, self.map(sum_up, list(new.values())), strict=True))
        found = {source: made.get(source) or known[source] for source in sources}
        self._known[declared.name] = found
        nothing = Collected(tables.small | {"runs": tables["runs"].slice(0, 0)}, ())
        frame = summarise(replace(declared, conditions=()), nothing)
        conditions = tuple(found[source].condition for source in sources)
        last = [found[source].last for source in sources]
        rows = pa.concat_tables(last) if last else METRICS.empty_table()
        return replace(frame, conditions=conditions), rows, tuple(found[source].bought for source in sources)


def _tasks(declared: Declared, tables: Collected) -> Iterable[SummaryTask]:
    disputed = tables["audit"].filter(pc.field("finding") == "disagreement")
    for condition in declared.conditions:
        runs = tables["runs"].filter(pc.field("condition_id") == condition.id)
        mine = disputed.filter(pc.is_in(disputed["run_id"], runs["run_id"].combine_chunks()))
        placed = (p for p in tables.parts if p.part.condition_id == condition.id)
        own = Carried.of(Collected({"runs": runs, "audit": mine}, tuple(placed)))
        yield SummaryTask(replace(declared, conditions=(condition,), runs=(), text="", files={}), own)
