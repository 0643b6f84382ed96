"""Where each run of a pack stands while it trains: alive, finished, diverged or failed.

A run that diverges or whose task raises leaves the crew; its slot keeps computing and its neighbours do not
notice, but none of its rows or weights count from there on.
"""

import logging
from dataclasses import dataclass, field

from jobs.claims import Attempt
from jobs.pack import PackOutcome, RunOutcome, Saves
from jobs.records import Status
from workers.progress import Progress

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Member:
    """One run of the pack, at its slot along the leading axis."""

    slot: int
    attempt: Attempt
    status: Status = Status.RUNNING
    step: int = 0
    reason: str = ""

    @property
    def run_id(self) -> str:
        """Return the id of the run."""
        return self.attempt.run_id

    def outcome(self) -> RunOutcome:
        """Return how the run ended, as a record."""
        number = self.attempt.attempt
        return RunOutcome(run_id=self.run_id, attempt=number, status=self.status, step=self.step, reason=self.reason)


@dataclass(slots=True)
class Crew:
    """The runs of a pack, by slot, the step that they have reached together, what they do now, and what saving took."""

    pack_id: str
    members: list[Member] = field(default_factory=list)
    step: int = 0
    saves: Saves = field(default_factory=Saves)
    progress: Progress = field(default_factory=Progress)

    @property
    def alive(self) -> list[Member]:
        """Return the runs that still train, by slot."""
        return [member for member in self.members if member.status is Status.RUNNING]

    def leave(self, member: Member, status: Status, step: int, reason: str) -> None:
        """End one run at `step` for `reason`; the others go on."""
        member.status, member.step, member.reason = status, step, reason
        log.warning("run %s is %s at step %d: %s", member.run_id, status, step, reason)

    def finish(self, step: int) -> None:
        """End every run that is still alive as finished at `step`."""
        for member in self.alive:
            member.status, member.step = Status.FINISHED, step

    def outcome(self) -> PackOutcome:
        """Return how each run ended, as a record."""
        runs = tuple(member.outcome() for member in self.members)
        return PackOutcome(pack_id=self.pack_id, runs=runs, saves=self.saves)
