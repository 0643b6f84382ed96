"""Verified shards → tables: incremental, free of order, and doing it twice changes nothing.

Only shards whose bytes match their manifest are read. A row counts as the attempts' resume steps say
(`jobs/claims.py`); where a superseded row differs from the one that stands, both attempts measured the same
step differently, and that is a finding in `audit`, never an average. A run is a row whether it trained or not.

Not here: keeping the tables in the store (`tables.py`), questions to them (`query.py`, `estimates/`).
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.claims import Attempt, counts, environment_digest, get_attempt
from jobs.errors import Corrupt, NotFound
from jobs.identity import canonical_json
from jobs.layout import PackKeys, parse_attempt_key
from jobs.pack import RunOutcome, get_outcome
from jobs.parquet import read_table
from jobs.records import ATTEMPTS, AUDIT, CHECKPOINTS, METRICS, PROBES_OF_SEEDS, RUNS, Status
from jobs.store import Store, committed, get_record, read_manifest, verified
from orchestrator.declared import Declared
from orchestrator.rollups import rollups_of
from orchestrator.seed_audit import read_proof

Tables = dict[str, pa.Table]
_ROW_ORDER = [("run_id", "ascending"), ("step", "ascending"), ("metric", "ascending")]
_NO_LIMIT = np.iinfo(np.int64).max


@dataclass(slots=True)
class Collector:
    """Reads what the packs of one study have committed; a second call reads only what is new."""

    store: Store
    declared: Declared
    _claims: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    _shards: dict[str, pa.Table] = field(default_factory=dict)
    _outcomes: dict[str, dict[str, RunOutcome]] = field(default_factory=dict)
    _findings: dict[str, str] = field(default_factory=dict)
    _environments: dict[str, str] = field(default_factory=dict)

    def collect(self) -> Tables:
        """Return all tables of the study as the store stands now, by the names of `records.TABLES`."""
        attempts = self._read_claims()
        packs = sorted({attempt.pack_id for of_run in attempts.values() for attempt in of_run})
        for pack_id in packs:
            self._read_pack(pack_id)
        rows, disagreements = self._standing_rows(attempts)
        audit = [*self._corrupt_rows(), *disagreements]
        runs = self._runs(attempts, rows)
        return {
            "runs": runs,
            "metrics": rows.sort_by(_ROW_ORDER),
            "rollups": rollups_of(runs, rows),
            "attempts": self._attempts(attempts),
            "checkpoints": self._checkpoints(attempts, packs),
            "probes_of_seeds": self._probes_of_seeds(),
            "audit": _table(AUDIT, audit).sort_by([(name, "ascending") for name in AUDIT.names]),
        }

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
        for key in committed(self.store, keys.shards):
            if key not in self._shards and key not in self._findings:
                self._read_shard(key)
        if outcome is not None:
            self._outcomes[pack_id] = {run.run_id: run for run in outcome.runs}

    def _read_shard(self, key: str) -> None:
        try:
            manifest = read_manifest(self.store, key)
            table = read_table(verified(self.store, manifest), METRICS)
            if table.num_rows != manifest.extra["rows"]:
                raise Corrupt(key, f"has {table.num_rows} rows, was committed with {manifest.extra['rows']}")
        except (Corrupt, NotFound) as error:
            self._findings[key] = error.message
        except (pa.ArrowException, OSError) as error:
            self._findings[key] = f"cannot be read as Parquet: {error}"
        else:
            self._shards[key] = table

    def _standing_rows(self, attempts: dict[str, list[Attempt]]) -> tuple[pa.Table, list[dict[str, Any]]]:
        """Return the rows that count, and the findings where one that does not differs from one that does."""
        shards = [self._shards[key] for key in sorted(self._shards)]
        rows = pa.concat_tables(shards) if shards else METRICS.empty_table()
        run_ids = pa.array(sorted(attempts), pa.string())
        codes = pc.index_in(rows["run_id"], run_ids)
        rows, codes = rows.filter(codes.is_valid()), codes.drop_null()
        limits = _limits(attempts, run_ids.to_pylist())
        number = np.minimum(rows["attempt"].to_numpy(), limits.shape[1] - 1)
        stands = rows["step"].to_numpy() <= limits[codes.to_numpy(), number]
        kept = rows.filter(pa.array(stands))
        dropped = rows.filter(pa.array(~stands))
        return kept, _disagreements(kept, dropped)

    def _corrupt_rows(self) -> list[dict[str, Any]]:
        return [
            {"run_id": "", "step": -1, "finding": "corrupt", "key": key, "detail": detail}
            for key, detail in self._findings.items()
        ]

    def _outcome_of(self, attempt: Attempt) -> RunOutcome | None:
        said = self._outcomes.get(attempt.pack_id, {}).get(attempt.run_id)
        return said if said is not None and said.attempt == attempt.attempt else None

    def _runs(self, attempts: dict[str, list[Attempt]], rows: pa.Table) -> pa.Table:
        last = rows.group_by("run_id").aggregate([("step", "max")])
        last_step = dict(zip(last["run_id"].to_pylist(), last["step_max"].to_pylist(), strict=True))
        records = []
        for run in self.declared.runs:
            mine = attempts.get(run.id, [])
            said = self._outcome_of(mine[-1]) if mine else None
            status = said.status if said else Status.RUNNING if mine else Status.WAITING
            records.append(
                {
                    "study": self.declared.name,
                    "run_id": run.id,
                    "condition_id": run.condition.id,
                    "condition": run.condition.label,
                    "factors": canonical_json(run.condition.factors).decode(),
                    **{f"seed_{name}": seed for name, seed in run.seeds.as_dict().items()},
                    "status": str(status),
                    "reason": said.reason if said else "",
                    "attempts": len(mine),
                    "last_step": last_step.get(run.id, -1),
                    "planned_steps": run.condition.planned_steps,
                    "parent_run": run.origin.run_id if run.origin else "",
                    "first_step": run.origin.step if run.origin else 0,
                    "mixed_environment": self._is_mixed(mine),
                }
            )
        return _table(RUNS, records)

    def _environment(self, pack_id: str) -> str:
        """Return the digest of the fingerprint under which a pack trained; empty where its claim cannot be read."""
        if pack_id not in self._environments:
            try:
                facts = get_record(self.store, PackKeys(pack_id).claim)["environment"]
                self._environments[pack_id] = environment_digest(facts)
            except (NotFound, KeyError):
                return ""
            except Corrupt as error:
                self._findings[PackKeys(pack_id).claim] = error.message
                return ""
        return self._environments[pack_id]

    def _is_mixed(self, attempts: list[Attempt]) -> bool:
        """Return whether the attempts that made the run what it is, each from the last, had several fingerprints."""
        found: set[str] = set()
        by_pack = {attempt.pack_id: attempt for attempt in attempts}
        attempt = attempts[-1] if attempts else None
        while attempt is not None:
            found.add(self._environment(attempt.pack_id))
            attempt = by_pack.get(attempt.resumed_pack)
        return len(found) > 1

    def _probes_of_seeds(self) -> pa.Table:
        try:
            proof = read_proof(self.store, self.declared.name)
        except Corrupt as error:
            self._findings[error.key], proof = error.message, {}
        wanted = {run.id for run in self.declared.runs}
        rows = [asdict(row) for run_id in sorted(proof) if run_id in wanted for row in proof[run_id]]
        return _table(PROBES_OF_SEEDS, rows)

    def _attempts(self, attempts: dict[str, list[Attempt]]) -> pa.Table:
        records = []
        for run_id in sorted(attempts):
            for attempt in attempts[run_id]:
                said = self._outcome_of(attempt)
                records.append(
                    {
                        "run_id": run_id,
                        "attempt": attempt.attempt,
                        "pack_id": attempt.pack_id,
                        "first_step": max(attempt.resumed_step, 0),
                        "resumed_pack": attempt.resumed_pack,
                        "environment": self._environment(attempt.pack_id),
                        "status": str(said.status if said else Status.RUNNING),
                        "reason": said.reason if said else "",
                    }
                )
        return _table(ATTEMPTS, records)

    def _checkpoints(self, attempts: dict[str, list[Attempt]], packs: list[str]) -> pa.Table:
        records = []
        for pack_id in packs:
            for key in committed(self.store, PackKeys(pack_id).checkpoints):
                try:
                    extra = read_manifest(self.store, key).extra
                except NotFound:  # a rolling one that its pack has just let go
                    continue
                except Corrupt as error:
                    self._findings[key] = error.message
                    continue
                for part in extra["runs"]:
                    if counts(extra["step"], part["attempt"], attempts.get(part["run_id"], [])):
                        fields = {name: part[name] for name in ("run_id", "attempt", "slot", "sha256")}
                        records.append({**fields, "step": extra["step"], "kind": extra["kind"], "key": key})
        return _table(CHECKPOINTS, records).sort_by([("run_id", "ascending"), ("step", "ascending")])


def _table(schema: pa.Schema, records: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(records, schema=schema)


def _limits(attempts: dict[str, list[Attempt]], run_ids: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return [run, attempt]: the last step at which a row of that attempt counts (see `claims.counts`).

    An attempt that no claim stands for, such as one whose claim is corrupt, counts nowhere.
    """
    most = max((attempt.attempt for of_run in attempts.values() for attempt in of_run), default=0)
    limits = np.full((len(run_ids), most + 2), np.int64(-2))
    for index, run_id in enumerate(run_ids):
        limit = _NO_LIMIT
        for attempt in reversed(attempts[run_id]):
            limits[index, attempt.attempt] = limit
            limit = min(limit, attempt.resumed_step)
    return limits


def _disagreements(kept: pa.Table, dropped: pa.Table) -> list[dict[str, Any]]:
    if not dropped.num_rows:
        return []
    key = ("run_id", "step", "metric")
    affected = kept.filter(pc.is_in(kept["run_id"], dropped["run_id"].unique()))
    standing = {tuple(row[name] for name in key): row for row in affected.to_pylist()}
    found = []
    for row in dropped.to_pylist():
        other = standing.get(tuple(row[name] for name in key))
        if other is not None and (row["value"], row["correct"], row["total"]) != (
            other["value"],
            other["correct"],
            other["total"],
        ):
            detail = (
                f"{row['metric']}: attempt {row['attempt']} measured {row['value']!r}, "
                f"attempt {other['attempt']} {other['value']!r}"
            )
            finding = {"run_id": row["run_id"], "step": row["step"], "finding": "disagreement", "key": ""}
            found.append({**finding, "detail": detail})
    return found
