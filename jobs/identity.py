"""Content ids: the SHA-256 of what a thing is, written as canonical JSON.

The same spec has the same id on every machine and in every process; a changed rule of identity raises
IDENTITY_VERSION, which is part of every id, so that ids of two versions never meet.
"""

import hashlib
import json
from typing import Any

from jobs.seeds import Seeds
from jobs.spec import Condition

IDENTITY_VERSION = 1
_DIGITS = 20  # 80 bits; a collision is an error all the same, because specs are compared on reading


def canonical_json(value: Any) -> bytes:
    """Return `value` as JSON with sorted keys and no white space; equal values give equal bytes.

    Raises ValueError for NaN and infinities, which JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def condition_spec(condition: Condition) -> dict[str, Any]:
    """Return the condition as plain data, the form in which it is hashed and stored."""
    return condition.model_dump(mode="json")


def run_spec(condition: dict[str, Any], seeds: Seeds) -> dict[str, Any]:
    """Return the resolved spec of a run as plain data: what its id is the hash of."""
    return {"identity": IDENTITY_VERSION, "condition": condition, "seeds": seeds.as_dict()}


def run_id(spec: dict[str, Any]) -> str:
    """Return the id of the run with this resolved spec, such as `r1-05ec…`."""
    return f"r{IDENTITY_VERSION}-{sha256(canonical_json(spec))[:_DIGITS]}"


def condition_id(condition: dict[str, Any]) -> str:
    """Return the id of the condition with this spec, such as `c1-9a0f…`."""
    payload = {"identity": IDENTITY_VERSION, "condition": condition}
    return f"c{IDENTITY_VERSION}-{sha256(canonical_json(payload))[:_DIGITS]}"


def cohort_digest(run_ids: list[str]) -> str:
    """Return the digest that names exactly this set of runs, whatever their order."""
    return sha256("\n".join(sorted(set(run_ids))).encode())
