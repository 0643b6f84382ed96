"""Attempts: who may train a run, from which step, and whose rows count.

Claiming is put-if-absent of the next number, so at most one process holds each attempt. A later attempt
supersedes what earlier ones measured after the step from which it resumed; readers apply that rule
(`counts`), so a process that was thought dead and writes on changes nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from jobs.errors import AlreadyExists, Superseded
from jobs.identity import canonical_json, sha256
from jobs.layout import attempt_key
from jobs.spec import Spec
from jobs.store import Store, get_record, put_record

FRESH = -1  # the resume step of an attempt that started from nothing


class Attempt(Spec):
    """The claim of one attempt.

    resumed_step  the step of the checkpoint it went on from, or FRESH
    resumed_pack  the pack that wrote that checkpoint, or empty
    spec          the resolved spec of the run, of which `run_id` is the hash
    """

    run_id: str
    attempt: int
    pack_id: str
    resumed_step: int
    resumed_pack: str
    spec: dict[str, Any]


def claim(
    store: Store, run_id: str, pack_id: str, resumed: tuple[int, str], spec: dict[str, Any], after: int
) -> Attempt:
    """Claim attempt `after` + 1 of a run for a pack, `after` being the newest that the pack knew of; returns it.

    Raises Superseded where another pack has that number: what this one knows of the run is out of date, and a claim
    of a later number could undo what was trained in between.
    """
    number = after + 1
    attempt = Attempt(
        run_id=run_id, attempt=number, pack_id=pack_id, resumed_step=resumed[0], resumed_pack=resumed[1], spec=spec
    )
    try:
        put_record(store, attempt_key(run_id, number), attempt.model_dump(mode="json"))
    except AlreadyExists:
        if get_attempt(store, run_id, number) != attempt:  # equal, where the reply to an earlier try was lost
            raise Superseded(run_id, after) from None
    return attempt


def get_attempt(store: Store, run_id: str, number: int) -> Attempt:
    """Return the claim of an attempt; raises NotFound, Corrupt."""
    return Attempt.model_validate_json(canonical_json(get_record(store, attempt_key(run_id, number))))


def attempts_of(store: Store, run_id: str) -> list[Attempt]:
    """Return the attempts of one run, oldest first."""
    # Numbers are claimed one after another, so asking for the next is enough: listing would walk all runs.
    found: list[Attempt] = []
    while store.exists(attempt_key(run_id, len(found) + 1)):
        found.append(get_attempt(store, run_id, len(found) + 1))
    return found


def counts(step: int, attempt: int, attempts: Iterable[Attempt]) -> bool:
    """Return whether a row that `attempt` measured at `step` stands, given all attempts of the run."""
    return all(step <= later.resumed_step for later in attempts if later.attempt > attempt)


def environment_digest(facts: Mapping[str, Any]) -> str:
    """Return 16 digits that are equal for two fingerprints if all their facts but the commit are."""
    return sha256(canonical_json({name: fact for name, fact in facts.items() if name != "commit"}))[:16]
