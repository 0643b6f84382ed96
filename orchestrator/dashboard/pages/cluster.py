"""The cluster over time: which pack trained where and when, what was lost, and who is alive now.

All of it is read from the store, so no cluster needs to be alive: who is alive is told by beats and by the lease of
the study's driver (`signs.py`). The store keeps no clocks on purpose; times here are those of its files, so they are
for the eye and in no estimate.
"""

from contextlib import suppress
from typing import Any

import pyarrow.compute as pc

from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.store import LocalStore, Store, get_record
from orchestrator.dashboard import questions
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.pages.runs import study_of
from orchestrator.dashboard.view import Body, Params, View

_MOST_PACKS = 2_000
_BINS_S = (60, 300, 600, 1_800, 3_600, 6 * 3_600, 86_400)
_MOST_BINS = 48
LOST = ("lost", "silent", "cut off")


def cluster(view: View, params: Params) -> Body:
    """Return the packs of a study by node, with when each began, last committed something and ended."""
    shelf = view.feed.shelf(study_of(view, params))
    name, runs_of = shelf.declared.name, _runs_of(shelf)
    store, signs = view.feed.library.store, view.feed.signs
    packs = [_pack(store, pack_id, runs_of[pack_id], signs.of_pack(pack_id)) for pack_id in sorted(runs_of)]
    timed = sorted((p for p in packs if p["began"] is not None), key=lambda p: (p["began"], p["pack_id"]))
    lost = [p for p in packs if p["state"] in LOST]
    span_s = max(p["until"] for p in timed) - timed[0]["began"] if timed else 0.0
    question = questions.attempts(name)
    return {
        "title": "Cluster",
        "study": name,
        "studies": view.feed.names(),
        "version": shelf.version,
        "driver": signs.of_driver(name),
        "packs": timed[-_MOST_PACKS:],
        "of": len(packs),
        "nodes": sorted({pack["host"] for pack in timed}),
        "devices": sorted({pack["device"] for pack in timed if pack["device"]}),
        "span_s": span_s,
        "busy_s": sum(pack["until"] - pack["began"] for pack in timed),
        "lost": len(lost),
        "lost_per_hour": 3600 * len(lost) / span_s if span_s > 0 else None,
        "faults": _faults([p for p in timed if p["state"] in LOST], timed[0]["began"], span_s) if timed else [],
        "running": sum(pack["state"] == "running" for pack in packs),
        "beating": sum(pack["beats"] == "beats" for pack in packs),
        "attempts": shelf.tables["attempts"].num_rows,
        "again": int(pc.sum(pc.greater(shelf.tables["attempts"]["attempt"], 1)).as_py() or 0),
        "question": question.links(name),
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


def _pack(store: Store, pack_id: str, runs: list[dict[str, Any]], beats: str) -> Body:
    keys = PackKeys(pack_id)
    claim: dict[str, Any] = {}
    with suppress(NotFound, Corrupt):
        claim = get_record(store, keys.claim)
    began, ended = file_time(store, keys.claim), file_time(store, keys.outcome)
    until = ended or max((t for key in store.keys(keys.folder) if (t := file_time(store, key))), default=began)
    return {
        "pack_id": pack_id,
        "host": str(claim.get("host", "")) or "unknown",
        "device": str(claim.get("environment", {}).get("device", "")),
        "runs": len(runs),
        "condition": runs[0]["condition"],
        "first_step": min(row["first_step"] for row in runs),
        "began": began,
        "until": until,
        "beats": beats,
        "state": _state(store, keys, runs, beats),
        "reason": next((row["reason"] for row in runs if row["reason"]), ""),
    }


def _state(store: Store, keys: PackKeys, runs: list[dict[str, Any]], beats: str) -> str:
    """Return ended; lost: its head wrote how it ended, or gave it up; running; superseded; silent; cut off: no word."""
    if store.exists(keys.outcome):
        # A run that a pack leaves running was lost with it, and its head said so.
        return "lost" if any(row["status"] == Status.RUNNING for row in runs) else "ended"
    if store.exists(keys.given_up):
        return "lost"
    if beats in ("beats", "unheard"):
        return "running" if any(row["is_newest"] for row in runs) else "superseded"
    return beats or "cut off"


def _faults(lost: list[Body], began: float, span_s: float) -> list[Body]:
    """Return how many packs were lost in each stretch of time, from the first pack on."""
    width = next((w for w in _BINS_S if span_s / w <= _MOST_BINS), _BINS_S[-1])
    bins = [0] * (int(span_s // width) + 1)
    for pack in lost:
        bins[int((pack["until"] - began) // width)] += 1
    rows = enumerate(bins)
    return [{"after_s": i * width, "seconds": width, "lost": n, "per_hour": n * 3600 / width} for i, n in rows]


def file_time(store: Store, key: str) -> float | None:
    """Return when the file was written, in seconds since 1970; None where there is none, or in a bucket."""
    if not isinstance(store, LocalStore):
        return None
    try:
        return store.local(key).stat().st_mtime
    except (NotFound, OSError):
        return None
