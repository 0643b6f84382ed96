"""Verified shards → tables: incremental, free of order, and doing it twice changes nothing.

Only shards whose bytes match their manifest are read. A row counts as the attempts' resume steps say
(`jobs/claims.py`), and only in a shard of the pack that claimed its attempt; where a row that does not count differs
from the one that stands, both measured the same step differently, and that is a finding in `audit`, never an average.
A run is a row whether it trained or not.

The table `metrics` is made in parts (`parts.py`). A part whose shards and attempts are what they were is not made
again: its digest says so, in this process or in the newest version in the store.

Not here: keeping the tables in the store (`tables.py`), questions to them (`query.py`, `estimates/`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.claims import Attempt, counts, get_attempt
from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys, parse_attempt_key
from jobs.pack import RunOutcome, get_outcome
from jobs.records import AUDIT, CHECKPOINTS, PROBES_OF_SEEDS
from jobs.store import Manifest, Store, committed, read_manifest
from orchestrator.collected import Collected, Kept, Map, Placed, Tables, Workspace, on_threads
from orchestrator.declared import Declared
from orchestrator.onsets import OnsetTask, make_onsets
from orchestrator.parts import PART_RUNS, PartTask, make_part
from orchestrator.rollups import RollTask, groups_of, make_rollup
from orchestrator.runs_table import Attempts, RunsTables
from orchestrator.seed_audit import read_proof

__all__ = ["Collector", "Tables"]
_NO_LIMIT = 2**63 - 1


@dataclass(slots=True)
class Collector:
    """Reads what the packs of one study have committed; a second call reads only what is new.

    map    how parts are made
    sink   the store and prefix where parts are put that are in no version yet; None: a temporary folder
    """

    store: Store
    declared: Declared
    map: Map = on_threads
    sink: tuple[Store, str] | None = None
    _claims: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    _shards: dict[str, dict[str, Manifest]] = field(default_factory=dict)
    _checkpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    _outcomes: dict[str, dict[str, RunOutcome]] = field(default_factory=dict)
    _findings: dict[str, str] = field(default_factory=dict)
    _environments: dict[str, str] = field(default_factory=dict)
    _parts: dict[str, Placed] = field(default_factory=dict)
    _rolled: dict[str, pa.Table] = field(default_factory=dict)
    _onsets: dict[str, pa.Table] = field(default_factory=dict)
    _workspace: Workspace | None = None

    def knows(self, before: Collected) -> None:
        """Take over the parts and roll-ups of tables that were collected before, where they are whole."""
        self._parts |= {placed.part.source: placed for placed in before.parts if placed.part.source}
        rollups = before.small["rollups"]
        for condition_id, source in before.rolled.items():
            self._rolled[source] = rollups.filter(pc.field("condition_id") == condition_id)

    def collect(self) -> Collected:
        """Return all tables of the study as the store stands now, by the names of `records.TABLES`."""
        attempts = self._read_claims()
        packs = sorted({attempt.pack_id for of_run in attempts.values() for attempt in of_run})
        for pack_id in packs:
            self._read_pack(pack_id)
        parts = self._made(list(self._tasks(attempts)))
        last_steps = {run: step for placed in parts for run, step in placed.part.last_steps.items()}
        of_runs = RunsTables(self.store, self.declared, attempts, self._outcomes, self._environments, self._findings)
        runs = of_runs.runs(last_steps)
        rollups, rolled = self._rollups(runs, parts)
        small = {
            "runs": runs,
            "attempts": of_runs.attempts_table(),
            "checkpoints": self._checkpoints_table(attempts, packs),
            "probes_of_seeds": self._probes_of_seeds(),
            "onsets": self._onset_rows(parts),
            "rollups": rollups,
        }
        small["audit"] = self._audit(parts)
        return Collected(small, tuple(placed for placed in parts if placed.part.rows), rolled)

    def _read_claims(self) -> dict[str, list[Attempt]]:
        """Return the attempts of every declared run that has any, oldest first."""
        wanted = {run.id for run in self.declared.runs}
        found: dict[str, list[Attempt]] = {}
        for key in self.store.keys("attempts/"):
            parsed = parse_attempt_key(key)
            if parsed is None or parsed[0] not in wanted:
                continue
            if parsed not in self._claims:
                try:
                    self._claims[parsed] = get_attempt(self.store, *parsed)
                except Corrupt as error:
                    self._findings[key] = error.message
                    continue
            found.setdefault(parsed[0], []).append(self._claims[parsed])
        return found

    def _read_pack(self, pack_id: str) -> None:
        keys = PackKeys(pack_id)
        if pack_id in self._outcomes:
            return
        # The outcome comes last of all that a pack writes: read it before the shards, and none is missed.
        try:
            outcome = get_outcome(self.store, pack_id)
        except NotFound:
            outcome = None
        except Corrupt as error:
            self._findings[keys.outcome], outcome = error.message, None
        shards = self._shards.setdefault(pack_id, {})
        for key in committed(self.store, keys.shards):
            if key not in shards and key not in self._findings:
                try:
                    shards[key] = read_manifest(self.store, key)
                except (Corrupt, NotFound) as error:
                    self._findings[key] = error.message
        if outcome is not None:
            self._outcomes[pack_id] = {run.run_id: run for run in outcome.runs}

    def _tasks(self, attempts: Attempts) -> Iterator[PartTask]:
        """Yield what each part is to be made from, by condition and number; parts without any shard are left out."""
        of_condition: dict[str, list[str]] = {}
        for run in self.declared.runs:
            of_condition.setdefault(run.condition.id, []).append(run.id)
        for condition_id in sorted(of_condition):
            declared = of_condition[condition_id]
            for number, start in enumerate(range(0, len(declared), PART_RUNS)):
                runs = sorted(declared[start : start + PART_RUNS])
                packs = sorted({a.pack_id for run in runs for a in attempts.get(run, ())})
                shards = [self._shards[pack][key] for pack in packs for key in sorted(self._shards[pack])]
                if shards:
                    standing = tuple(s for run in runs for s in _standing(attempts.get(run, [])))
                    yield PartTask(self.store.url, condition_id, number, tuple(runs), tuple(shards), standing)

    def _made(self, tasks: list[PartTask]) -> list[Placed]:
        """Return all parts, in the order of the tasks; only those that are not known are made."""
        found = {task.source: known for task in tasks if (known := self._known(task.source)) is not None}
        new = [task for task in tasks if task.source not in found]
        if new:
            sink, prefix = self._sink()
            at = [replace(task, sink_url=sink.url, sink_prefix=prefix) for task in new]
            for task, part in zip(new, self.map(make_part, at), strict=True):
                key = part.key(prefix)
                keeps = Kept(self._workspace, key) if self._workspace is not None and part.rows else None
                found[task.source] = Placed(part, sink, key, keeps)
        self._parts = {source: placed for source, placed in found.items() if placed.part.source}
        return [found[task.source] for task in tasks]

    def _known(self, source: str) -> Placed | None:
        placed = self._parts.get(source)
        if placed is None or not placed.part.rows:
            return placed
        try:
            placed.path()
        except (Corrupt, NotFound):  # it is made again, from the shards
            return None
        return placed

    def _sink(self) -> tuple[Store, str]:
        if self.sink is not None:
            return self.sink
        if self._workspace is None:
            self._workspace = Workspace()
        return self._workspace.store, self._workspace.prefix()

    def _rollups(self, runs: pa.Table, parts: Sequence[Placed]) -> tuple[pa.Table, dict[str, str]]:
        """Return the roll-ups of all conditions, and by condition the digest of what its own was made from."""
        tasks = []
        for group in groups_of(runs):
            mine = [p for p in parts if p.part.condition_id == group.condition_id and p.part.rows]
            files = tuple(placed.file for placed in mine)
            names = tuple(sorted({name for p in mine for name in p.part.metrics}))
            tasks.append(RollTask(group, names, files))
        new = [task for task in tasks if task.source not in self._rolled]
        made = dict(zip([task.source for task in new], self.map(make_rollup, new), strict=True))
        self._rolled = {task.source: made.get(task.source, self._rolled.get(task.source)) for task in tasks}
        whole = pa.concat_tables([self._rolled[task.source] for task in tasks])
        return whole, {task.group.condition_id: task.source for task in tasks}

    def _onset_rows(self, parts: Sequence[Placed]) -> pa.Table:
        """Return when each run's metric of the success rule breaks through, by condition and run."""
        runs: dict[str, list[str]] = {}
        for run in self.declared.runs:
            runs.setdefault(run.condition.id, []).append(run.id)
        rule, tasks = self.declared.success, []
        for condition_id in sorted(runs):
            mine = [p for p in parts if p.part.condition_id == condition_id and rule.metric in p.part.metrics]
            tasks.append(OnsetTask(tuple(sorted(runs[condition_id])), rule, tuple(placed.file for placed in mine)))
        new = [task for task in tasks if task.source not in self._onsets]
        made = dict(zip([task.source for task in new], self.map(make_onsets, new), strict=True))
        self._onsets = {task.source: made.get(task.source, self._onsets.get(task.source)) for task in tasks}
        return pa.concat_tables([self._onsets[task.source] for task in tasks])

    def _audit(self, parts: Sequence[Placed]) -> pa.Table:
        corrupt = [
            {"run_id": "", "step": -1, "finding": "corrupt", "key": key, "detail": detail}
            for key, detail in self._findings.items()
        ]
        rows = [*corrupt, *(finding for placed in parts for finding in placed.part.findings)]
        once = {tuple(row[name] for name in AUDIT.names): row for row in rows}
        return table_of(AUDIT, [once[key] for key in sorted(once)])

    def _probes_of_seeds(self) -> pa.Table:
        try:
            proof = read_proof(self.store, self.declared.name)
        except Corrupt as error:
            self._findings[error.key], proof = error.message, {}
        wanted = {run.id for run in self.declared.runs}
        rows = [asdict(row) for run_id in sorted(proof) if run_id in wanted for row in proof[run_id]]
        return table_of(PROBES_OF_SEEDS, rows)

    def _checkpoints_table(self, attempts: Attempts, packs: Sequence[str]) -> pa.Table:
        records = []
        there: dict[str, dict[str, Any]] = {}
        for key in (key for pack_id in packs for key in committed(self.store, PackKeys(pack_id).checkpoints)):
            try:
                extra = self._checkpoints.get(key) or read_manifest(self.store, key).extra
            except NotFound:  # a rolling one that its pack has just let go
                continue
            except Corrupt as error:
                self._findings[key] = error.message
                continue
            there[key] = extra
            for part in extra["runs"]:
                if counts(extra["step"], part["attempt"], attempts.get(part["run_id"], [])):
                    fields = {name: part[name] for name in ("run_id", "attempt", "slot", "sha256")}
                    records.append({**fields, "step": extra["step"], "kind": extra["kind"], "key": key})
        self._checkpoints = there
        return table_of(CHECKPOINTS, records).sort_by([("run_id", "ascending"), ("step", "ascending")])


def table_of(schema: pa.Schema, records: list[dict[str, Any]]) -> pa.Table:
    """Return the records as a table of this schema."""
    return pa.Table.from_pylist(records, schema=schema)


def _standing(attempts: Sequence[Attempt]) -> Iterator[tuple[str, int, str, int]]:
    """Yield (run, attempt, pack, last step at which a row of that attempt counts); see `claims.counts`."""
    limit = _NO_LIMIT
    for attempt in reversed(attempts):
        yield attempt.run_id, attempt.attempt, attempt.pack_id, limit
        limit = min(limit, attempt.resumed_step)
