"""What verifications of a study found, as records in the store: the dashboard shows the newest one and tells of faults.

Not here: verifying (`verify.py`), which changes nothing.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from jobs.errors import Corrupt, NotFound
from jobs.findings import Finding
from jobs.layout import verdict_key
from jobs.numbered import newest, put_next
from jobs.store import Store, get_record
from orchestrator.verify import Verdict

_MOST_KEPT = 100  # findings; all of them are in the answer of `seedbed verify --json`


@dataclass(frozen=True, slots=True)
class Judged:
    """What the `number`-th verification looked at, and what it found.

    spans     RUN@START-END of each span that was trained again
    findings  how many there were; `first` are the first of them
    """

    study: str
    number: int
    files: int
    checkpoints: int
    runs: int
    spans: tuple[str, ...]
    findings: int
    first: tuple[Finding, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def put_verdict(store: Store, verdict: Verdict) -> int:
    """Keep a verdict as the study's newest; returns its number."""
    body = {
        "study": verdict.study,
        "files": verdict.files,
        "checkpoints": verdict.checkpoints,
        "runs": verdict.runs,
        "spans": [f"{span.run_id}@{max(span.start, 0)}-{span.end}" for span in verdict.spans],
        "findings": len(verdict.findings),
        "first": [asdict(finding) for finding in verdict.findings[:_MOST_KEPT]],
    }
    key = partial(verdict_key, verdict.study)
    return put_next(store, key, lambda _: body, newest(store, key))


def newest_verdict(store: Store, study: str) -> Judged | None:
    """Return the newest verdict on a study, or None where there is none that can be read."""
    key = partial(verdict_key, study)
    number = newest(store, key)
    try:
        body = get_record(store, key(number))
        first = tuple(Finding(**fields) for fields in body.pop("first"))
        return Judged(number=number, first=first, spans=tuple(body.pop("spans")), **body)
    except (NotFound, Corrupt, KeyError, TypeError):
        return None
