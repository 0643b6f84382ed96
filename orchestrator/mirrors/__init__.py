"""Mirrors: other trackers that are shown what the store holds. Advisory, and never the truth.

A mirror is fed from committed rows, by a process of its own (`beside.py`): training, the head and the store do not
notice whether a tracker is slow, dead, or never answers. Whatever it did not take is sent later.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class MirroredRun:
    """A run as a tracker is told of it.

    name        readable: its condition and its seeds
    factors     of its condition
    config      its resolved spec, its seeds among it
    first_step  the first step that was not sent before; 0 for a new run
    """

    id: str
    study: str
    condition: str
    name: str
    factors: Mapping[str, Any]
    seeds: Mapping[str, int]
    config: Mapping[str, Any]
    first_step: int


class Mirror(Protocol):
    """A tracker; one run at a time. Every method may raise MirrorError, and then the run counts as not sent."""

    def begin(self, run: MirroredRun) -> None:
        """Take up a run, new or known; what an earlier try left of the same steps is gone."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take what was measured at a step, steps ascending."""

    def end(self, status: str) -> None:
        """Return when the tracker has all since `begin`; `status` is how the run stands."""

    def abandon(self) -> None:
        """Leave a run that could not be sent."""

    def close(self) -> None:
        """Let go of the tracker."""


def open_mirror(name: str, folder: Path) -> Mirror:
    """Return the mirror with this name, which keeps files in `folder`; raises MirrorError where it is not installed."""
    if name == "wandb":
        from orchestrator.mirrors.wandb_runs import WandbRuns

        return WandbRuns(folder)
    from orchestrator.mirrors.event_files import EventFiles

    return EventFiles(folder)
