"""Does a pack move? What its loop does now, for how long, and how long that is plausible.

A heart beats in a thread of its own, so it beats on when the loop stands still for ever. Here the loop says what it
begins, and the heart asks how long ago that was. What is plausible is measured: ten times as long as the same kind of
thing has ever taken in this process, and a minute at least. The first of each kind has ten minutes, and what comes
before the loop half an hour. As it compiles, allocates or reads files it is a measure for the second alone. So slow
steps, evaluations and checkpoints have the time that they need.

Not here: whoever does something about it (`orchestrator/driver.py`).
"""

import faulthandler
import logging
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field

from jobs.beats import Clock, Pulse

LEAST_S = 60.0
FIRST_S = 600.0
BEGIN_S = 1800.0
MOST_TIMES = 10.0
_MOST_FACTOR = 16.0
_BEGIN = "begin"
log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """What a loop does, told by the loop and asked for by another thread.

    factor   by how much more patience there is than the rule says
    least_s  the least patience with anything, where that is more than the rule's
    """

    clock: Clock = time.monotonic
    factor: float = 1.0
    least_s: float = 0.0
    _doing: tuple[str, float] = field(init=False)
    _longest: dict[str, float] = field(default_factory=dict)
    _ended: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._doing = _BEGIN, self.clock()

    def begin(self, what: str) -> None:
        """Say that what was done before has ended, and that this begins."""
        now = self.clock()
        before, since = self._doing
        took = now - since
        self._longest[before] = max(self._longest[before], took) if self._ended[before] > 1 else took
        self._ended[before] += 1
        self._doing = what, now

    def trust(self, attempt: int) -> None:
        """Have twice the patience with each further attempt, up to 16 times: a rule that is too strict must give in."""
        self.factor = min(_MOST_FACTOR, 2.0 ** (attempt - 1))

    def stalled(self) -> str:
        """Return what has not ended in a plausible time; empty where all is well."""
        what, since = self._doing
        quiet_s = self.clock() - since
        if quiet_s <= self.patience_s(what):
            return ""
        longest = f"the longest before took {self._longest[what]:.1f} s" if what in self._longest else "the first one"
        return f"{what} has not ended for {quiet_s:.0f} s; {longest}"

    def patience_s(self, what: str) -> float:
        """Return the seconds that the next thing of this kind may take."""
        if what not in self._longest:
            return max(self.least_s, BEGIN_S if what == _BEGIN else FIRST_S) * self.factor
        return max(LEAST_S, self.least_s, MOST_TIMES * self._longest[what]) * self.factor

    @property
    def doing(self) -> tuple[str, float]:
        """Return what the loop does, and since when."""
        return self._doing


@dataclass(slots=True)
class Signs:
    """Beats that say whether a pack moves. The last one of a pack that has stalled says so, and then it is silent."""

    pulse: Pulse
    progress: Progress
    _suspected: tuple[str, float] | None = None
    _told: bool = False

    def beat(self, step: int) -> None:
        """Beat, unless it was said that the pack stands still; raises what the store raises; may be called again."""
        doing, why = self.progress.doing, self.progress.stalled()
        # Looked at twice: a process that was stopped for an hour wakes up with a step that seems to have taken one.
        stalled = why if why and doing is self._suspected else ""
        self._suspected = doing if why else None
        if stalled and self._told:
            return
        self.pulse.beat({"step": step, "doing": doing[0], "stalled": stalled})
        if stalled:
            _log_stacks(f"pack {self.pulse.pack_id}, step {step}: {stalled}")
        self._told = bool(stalled)


def _log_stacks(why: str) -> None:
    """Write where every thread of this process stands into the log."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
        faulthandler.dump_traceback(file)
        file.seek(0)
        log.error("%s\n%s", why, file.read())
