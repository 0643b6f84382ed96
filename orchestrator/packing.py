"""Runs become packs that fill the machine: pure, and the same for the same input.

Runs of one condition that go on from one step may train together. How many together (the pack width) and on
how many threads is chosen from timings, measured or assumed, so that the whole study ends earliest: first
the most run-steps per second, then packs are split as long as an idle processor would otherwise wait for them.
Packs start longest first (Graham 1969, SIAM J. Appl. Math. 17: at most 4/3 of the best end).

Neither pack width nor threads change a number on a CPU; they are not part of a run's identity.
"""

import hashlib
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Protocol

from jobs.spec import Condition

_MOST_PACKS_TO_TUNE = 8  # per processor; with more packs than that the end of a study is too short to matter
_MOST_GROUPS_TO_TUNE = 8
_WORTHWHILE = 0.99  # a split is kept if it ends the study in less than this part of the time


class Timing(Protocol):
    """How long one step of a pack takes, measured or assumed."""

    @property
    def pack_width(self) -> int:
        """Return the number of runs in the pack."""

    @property
    def threads(self) -> int:
        """Return the number of CPU threads."""

    @property
    def seconds_per_step(self) -> float:
        """Return the seconds that one step of all runs takes; any unit will do if all timings share it."""


@dataclass(frozen=True, slots=True)
class AssumedTiming:
    """A timing that nobody measured."""

    pack_width: int
    threads: int
    seconds_per_step: float


