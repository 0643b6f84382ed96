"""How far a study is, from what its packs have committed: runs, steps per second, time left, P(success) so far."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from jobs.records import Status
from orchestrator.library import Library
from orchestrator.summary import StudySummary, summarise

_LEAST_INTERVAL_S = 1.0
_SHARE = 0.05  # of the head's time that watching may take


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A study at one moment.

    done, run_steps   run-steps that are in the store, and those of the whole study
    steps_per_second  run-steps per second since watching began; 0 until two snapshots differ
    seconds_left      at that rate; None while it is not known
    """

    summary: StudySummary
    ended: int
    launched: int
    done: int
    run_steps: int
    steps_per_second: float
    seconds_left: float | None


@dataclass(slots=True)
class Watch:
    """Looks at a study now and then, and no more often than costs 5 % of the head's time.

    clock  seconds that only go forward
    """

    library: Library
    study: str
    clock: Callable[[], float]
    _start: tuple[float, int] | None = None
    _next: float = field(default=float("-inf"))

    def look(self, *, at_once: bool = False) -> Snapshot | None:
        """Return how far the study is, or None where the last look was a moment ago."""
        began = self.clock()
        if began < self._next and not at_once:
            return None
        tables = self.library.tables(self.study)
        summary = summarise(self.library.declared(self.study), tables)
        runs = tables["runs"]
        planned = pc.sum(runs["planned_steps"]).as_py() or 0
        ended = sum(c.counts[s] for c in summary.conditions for s in Status if s.is_terminal)
        # What an ended run did not train it never will: it counts as done.
        over = pc.is_in(runs["status"], value_set=_terminal())
        reached = pc.if_else(over, runs["planned_steps"], pc.max_element_wise(runs["last_step"], 0))
        done = pc.sum(reached).as_py() or 0
        if self._start is None:
            self._start = (began, done)
        elapsed, gained = began - self._start[0], done - self._start[1]
        rate = gained / elapsed if elapsed > 0 else 0.0
        self._next = self.clock() + max(_LEAST_INTERVAL_S, (self.clock() - began) / _SHARE)
        left = (planned - done) / rate if rate > 0 else None
        return Snapshot(summary, ended, runs.num_rows, done, planned, rate, left)


def _terminal() -> pa.Array:
    return pa.array([str(status) for status in Status if status.is_terminal])
