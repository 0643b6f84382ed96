"""What to do about a pack that was lost: pure, from one table of reasons.

A run's own end (finished, diverged, its task raised) is an outcome and never comes here. What comes here is a
pack whose process ended without an outcome. A retry is another attempt of the same runs; the budget,
`execution.retries`, holds for one drive, so the same command again tries failed runs anew.

Not here: which condition gets the next seeds.
"""

from enum import Enum, auto

from jobs.errors import (
    AlreadyExists,
    Corrupt,
    EnvironmentChanged,
    NotFound,
    SeedError,
    StoreError,
    StudyInterrupted,
    Superseded,
    TaskError,
)


class Decision(Enum):
    """What follows from the loss of a pack."""

    RETRY = auto()  # another attempt, charged to the budget of its runs
    RETRY_FREE = auto()  # another attempt that costs nothing: the runs are not to blame
    GIVE_UP = auto()  # its runs have failed; the others go on
    END = auto()  # the drive ends with the error: no run could do better


# The first row that fits decides. A process that died (out of memory, killed) fits the last one.
REASONS: tuple[tuple[type[BaseException], Decision], ...] = (
    # Asked to stop from outside, such as a node that is taken away; to charge it would fail long runs.
    (StudyInterrupted, Decision.RETRY_FREE),
    # The task cannot be built; it would raise again.
    (TaskError, Decision.GIVE_UP),
    # Another drive has taken the runs over: to claim them back would never end.
    (Superseded, Decision.END),
    # The same for every attempt, and what would follow is not what was declared.
    (SeedError, Decision.END),
    (EnvironmentChanged, Decision.END),
    # One file of one pack: a smaller pack may not need it.
    (AlreadyExists, Decision.RETRY),
    (NotFound, Decision.RETRY),
    (Corrupt, Decision.RETRY),
    # A full disk, a foreign store, a spec that was changed: the same for every run.
    (StoreError, Decision.END),
    (BaseException, Decision.RETRY),
)


def decide(error: BaseException, losses: int, retries: int) -> Decision:
    """Return what to do with a run that lost its pack to `error`, for the `losses`-th time with this one."""
    decision = next(decision for reason, decision in REASONS if isinstance(error, reason))
    if decision is Decision.RETRY and losses > retries:
        return Decision.GIVE_UP
    return decision


def parts(width: int, losses: int, retries: int) -> int:
    """Return into how many packs the runs of a lost pack go for their next attempt.

    The first retry keeps the pack: most losses are the machine's. Later ones halve it, and the last one gives
    each run a process of its own, so that a run that kills its process takes no neighbour down.
    """
    if losses >= retries and losses > 0:
        return width
    return min(2, width) if losses > 1 else 1
