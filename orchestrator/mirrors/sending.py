"""What a mirror was not sent yet, run by run: committed rows → tracker → record in the store."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.claims import attempts_of
from jobs.parquet import read_table
from jobs.records import METRICS
from orchestrator.collected import Collected, Placed
from orchestrator.declared import Declared, DeclaredRun
from orchestrator.library import Library
from orchestrator.mirrors import Mirror, MirroredRun
from orchestrator.mirrors.sent import Sent, note_sent, read_sent

_TOLD_EVERY = 500  # steps that a tracker has taken: a sign of life


def send_news(library: Library, study: str, name: str, mirror: Mirror, tell: Callable[[int, int, int], None]) -> int:
    """Send every committed row that a mirror has not, and return how many; doing it twice sends nothing.

    tell  is told how many runs have news, how many of them were sent, and how many rows
    Raises MirrorError at the first run that the tracker does not take; those before it count as sent.
    """
    declared, tables = library.declared(study), library.tables(study)
    sent = read_sent(library.store, name, study)
    statuses = dict(zip(*(tables["runs"][column].to_pylist() for column in ("run_id", "status")), strict=True))
    news = _with_news(tables, sent, statuses)
    by_id = {run.id: run for run in declared.runs}
    done = rows = 0
    tell(len(news), 0, 0)
    for placed in tables.parts:
        mine = [run for run in placed.part.last_steps if run in news]
        for run_id, table in _rows_of(placed, mine, sent):
            before = sent.get(run_id)
            first = before.step + 1 if before else 0
            mirror.begin(_mirrored(library, declared, by_id[run_id], first))
            for step, values in _steps(table):
                mirror.log(step, values)
                rows += len(values)
                if step % _TOLD_EVERY == 0:
                    tell(len(news), done, rows)
            mirror.end(statuses[run_id])
            now = Sent(run_id, placed.part.last_steps[run_id], statuses[run_id])
            note_sent(library.store, name, study, now, before)
            done += 1
            tell(len(news), done, rows)
    return rows


def _with_news(tables: Collected, sent: dict[str, Sent], statuses: dict[str, str]) -> set[str]:
    last = {run: step for placed in tables.parts for run, step in placed.part.last_steps.items() if step >= 0}
    return {
        run
        for run, step in last.items()
        if run not in sent or (step, statuses[run]) != (sent[run].step, sent[run].status)
    }


def _rows_of(placed: Placed, runs: list[str], sent: dict[str, Sent]) -> Iterator[tuple[str, pa.Table]]:
    """Yield run by run the rows that were not sent, by step and metric; none where only its status is new."""
    if not runs:
        return
    table = read_table(placed.path(), METRICS)
    table = table.filter(pc.is_in(table["run_id"], pa.array(runs))).sort_by(
        [("run_id", "ascending"), ("step", "ascending"), ("metric", "ascending")]
    )
    names = table["run_id"].to_numpy()
    for start, stop in pairwise([0, *(np.flatnonzero(names[1:] != names[:-1]) + 1), len(names)]):
        mine, run_id = table.slice(start, stop - start), str(names[start])
        yield run_id, mine.filter(pc.field("step") > (sent[run_id].step if run_id in sent else -1))


def _steps(table: pa.Table) -> Iterator[tuple[int, dict[str, float]]]:
    steps = table["step"].to_numpy()
    metrics, values = table["metric"].to_pylist(), table["value"].to_pylist()
    edges = [0, *(np.flatnonzero(steps[1:] != steps[:-1]) + 1), len(steps)] if len(steps) else []
    for start, stop in pairwise(int(edge) for edge in edges):
        yield int(steps[start]), dict(zip(metrics[start:stop], values[start:stop], strict=True))


def _mirrored(library: Library, declared: Declared, run: DeclaredRun, first_step: int) -> MirroredRun:
    seeds = run.seeds.as_dict()
    told = ", ".join(f"{name} {number}" for name, number in _telling(seeds).items())
    attempts = () if declared.imported else attempts_of(library.store, run.id)
    spec: dict[str, Any] = dict(attempts[-1].spec["condition"]) if attempts else dict(run.condition.factors)
    about = {"study": declared.name, "condition": run.condition.label, "seeds": seeds}
    if run.origin is not None:
        about["origin"] = run.origin.model_dump(mode="json")
    name = f"{run.condition.label} · {told}"
    factors = run.condition.factors
    return MirroredRun(run.id, declared.name, run.condition.label, name, factors, seeds, spec | about, first_step)


def _telling(seeds: dict[str, int]) -> dict[str, int]:
    """Return the seeds by name, as one where one index drives them all."""
    own = {name: number for name, number in seeds.items() if name != "evaluation"}
    return {"seed": own["init"]} if len(set(own.values())) == 1 else own
