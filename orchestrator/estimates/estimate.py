"""What every estimate carries: value, interval, method, and the exact set of runs behind it.

An estimate of one number is an `Estimate`; one of several numbers (a fit, a test, a verdict) is a frozen dataclass
of its own that holds cohort, method, unit and stopping rule, and where it has intervals their level. `plain` turns
either into data that JSON can carry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from enum import Enum
from math import isfinite, isinf
from typing import Any

import numpy as np

from jobs.identity import cohort_digest

FIXED = "fixed number of seeds"


@dataclass(frozen=True, slots=True)
class Cohort:
    """The runs behind an estimate, and what became of those that were launched.

    finished   trained to their last step
    diverged   ended with a loss that was not finite: an outcome, counted as no success
    censored   failed, or not at their end yet: their outcome is not known
    mixed      of the launched: trained in parts under several environments, so that their bytes are not promised
    disputed   of the launched: two attempts measured the same step and did not agree
    """

    digest: str
    launched: int
    finished: int
    diverged: int
    censored: int
    mixed: int = 0
    disputed: int = 0

    @classmethod
    def of(cls, run_ids: Sequence[str], finished: int, diverged: int, mixed: int = 0, disputed: int = 0) -> "Cohort":
        """Return the cohort of these runs, whatever their order."""
        launched = len(run_ids)
        censored = launched - finished - diverged
        return cls(cohort_digest(list(run_ids)), launched, finished, diverged, censored, mixed, disputed)

    @classmethod
    def pooled(cls, cohorts: Sequence["Cohort"]) -> "Cohort":
        """Return the union of disjoint cohorts (the scales of a fit), whatever their order."""
        return cls(
            digest=cohort_digest([cohort.digest for cohort in cohorts]),
            launched=sum(cohort.launched for cohort in cohorts),
            finished=sum(cohort.finished for cohort in cohorts),
            diverged=sum(cohort.diverged for cohort in cohorts),
            censored=sum(cohort.censored for cohort in cohorts),
            mixed=sum(cohort.mixed for cohort in cohorts),
            disputed=sum(cohort.disputed for cohort in cohorts),
        )

    @property
    def warning(self) -> str:
        """Return what a reader must know of these runs beside their number; empty where there is nothing."""
        told = [f"{self.mixed} trained under several environments"] if self.mixed else []
        told += [f"{self.disputed} measured differently by two attempts"] if self.disputed else []
        return f"of {self.launched} runs " + ", ".join(told) if told else ""

    @property
    def known(self) -> int:
        """Return how many outcomes are known: finished and diverged runs."""
        return self.finished + self.diverged


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval.

    low, high      an infinite bound means that the data do not bound the number on that side
    method         the id of estimator and interval
    level          its nominal coverage
    unit           what was resampled or counted: the run, or a group of runs that share something
    stopping_rule  how it was decided how many runs there are
    note           what a reader must know beside the number; empty where there is nothing
    """

    value: float
    low: float
    high: float
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED
    note: str = ""

    @property
    def bounded(self) -> bool:
        """Return whether the data bound the number on both sides."""
        return not (isinf(self.low) or isinf(self.high))

    def as_dict(self) -> dict[str, Any]:
        """Return all fields as plain data; numbers stay as they are, `plain` makes them fit for JSON."""
        return asdict(self)


def under(found: Any, stopping_rule: str) -> Any:
    """Return an answer whose runs were given by a rule: it says so wherever it spoke of a fixed number of seeds."""
    if isinstance(found, Mapping):
        changed: Any = {key: under(value, stopping_rule) for key, value in found.items()}
        return changed if any(changed[key] is not found[key] for key in found) else found
    if isinstance(found, tuple):
        changed = tuple(under(value, stopping_rule) for value in found)
        return changed if any(new is not old for new, old in zip(changed, found, strict=True)) else found
    if not is_dataclass(found) or isinstance(found, type):
        return found
    said = {field.name: getattr(found, field.name) for field in fields(found) if field.init}
    changed = {name: under(value, stopping_rule) for name, value in said.items()}
    if said.get("stopping_rule") == FIXED:
        changed["stopping_rule"] = stopping_rule
    new = {name: value for name, value in changed.items() if value is not said[name]}
    return replace(found, **new) if new else found


def plain(found: Any) -> Any:
    """Return a dataclass, array or tree of them as what JSON can carry; a number that is not finite is null."""
    if is_dataclass(found) and not isinstance(found, type):
        return {field.name: plain(getattr(found, field.name)) for field in fields(found)}
    if isinstance(found, Enum):
        return plain(found.value)
    if isinstance(found, Mapping):
        return {str(plain(key)): plain(value) for key, value in found.items()}
    if isinstance(found, np.ndarray | np.generic):
        return plain(found.tolist())
    if isinstance(found, Sequence) and not isinstance(found, str):
        return [plain(value) for value in found]
    return None if isinstance(found, float) and not isfinite(found) else found
