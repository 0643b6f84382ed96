"""The tables `runs` and `attempts`: what was declared, what claims and outcomes say of it.

A run without an attempt is a row too, and so is one that failed: nothing that was launched disappears.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from jobs.claims import Attempt, environment_digest
from jobs.errors import Corrupt, NotFound
from jobs.identity import canonical_json
from jobs.layout import PackKeys
from jobs.pack import RunOutcome
from jobs.records import ATTEMPTS, RUNS, Status
from jobs.store import Store, get_record
from orchestrator.declared import Declared

Attempts = Mapping[str, list[Attempt]]


@dataclass(frozen=True, slots=True)
class RunsTables:
    """Makes both tables.

    attempts      by run, oldest first
    outcomes      pack → run → how it ended
    environments  pack → digest of its fingerprint; filled while looking
    findings      key → what is wrong there; filled while looking
    """

    store: Store
    declared: Declared
    attempts: Attempts
    outcomes: Mapping[str, Mapping[str, RunOutcome]]
    environments: dict[str, str]
    findings: dict[str, str]

    def runs(self, last_step: Mapping[str, int]) -> pa.Table:
        """Return a row for every declared run; last_step: of the runs that have any row, the last step with one."""
        records = []
        factors = {c.id: canonical_json(c.factors).decode() for c in self.declared.conditions}
        for run in self.declared.runs:
            mine = self.attempts.get(run.id, [])
            said = self._outcome_of(mine[-1]) if mine else None
            status = said.status if said else Status.RUNNING if mine else Status.WAITING
            records.append(
                {
                    "study": self.declared.name,
                    "run_id": run.id,
                    "condition_id": run.condition.id,
                    "condition": run.condition.label,
                    "factors": factors[run.condition.id],
                    "seed_init": run.seeds.init,
                    "seed_data": run.seeds.data,
                    "seed_dropout": run.seeds.dropout,
                    "seed_evaluation": run.seeds.evaluation,
                    "status": str(status),
                    "reason": said.reason if said else "",
                    "attempts": len(mine),
                    "last_step": last_step.get(run.id, -1),
                    "planned_steps": run.condition.planned_steps,
                    "parent_run": run.origin.run_id if run.origin else "",
                    "toward_run": run.origin.toward.run_id if run.origin and run.origin.toward else "",
                    "first_step": run.origin.step if run.origin else 0,
                    "mixed_environment": self._is_mixed(mine),
                }
            )
        return pa.Table.from_pylist(records, schema=RUNS)

    def attempts_table(self) -> pa.Table:
        """Return a row for every attempt of a declared run."""
        records = []
        for run_id in sorted(self.attempts):
            for attempt in self.attempts[run_id]:
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
        return pa.Table.from_pylist(records, schema=ATTEMPTS)

    def _outcome_of(self, attempt: Attempt) -> RunOutcome | None:
        said = self.outcomes.get(attempt.pack_id, {}).get(attempt.run_id)
        return said if said is not None and said.attempt == attempt.attempt else None

    def _environment(self, pack_id: str) -> str:
        """Return the digest of the fingerprint under which a pack trained; empty where its claim cannot be read."""
        if pack_id not in self.environments:
            try:
                facts = get_record(self.store, PackKeys(pack_id).claim)["environment"]
                self.environments[pack_id] = environment_digest(facts)
            except (NotFound, KeyError):
                return ""
            except Corrupt as error:
                self.findings[PackKeys(pack_id).claim] = error.message
                return ""
        return self.environments[pack_id]

    def _is_mixed(self, attempts: list[Attempt]) -> bool:
        """Return whether the attempts that made the run what it is, each from the last, had several fingerprints."""
        found: set[str] = set()
        by_pack = {attempt.pack_id: attempt for attempt in attempts}
        attempt = attempts[-1] if attempts else None
        while attempt is not None:
            found.add(self._environment(attempt.pack_id))
            attempt = by_pack.get(attempt.resumed_pack)
        return len(found) > 1
