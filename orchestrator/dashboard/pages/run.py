"""The page of a run: curves, attempts, checkpoints and how to load them, log, seeds and their digests, twins."""

import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.store import LocalStore, Store, get_record, read_manifest, verified
from orchestrator.answers import columns_of, rows_of
from orchestrator.dashboard import questions
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.pages.cluster import file_time
from orchestrator.dashboard.view import Body, Params, View
from orchestrator.query import runs_with_factors

_TAIL_BYTES = 24_000
_MOST_TWINS = 60
_MOST_COMPARED_BYTES = 128 * 1024**2  # of checkpoints that are read for one page
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def run(view: View, params: Params) -> Body:
    """Return all that the store says of a run; raises NotFound."""
    run_id = params["run_id"]
    shelf = _shelf_of(view, run_id, params.get("study", ""))
    name = shelf.declared.name
    row = runs_with_factors(_of(shelf.tables["runs"], run_id)).to_pylist()[0]
    question = questions.curves_of_run(name, run_id)
    measured = view.feed.ask(name, question.sql)
    attempts = _attempts(view.feed.library.store, shelf, row, measured)
    return {
        "title": f"Run {run_id}",
        "study": name,
        "version": shelf.version,
        "run": row,
        "factors": _factors(shelf, row["condition_id"]),
        "rule": shelf.summary.rule.model_dump(mode="json"),
        "attempts": attempts,
        "tries": questions.attempts_of(name, run_id).links(name),
        "verdict": shelf.verdict.as_dict() if shelf.verdict else None,
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


def _attempts(store: Store, shelf: Shelf, row: dict[str, Any], measured: pa.Table) -> list[Body]:
    """Return the attempts, oldest first, each with where and when it trained, to which step, and how it ended."""
    rows = measured.group_by("attempt").aggregate([("step", "max")]).to_pylist()
    last = {r["attempt"]: r["step_max"] for r in rows}
    found = rows_of(_of(shelf.tables["attempts"], row["run_id"]))
    for index, attempt in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else None
        attempt["last_step"] = max(last.get(attempt["attempt"], 0), attempt["first_step"])
        attempt["ended"] = attempt["status"]
        if following is not None and attempt["status"] == "running":
            if following["resumed_pack"] == attempt["pack_id"]:
                attempt["last_step"] = max(attempt["last_step"], following["first_step"])
            begins = "resumed from" if following["resumed_pack"] else "began again at"
            why = f" ({attempt['reason']})" if attempt["reason"] else ""
            attempt["ended"] = f"cut off{why}; attempt {following['attempt']} {begins} step {following['first_step']:,}"
        attempt |= _where(store, attempt["pack_id"])
    return found


def _where(store: Store, pack_id: str) -> Body:
    """Return the host of a pack, and the seconds since 1970 at which it began and ended, where that is known."""
    keys = PackKeys(pack_id)
    try:
        host = str(get_record(store, keys.claim).get("host", ""))
    except (NotFound, Corrupt):
        host = ""
    return {"host": host, "began": file_time(store, keys.claim), "until": file_time(store, keys.outcome)}


def _checkpoints(view: View, shelf: Shelf, run_id: str) -> list[Body]:
    corrupt = {row["key"] for row in shelf.tables["audit"].to_pylist() if row["key"]}
    found = rows_of(_of(shelf.tables["checkpoints"], run_id))
    compared = _compared(view.feed.library.store, [row["key"] for row in reversed(found)])
    for row in found:
        row["finding"] = row["key"] in corrupt or compared[row["key"]] == "differs"
        row["compared"] = compared[row["key"]]
        row["command"] = f"seedbed replay {run_id}@{row['step']} --store {view.store_name}"
        row["python"] = f'seedbed.open("{view.store_name}").run("{run_id}").weights(step={row["step"]})'
    return found


def _compared(store: Store, keys: list[str]) -> dict[str, str]:
    """Return how each file compares with the hash it was committed with, read now: equal, differs, or not read."""
    found: dict[str, str] = {}
    left = _MOST_COMPARED_BYTES if isinstance(store, LocalStore) else 0
    for key in keys:
        found[key] = "not read"
        try:
            manifest = read_manifest(store, key)
            if manifest.size_bytes <= left:
                left -= manifest.size_bytes
                verified(store, manifest)
                found[key] = "equal"
        except (Corrupt, NotFound):
            found[key] = "differs"
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
