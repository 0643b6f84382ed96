"""What every estimate carries: value, interval, method, and the exact set of runs behind it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.identity import cohort_digest


@dataclass(frozen=True, slots=True)
class Cohort:
    """The runs behind an estimate, and what became of those that were launched.

    finished   trained to their last step
    diverged   ended with a loss that was not finite: an outcome, counted as no success
    censored   failed, or not at their end yet: their outcome is not known
    """

    digest: str
    launched: int
    finished: int
    diverged: int
    censored: int

    @classmethod
    def of(cls, run_ids: Sequence[str], finished: int, diverged: int) -> "Cohort":
        """Return the cohort of these runs, whatever their order."""
        return cls(cohort_digest(list(run_ids)), len(run_ids), finished, diverged, len(run_ids) - finished - diverged)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    method         the interval's name
    level          its nominal coverage
    unit           what was resampled or counted: always the run
    stopping_rule  how it was decided how many runs there are
    """

    value: float
    low: float
    high: float
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = "fixed number of seeds"

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain data."""
        return asdict(self)
