"""Measurements become rows, rows become verified shards.

A shard holds the rows of a whole pack since the last one. It counts from the moment its manifest is durable;
before a checkpoint is committed, every row up to its step is.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.layout import PackKeys
from jobs.parquet import write_table
from jobs.records import METRICS
from jobs.store import Store, commit


@dataclass(slots=True)
class ShardWriter:
    """Collects the rows of one pack and makes numbered shards of them.

    clock       seconds that only go forward; decides when a shard is due and no number
    interval_s  the longest that a row waits for a probe after it to be handed over
    """

    store: Store
    keys: PackKeys
    clock: Callable[[], float]
    interval_s: float = 1.0
    _columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in METRICS.names})
    _number: int = 0
    _flushed_at: float = 0.0

    def __post_init__(self) -> None:
        self._flushed_at = self.clock()

    def add(
        self,
        run_id: str,
        attempt: int,
        step: int,
        metric: str,
        value: float,
        correct: int | None = None,
        total: int | None = None,
    ) -> None:
        """Add one row; it is not durable before a shard with it is."""
        row = (run_id, attempt, step, metric, value, correct, total)
        for column, item in zip(self._columns.values(), row, strict=True):
            column.append(item)

    @property
    def is_due(self) -> bool:
        """Return whether the last shard is old enough for the next."""
        return self.clock() - self._flushed_at >= self.interval_s

    def take(self) -> Callable[[], None] | None:
        """Return what commits all rows that were added since the last shard, or None where there are none."""
        self._flushed_at = self.clock()
        steps = self._columns["step"]
        if not steps:
            return None
        table = pa.table(self._columns, schema=METRICS)
        extra = {"rows": len(steps), "first_step": min(steps), "last_step": max(steps)}
        key = self.keys.shard(self._number)
        self._number += 1
        for column in self._columns.values():
            column.clear()

        def write(path: Path) -> dict[str, Any]:
            write_table(table, path)
            return extra

        return lambda: _commit(self.store, key, write)


def _commit(store: Store, key: str, write: Callable[[Path], dict[str, Any]]) -> None:
    commit(store, key, write)
