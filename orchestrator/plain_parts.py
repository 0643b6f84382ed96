"""Tables that lie in memory → the same parts and roll-ups that a collector makes: for studies that were imported."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from jobs.local_files import hash_file
from jobs.parquet import write_groups
from jobs.records import METRICS, TABLES
from jobs.study import SuccessRule
from orchestrator.collected import Collected, Kept, Placed, Workspace
from orchestrator.onsets import onsets_in
from orchestrator.parts import PART_RUNS, Part, put_by_hash
from orchestrator.rollups import rollups_of

_ORDER = [("metric", "ascending"), ("run_id", "ascending"), ("step", "ascending")]


def collected_from(tables: Mapping[str, pa.Table], rule: SuccessRule | None = None) -> Collected:
    """Return plain Arrow tables as collected ones; those that are missing are empty, `rollups` is made.

    tables: at least `runs` and `metrics`, with at most one row for each run, step and metric
    rule: of the onsets, which are made too; without one they are those of `tables`
    """
    runs, metrics = tables["runs"], tables["metrics"]
    small = {name: tables.get(name, schema.empty_table()) for name, schema in TABLES.items() if name != "metrics"}
    small["rollups"] = rollups_of(runs, metrics)
    if rule is not None:
        small["onsets"] = onsets_in(runs, metrics.filter(pc.field("metric") == rule.metric), rule)
    workspace = Workspace()
    placed = []
    for condition_id in sorted(pc.unique(runs["condition_id"]).to_pylist()):
        ids = runs.filter(pc.field("condition_id") == condition_id)["run_id"].to_pylist()
        for number, start in enumerate(range(0, len(ids), PART_RUNS)):
            mine = pc.is_in(metrics["run_id"], pa.array(ids[start : start + PART_RUNS], pa.string()))
            rows = metrics.filter(mine).sort_by(_ORDER)
            if rows.num_rows:
                placed.append(_placed(rows, condition_id, number, workspace))
    return Collected(small, tuple(placed))


def _placed(rows: pa.Table, condition_id: str, number: int, workspace: Workspace) -> Placed:
    names = sorted(pc.unique(rows["metric"]).to_pylist())
    last = rows.group_by("run_id").aggregate([("step", "max")])
    with workspace.store.scratch(".parquet") as staged:
        write_groups((rows.filter(pc.field("metric") == name) for name in names), METRICS, staged)
        digest, size_bytes = hash_file(staged, sync=True)
        last_steps = dict(zip(last["run_id"].to_pylist(), last["step_max"].to_pylist(), strict=True))
        part = Part(condition_id, number, "", rows.num_rows, digest, size_bytes, tuple(names), last_steps)
        key = part.key("parts/")
        put_by_hash(workspace.store, key, staged, digest)
    return Placed(part, workspace.store, key, Kept(workspace, key))
