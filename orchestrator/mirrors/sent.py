"""What a mirror was sent: a record a run in the store, whose key says up to which step, and how the run stood.

    mirrors/wandb/widths/r1-05ec….000000000750.finished.json

It is put after the tracker has the rows and before the next are sent; so one listing tells what is left.
"""

import re
from contextlib import suppress
from dataclasses import dataclass

from jobs.errors import AlreadyExists
from jobs.layout import mirror_folder
from jobs.records import Status
from jobs.store import Store, put_record

_KEY = re.compile(r"(?P<run>.+)\.(?P<step>\d{12})\.(?P<status>[a-z]+)\.json")


@dataclass(frozen=True, slots=True, order=True)
class Sent:
    """Up to which step a run was sent, and its status by then."""

    run_id: str
    step: int
    status: str

    @property
    def is_last(self) -> bool:
        """Return whether the run had ended by then."""
        return Status(self.status).is_terminal

    def key(self, mirror: str, study: str) -> str:
        """Return the key of its record."""
        return f"{mirror_folder(mirror, study)}{self.run_id}.{self.step:012d}.{self.status}.json"


def read_sent(store: Store, mirror: str, study: str) -> dict[str, Sent]:
    """Return by run the newest of what a mirror was sent."""
    found: dict[str, Sent] = {}
    for one in _all(store, mirror, study):
        known = found.get(one.run_id)
        if known is None or (one.step, one.is_last) >= (known.step, known.is_last):
            found[one.run_id] = one
    return found


def note_sent(store: Store, mirror: str, study: str, sent: Sent, before: Sent | None) -> None:
    """Put into the store that a run was sent, in the place of what was noted before."""
    with suppress(AlreadyExists):
        put_record(store, sent.key(mirror, study), {"run_id": sent.run_id, "step": sent.step, "status": sent.status})
    if before is not None and before != sent:
        store.delete(before.key(mirror, study))


def forget_sent(store: Store, mirror: str, study: str) -> int:
    """Remove every record of a mirror, so that all is sent again; returns how many runs it had."""
    known = _all(store, mirror, study)
    for one in known:
        store.delete(one.key(mirror, study))
    return len({one.run_id for one in known})


def _all(store: Store, mirror: str, study: str) -> list[Sent]:
    folder = mirror_folder(mirror, study)
    matches = (_KEY.fullmatch(key.removeprefix(folder)) for key in store.keys(folder))
    return sorted(Sent(match["run"], int(match["step"]), match["status"]) for match in matches if match)
