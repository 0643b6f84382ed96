"""Content ids: the SHA-256 of what a thing is, written as canonical JSON.

The same spec has the same id on every machine and in every process; a changed rule of identity raises
IDENTITY_VERSION, which is part of every id, so that ids of two versions never meet.
"""

import hashlib
import json
from typing import Any

from jobs.origin import Origin
from jobs.seeds import Seeds
from jobs.spec import Condition

IDENTITY_VERSION = 1
# Keys that came after the first ids: written only where they are not at their default, so that older ids stay.
_ADDED_LATER: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("training", "z_loss"), 0.0),
    (("training", "masking"), 0.0),
    (("training", "tree_attention"), 0.0),
    (("model", "attention"), "causal"),
    (("optimizer", "sharpness_radius"), 0.0),
    (("optimizer", "trust_region_noise"), 0.0),
    (("optimizer", "trust_region"), None),
    (("training", "low_rank"), None),
    (("training", "fast_forward"), None),
    (("measure",), []),
    (("polca",), None),
    (("engine", "offload"), False),
)
_FIRST_ENGINE = {"name": "packed"}  # the only engine there was, when ids had no engine
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
    spec = condition.model_dump(mode="json")
    for (*path, key), default in _ADDED_LATER:
        part = spec
        for name in path:
            part = part[name]
        if key in part and part[key] == default:
            del part[key]
    if spec["engine"] == _FIRST_ENGINE:
        del spec["engine"]
    return spec


def run_spec(condition: dict[str, Any], seeds: Seeds, origin: Origin | None = None) -> dict[str, Any]:
    """Return the resolved spec of a run as plain data: what its id is the hash of."""
    spec = {"identity": IDENTITY_VERSION, "condition": condition, "seeds": seeds.as_dict()}
    return spec | {"origin": origin.spec()} if origin else spec


def parse_run_spec(spec: dict[str, Any]) -> tuple[Condition, Seeds, Origin | None]:
    """Return the parts of a resolved spec; raises pydantic.ValidationError, KeyError or TypeError for another thing."""
    condition = Condition.model_validate_json(canonical_json(spec["condition"]))
    origin = Origin.model_validate_json(canonical_json(spec["origin"])) if "origin" in spec else None
    return condition, Seeds(**spec["seeds"]), origin


def run_id(spec: dict[str, Any]) -> str:
    """Return the id of the run with this resolved spec, such as `r1-05ec…`."""
    return f"r{IDENTITY_VERSION}-{sha256(canonical_json(spec))[:_DIGITS]}"


def condition_id(condition: dict[str, Any], fork: dict[str, Any] | None = None) -> str:
    """Return the id of the condition with this spec, such as `c1-9a0f…`; `fork` is where its runs begin, if set."""
    payload = {"identity": IDENTITY_VERSION, "condition": condition} | ({"fork": fork} if fork else {})
    return f"c{IDENTITY_VERSION}-{sha256(canonical_json(payload))[:_DIGITS]}"


def cohort_digest(run_ids: list[str]) -> str:
    """Return the digest that names exactly this set of runs, whatever their order."""
    return sha256("\n".join(sorted(set(run_ids))).encode())
