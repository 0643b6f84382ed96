"""The cluster over time, as the store remembers it: which pack trained where and when, and what was cut off.

The store keeps no clocks on purpose; times here are those of its files, so they are for the eye and in no estimate.
"""

from contextlib import suppress
from typing import Any

import pyarrow.compute as pc

from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.store import LocalStore, Store, get_record
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.pages.runs import study_of
from orchestrator.dashboard.view import Body, Params, View

_MOST_PACKS = 2_000


def cluster(view: View, params: Params) -> Body:
    """Return the packs of a study by node, with when each began, last committed something and ended."""
    shelf = view.feed.shelf(study_of(view, params))
    runs_of = _runs_of(shelf)
    chosen = sorted(runs_of)[-_MOST_PACKS:]
    packs = [_pack(view.feed.library.store, pack_id, runs_of[pack_id]) for pack_id in chosen]
    timed = sorted((p for p in packs if p["began"] is not None), key=lambda p: (p["began"], p["pack_id"]))
    lost = [p for p in timed if p["state"] == "cut off"]
    span_h = (max(p["until"] for p in timed) - timed[0]["began"]) / 3600 if timed else 0.0
    return {
        "title": "Cluster",
        "study": shelf.declared.name,
        "studies": view.feed.names(),
        "version": shelf.version,
        "packs": timed,
        "of": len(runs_of),
        "nodes": sorted({pack["host"] for pack in timed}),
        "span_s": span_h * 3600,
        "busy_s": sum(pack["until"] - pack["began"] for pack in timed),
        "lost": len(lost),
        "lost_per_hour": len(lost) / span_h if span_h > 0 else None,
        "running": sum(pack["state"] == "running" for pack in timed),
        "attempts": shelf.tables["attempts"].num_rows,
        "again": int(pc.sum(pc.greater(shelf.tables["attempts"]["attempt"], 1)).as_py() or 0),
    }


def _runs_of(shelf: Shelf) -> dict[str, list[dict[str, Any]]]:
    newest = {row["run_id"]: row["attempts"] for row in shelf.tables["runs"].to_pylist()}
    labels = dict(zip(*(shelf.tables["runs"][c].to_pylist() for c in ("run_id", "condition")), strict=True))
    found: dict[str, list[dict[str, Any]]] = {}
    for row in shelf.tables["attempts"].to_pylist():
        row["is_newest"] = row["attempt"] == newest[row["run_id"]]
        row["condition"] = labels[row["run_id"]]
        found.setdefault(row["pack_id"], []).append(row)
    return found


def _pack(store: Store, pack_id: str, runs: list[dict[str, Any]]) -> Body:
    keys = PackKeys(pack_id)
    claim: dict[str, Any] = {}
    with suppress(NotFound, Corrupt):
        claim = get_record(store, keys.claim)
    began, ended = _time(store, keys.claim), _time(store, keys.outcome)
    until = ended or max((t for key in store.keys(keys.folder) if (t := _time(store, key))), default=began)
    is_running = ended is None and any(row["is_newest"] for row in runs)
    return {
        "pack_id": pack_id,
        "host": str(claim.get("host", "")) or "unknown",
        "device": str(claim.get("environment", {}).get("device", "")),
        "runs": len(runs),
        "condition": runs[0]["condition"],
        "first_step": min(row["first_step"] for row in runs),
        "began": began,
        "until": until,
        "state": "ended" if ended else "running" if is_running else "cut off",
    }


def _time(store: Store, key: str) -> float | None:
    """Return when the file was written, in seconds since 1970; None where there is none, or in a bucket."""
    if not isinstance(store, LocalStore):
        return None
    try:
        return store.local(key).stat().st_mtime
    except (NotFound, OSError):
        return None
