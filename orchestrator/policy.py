"""What to do about a pack that was lost: pure, from one table of reasons.

A run's own end (finished, diverged, its task raised) is an outcome and never comes here. What comes here is a
pack whose process ended without an outcome. Each class of reasons has a budget of its own, so that a run which
is preempted fifty times still has all the retries that a crash has. Budgets hold for one drive: the same command
again tries failed runs anew.

Not here: which condition gets the next seeds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from jobs.errors import (
    AlreadyExists,
    Corrupt,
    EnvironmentChanged,
    ForeignStore,
    LeaseLost,
    ModelError,
    NodeLost,
    NotFound,
    OutOfMemory,
    PackSilent,
    SeedError,
    SpecMismatch,
    StoreError,
    StoreFull,
    StudyInterrupted,
    Superseded,
    TaskError,
)

_LONGEST_PAUSE_S = 60.0


class Blame(Enum):
    """Whose doing the loss of a pack is."""

    CRASH = auto()  # perhaps the run's own: charged to `execution.retries`
    OUTSIDE = auto()  # a node, a signal, the network, the store: charged to `execution.preemptions`
    PLACEMENT = auto()  # too large for where it was put: smaller packs, charged to nobody
    USER = auto()  # a task that cannot be built: it would raise again
    DRIVE = auto()  # no run could do better: the drive ends with the error


# The first row that fits decides. A process that died (killed, an illegal instruction) fits the last one.
REASONS: tuple[tuple[type[BaseException], Blame], ...] = (
    # Asked to leave, such as with a node that is taken away; to charge it as a crash would fail long runs.
    (StudyInterrupted, Blame.OUTSIDE),
    (NodeLost, Blame.OUTSIDE),
    (PackSilent, Blame.OUTSIDE),
    (OutOfMemory, Blame.PLACEMENT),
    (TaskError, Blame.USER),
    # The same for every run of the condition, on every node that was set up alike.
    (ModelError, Blame.USER),
    # Another study trains these runs: to claim them back would never end.
    (Superseded, Blame.DRIVE),
    (LeaseLost, Blame.DRIVE),
    # The same for every attempt, and what would follow is not what was declared.
    (SeedError, Blame.DRIVE),
    (EnvironmentChanged, Blame.DRIVE),
    # One file of one pack: a smaller pack may not need it.
    (AlreadyExists, Blame.CRASH),
    (NotFound, Blame.CRASH),
    (Corrupt, Blame.CRASH),
    # The same for every run until somebody does something about it.
    (StoreFull, Blame.DRIVE),
    (ForeignStore, Blame.DRIVE),
    (SpecMismatch, Blame.DRIVE),
    # The store answered with an error: it may be back in a minute.
    (StoreError, Blame.OUTSIDE),
    (BaseException, Blame.CRASH),
)


@dataclass(frozen=True, slots=True)
class Budgets:
    """How often a run may lose its pack in one drive and be tried again: to crashes, and to what is outside."""

    crashes: int
    preemptions: int = 100


class Decision(Enum):
    """What follows for one run of a lost pack."""

    RETRY = auto()
    GIVE_UP = auto()
    END = auto()


def blame(error: BaseException, width: int) -> Blame:
    """Return whose doing it is that a pack of so many runs was lost to `error`."""
    found = next(blame for reason, blame in REASONS if isinstance(error, reason))
    # A single run cannot be packed any smaller.
    return Blame.CRASH if found is Blame.PLACEMENT and width == 1 else found


def decide(found: Blame, charged: int, budgets: Budgets) -> Decision:
    """Return what to do with a run whose budget for `found` is now charged with this many losses, this one too."""
    if found is Blame.DRIVE:
        return Decision.END
    if found is Blame.PLACEMENT:
        return Decision.RETRY
    limits: Mapping[Blame, int] = {Blame.CRASH: budgets.crashes, Blame.OUTSIDE: budgets.preemptions, Blame.USER: 0}
    return Decision.GIVE_UP if charged > limits[found] else Decision.RETRY


def parts(width: int, found: Blame, crashes: int, budgets: Budgets) -> int:
    """Return into how many packs the runs of a lost pack go for their next attempt.

    Out of memory halves a pack. The first crash keeps it: most are the machine's. Later ones halve it, and the
    last retry gives each run a process of its own, so that a run that kills its process takes no neighbour down.
    """
    if found is Blame.PLACEMENT:
        return min(2, width)
    if found is not Blame.CRASH:
        return 1
    if crashes >= budgets.crashes and crashes > 0:
        return width
    return min(2, width) if crashes > 1 else 1


def pause_s(found: Blame, preemptions: int) -> float:
    """Return the seconds to wait before the next attempt: none at first, then 1, 2, 4 … 60 for what is outside."""
    if found is not Blame.OUTSIDE or preemptions < 2:
        return 0.0
    return min(_LONGEST_PAUSE_S, 2.0 ** min(preemptions - 2, 10))
