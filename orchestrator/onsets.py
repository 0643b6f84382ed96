"""The rows of the table `onsets`: when each run's metric breaks through, as a bracket of its probes.

One row per run and rule, whether the onset was seen or not: a run without rows has the whole line as its bracket.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.identity import canonical_json, sha256
from jobs.parquet import read_where
from jobs.records import METRICS, ONSETS
from jobs.store import Manifest, open_store, verified
from jobs.study import SuccessRule
from orchestrator.estimates.onset import Direction, onsets
from orchestrator.summary import Curves, curves_of


@dataclass(frozen=True, slots=True)
class OnsetTask:
    """What the onsets of a condition's runs are made from.

    files  (store, key, SHA-256, size in bytes) of the parts of `metrics` that have the rule's metric
    """

    run_ids: tuple[str, ...]
    rule: SuccessRule
    files: tuple[tuple[str, str, str, int], ...]

    @property
    def source(self) -> str:
        """Return the digest of everything that decides the onsets."""
        hashes = [digest for _, _, digest, _ in self.files]
        return sha256(canonical_json({"onsets": [list(self.run_ids), self.rule.model_dump(mode="json"), hashes]}))


def make_onsets(task: OnsetTask) -> pa.Table:
    """Return the onsets of a condition's runs from its files; raises Corrupt, NotFound."""
    paths = [verified(open_store(url), Manifest(key, size, digest, {})) for url, key, digest, size in task.files]
    rows = [read_where(path, "metric", task.rule.metric, METRICS.names).cast(METRICS) for path in paths]
    whole = pa.concat_tables(rows) if rows else METRICS.empty_table()
    return onsets_of(curves_of(whole, list(task.run_ids)), task.rule)


def onsets_in(runs: pa.Table, rows: pa.Table, rule: SuccessRule) -> pa.Table:
    """Return the onsets of all runs by condition and run id; rows: those of the rule's metric."""
    by_condition: dict[str, list[str]] = {}
    for condition_id, run_id in zip(*(runs[n].to_pylist() for n in ("condition_id", "run_id")), strict=True):
        by_condition.setdefault(condition_id, []).append(run_id)
    made = [onsets_of(curves_of(rows, by_condition[each]), rule) for each in sorted(by_condition)]
    return pa.concat_tables(made) if made else ONSETS.empty_table()


def onsets_of(curves: Curves, rule: SuccessRule, direction: Direction = "up") -> pa.Table:
    """Return the onsets of these runs by the rule, in the order of `curves.run_ids`; its schema is ONSETS.

    `curves` holds the values of `rule.metric`.
    """
    low, high = onsets(curves.steps, curves.values, rule.threshold, rule.sustained, direction)
    runs = len(curves.run_ids)
    left, right = np.isinf(low), np.isinf(high)
    columns = {
        "run_id": pa.array(curves.run_ids, pa.string()),
        "metric": pa.array([rule.metric] * runs, pa.string()),
        "threshold": np.full(runs, rule.threshold),
        "sustained": np.full(runs, rule.sustained, np.int32),
        "direction": pa.array([direction] * runs, pa.string()),
        "low": low,
        "high": high,
        "censored": np.select([left & right, left, right], ["whole", "left", "right"], "interval"),
    }
    return pa.table(columns, schema=ONSETS)