@dataclass(frozen=True, slots=True)
class Machine:
    """What a cluster offers: CPUs, the most packs at once, and the device that a pack trains on.

    start_s  seconds until the process of a pack trains: what makes many small packs dear
    """

    cpus: int
    packs_at_once: int
    device: str
    start_s: float = 0.0

    def at_most(self, packs: int | Literal["machine"]) -> "Machine":
        """Return the machine as it is to be filled, with so many packs at once."""
        return self if packs == "machine" else replace(self, packs_at_once=min(packs, self.packs_at_once))

    def side_by_side(self, threads: int) -> int:
        """Return how many packs with that many threads train at once."""
        return max(1, min(self.cpus // threads, self.packs_at_once))


@dataclass(frozen=True, slots=True)
class Todo:
    """A run that is to be trained: from the checkpoint at `resumed_step` (FRESH: from nothing), for `steps_left`."""

    run_id: str
    condition_id: str
    resumed_step: int
    steps_left: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Runs that train together. `seconds` is what the timings say it takes; `pause_s` comes before its launch."""

    condition_id: str
    run_ids: tuple[str, ...]
    threads: int
    seconds: float
    pause_s: float = 0.0

    @property
    def key(self) -> str:
        """Return the name of this set of runs; every launch of it adds a number."""
        return hashlib.sha256("\n".join(sorted(self.run_ids)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class _Group:
    """Runs that may share a pack, and the choices there are: (number of packs, threads) → seconds of the widest."""

    condition_id: str
    run_ids: tuple[str, ...]
    choices: Mapping[tuple[int, int], float]
    chosen: tuple[int, int]

    def packs(self) -> list[Pack]:
        """Return the packs of the choice, their widths as equal as they can be."""
        count, threads = self.chosen
        cuts = [len(self.run_ids) * part // count for part in range(count + 1)]
        parts = (self.run_ids[start:end] for start, end in pairwise(cuts))
        return [Pack(self.condition_id, part, threads, self.choices[self.chosen]) for part in parts]


def most_threads(cpus: int) -> int:
    """Return the most threads that one pack may use: a power of two, because weights do not depend on those."""
    return 1 << (cpus.bit_length() - 1)


def assumed_timings(condition: Condition, machine: Machine) -> list[AssumedTiming]:
    """Return timings for a pack that was not measured, in no particular unit of time.

    Assumed: the best pack holds 512 / model width runs, 32 at most; a step costs a quarter of that pack even
    for one run, and grows with layers × width²; n threads make it n^0.6 times faster. A trial of eager
    PyTorch on two cores had best widths 32, 32, 8, 4 at model widths 16, 32, 64, 128.
    """
    model = condition.model
    widest = max(1, min(32, 512 // model.width))
    per_run = model.layers * model.width**2 * condition.training.batch_size
    return [
        AssumedTiming(width, threads, (widest / 4 + width) * per_run / threads**0.6)
        for threads in sorted({1, most_threads(machine.cpus)})
        for width in sorted({1, widest})
    ]


def pack_runs(
    todo: Sequence[Todo],
    timings: Mapping[str, Sequence[Timing]],
    pack_width: int | Literal["calibrated"],
    machine: Machine,
) -> tuple[Pack, ...]:
    """Return the packs for all runs, in the order in which they start.

    timings     for each condition id
    pack_width  the most runs in a pack, and then as few packs as possible; `calibrated`: what ends earliest
    """
    members: dict[tuple[str, int], list[Todo]] = {}
    for run in todo:
        members.setdefault((run.condition_id, run.resumed_step), []).append(run)
    groups = [_group(runs, timings[key[0]], pack_width, machine) for key, runs in members.items()]
    most = _MOST_PACKS_TO_TUNE * machine.side_by_side(1)
    if sum(group.chosen[0] for group in groups) <= most:
        groups = _tuned(groups, machine)
    return _in_order(groups)


def seconds_in_all(packs: Sequence[Pack], machine: Machine) -> float:
    """Return when the last pack ends, if each starts in its turn as soon as it fits and takes what is expected."""
    running: list[tuple[float, int]] = []
    now, free = 0.0, machine.cpus
    for pack in packs:
        while running and (free < pack.threads or len(running) >= machine.packs_at_once):
            now, threads = heapq.heappop(running)
            free += threads
        heapq.heappush(running, (now + pack.seconds, pack.threads))
        free -= pack.threads
    return max((end for end, _ in running), default=0.0)


def _group(
    runs: Sequence[Todo], timings: Sequence[Timing], pack_width: int | Literal["calibrated"], machine: Machine
) -> _Group:
    by_threads: dict[int, list[Timing]] = {}
    for timing in sorted(timings, key=lambda t: t.pack_width):
        if timing.threads <= machine.cpus:
            by_threads.setdefault(timing.threads, []).append(timing)
    steps, count = max(run.steps_left for run in runs), len(runs)
    choices: dict[tuple[int, int], float] = {}
    for threads, curve in by_threads.items():
        widths = range(1, curve[-1].pack_width + 1) if pack_width == "calibrated" else (pack_width,)
        for width in widths:
            packs = -(-count // width)
            seconds = _seconds_per_step(curve, -(-count // packs)) * max(steps, 1)
            choices[packs, threads] = machine.start_s + seconds

    def cost(choice: tuple[int, int]) -> tuple[float, int, int]:
        packs, threads = choice
        return choices[choice] * packs / machine.side_by_side(threads), packs, -threads

    return _Group(runs[0].condition_id, tuple(run.run_id for run in runs), choices, min(choices, key=cost))


def _seconds_per_step(curve: Sequence[Timing], width: int) -> float:
    """Return the time of a step at `width`, on straight lines between the widths that are known.

    Below the first known width a pack costs as much as that one; beyond the last, the time grows in proportion.
    """
    for low, high in pairwise(curve):
        if low.pack_width <= width <= high.pack_width:
            part = (width - low.pack_width) / (high.pack_width - low.pack_width)
            return low.seconds_per_step + part * (high.seconds_per_step - low.seconds_per_step)
    last = curve[-1]
    return last.seconds_per_step * width / last.pack_width if width > last.pack_width else curve[0].seconds_per_step


def _in_order(groups: Sequence[_Group]) -> tuple[Pack, ...]:
    return tuple(sorted((pack for group in groups for pack in group.packs()), key=lambda pack: -pack.seconds))


def _tuned(groups: list[_Group], machine: Machine) -> list[_Group]:
    """Change one group's choice at a time, always for the earliest end, until nothing ends it much earlier."""
    best = seconds_in_all(_in_order(groups), machine)
    while True:
        longest = sorted(range(len(groups)), key=lambda index: -groups[index].choices[groups[index].chosen])
        trials = [
            [*groups[:index], replace(groups[index], chosen=choice), *groups[index + 1 :]]
            for index in longest[:_MOST_GROUPS_TO_TUNE]
            for choice in groups[index].choices
            if choice[0] <= _MOST_PACKS_TO_TUNE * machine.packs_at_once
        ]
        ends = [seconds_in_all(_in_order(trial), machine) for trial in trials]
        if not ends or min(ends) >= best * _WORTHWHILE:
            return groups
        best = min(ends)
        groups = trials[ends.index(best)]
