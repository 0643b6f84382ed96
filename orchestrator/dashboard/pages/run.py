"""The page of a run: curves, attempts, checkpoints and how to load them, log, seeds and their digests, twins."""

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import NotFound
from jobs.layout import PackKeys
from orchestrator.dashboard import questions
from orchestrator.dashboard.answers import columns_of, rows_of
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.view import Body, Params, View
from orchestrator.query import runs_with_factors

_TAIL_BYTES = 24_000
_MOST_TWINS = 60
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def run(view: View, params: Params) -> Body:
    """Return all that the store says of a run; raises NotFound."""
    run_id = params["run_id"]
    shelf = _shelf_of(view, run_id, params.get("study", ""))
    name = shelf.declared.name
    row = runs_with_factors(_of(shelf.tables["runs"], run_id)).to_pylist()[0]
    question = questions.curves_of_run(name, run_id)
    measured = view.feed.ask(name, question.sql)
    attempts = _attempts(shelf, run_id, row, measured)
    return {
        "title": f"Run {run_id}",
        "study": name,
        "version": shelf.version,
        "run": row,
        "factors": _factors(shelf, row["condition_id"]),
        "rule": shelf.summary.rule.model_dump(mode="json"),
        "attempts": attempts,
        "checkpoints": _checkpoints(view, shelf, run_id),
        "findings": rows_of(_of(shelf.tables["audit"], run_id)),
        "seeds": rows_of(_of(shelf.tables["probes_of_seeds"], run_id)),
        "twins": _twins(view, name, row),
        "log": log_tail(view, attempts[-1]["pack_id"]) if attempts else None,
        "question": question.links(name),
        "curves": columns_of(measured),
    }


def _shelf_of(view: View, run_id: str, study: str) -> Shelf:
    for name in [study] if study else view.feed.names():
        shelf = view.feed.shelf(name)
        if pc.is_in(pa.scalar(run_id), value_set=shelf.tables["runs"]["run_id"]).as_py():
            return shelf
    raise NotFound(run_id, "is no run of this store")


def _of(table: pa.Table, run_id: str) -> pa.Table:
    return table.filter(pc.field("run_id") == run_id)


def _factors(shelf: Shelf, condition_id: str) -> dict[str, Any]:
    return next(c.factors for c in shelf.declared.conditions if c.id == condition_id)


def _attempts(shelf: Shelf, run_id: str, row: dict[str, Any], measured: pa.Table) -> list[Body]:
    """Return the attempts, oldest first, each with the last step at which a row of it stands."""
    rows = measured.group_by("attempt").aggregate([("step", "max")]).to_pylist()
    last = {r["attempt"]: r["step_max"] for r in rows}
    found = rows_of(_of(shelf.tables["attempts"], run_id))
    for index, attempt in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else None
        attempt["last_step"] = last.get(attempt["attempt"], attempt["first_step"])
        attempt["planned_steps"] = row["planned_steps"]
        attempt["ended"] = attempt["status"]
        if following is not None and attempt["status"] == "running":
            begins = "went on from" if following["resumed_pack"] else "began again at"
            attempt["ended"] = f"cut off; attempt {following['attempt']} {begins} step {following['first_step']}"
    return found


def _checkpoints(view: View, shelf: Shelf, run_id: str) -> list[Body]:
    corrupt = {row["key"] for row in shelf.tables["audit"].to_pylist() if row["key"]}
    found = rows_of(_of(shelf.tables["checkpoints"], run_id))
    for row in found:
        row["finding"] = row["key"] in corrupt
        row["command"] = f"seedbed replay {run_id}@{row['step']} --store {view.store_name}"
        row["python"] = f'seedbed.open("{view.store_name}").run("{run_id}").weights(step={row["step"]})'
    return found


def _twins(view: View, study: str, row: dict[str, Any]) -> Body:
    """Return the runs that share seeds with this one: those that differ in nothing else but one thing."""
    sql = (
        "SELECT run_id, condition, status, seed_init, seed_data,\n"
        f"  seed_init = {row['seed_init']} AS same_init, seed_data = {row['seed_data']} AS same_data\nFROM runs\n"
        f"WHERE run_id <> {questions.text(row['run_id'])}\n"
        f"  AND (seed_init = {row['seed_init']} OR seed_data = {row['seed_data']})\n"
        "ORDER BY same_init AND same_data DESC, condition, run_id"
    )
    found = view.feed.ask(study, sql)
    links = questions.Question("Twins", sql, f"seedbed.open(STORE).sql({sql!r}, study={study!r}).pandas()")
    return {"rows": rows_of(found.slice(0, _MOST_TWINS)), "of": found.num_rows, "question": links.links(study)}


def log_tail(view: View, pack_id: str) -> Body:
    """Return the end of a pack's log as plain text: no terminal codes, no signs that turn text round."""
    key = PackKeys(pack_id).log
    try:
        data = view.feed.library.store.get(key)
    except NotFound:
        return {"key": key, "text": "", "cut": False}
    text = data[-_TAIL_BYTES:].decode("utf-8", "replace")
    return {"key": key, "text": _CONTROL.sub("", text), "cut": len(data) > _TAIL_BYTES}
