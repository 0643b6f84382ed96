"""What does not fit in a store: one finding, as it stands in the table `audit` and in the report of `verify`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that does not fit: of which run (empty: none), at which step (-1: none), in which file."""

    kind: str
    run_id: str
    step: int
    key: str
    detail: str
