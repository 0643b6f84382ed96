"""Runs become packs that fill the machine: pure, and the same for the same input.

Runs of one condition that go on from one step may train together. How many together (the pack width) and on
how many threads is chosen from timings, measured or assumed, so that the whole study ends earliest: first
the most run-steps per second, then packs are split as long as an idle processor would otherwise wait for them.
Packs start longest first (Graham 1969, SIAM J. Appl. Math. 17: at most 4/3 of the best end).

Neither pack width nor threads change a number on a CPU; they are not part of a run's identity.
"""

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, Protocol

from jobs.spec import Condition, Given, SingleSpec
from orchestrator.machine import ANYWHERE, Machine, Needs, Shape

_MOST_PACKS_TO_TUNE = 8  # per processor; with more packs than that the end of a study is too short to matter
_MOST_GROUPS_TO_TUNE = 8
_MEMORY_STEP = 1 << 26
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

    @property
    def memory_bytes(self) -> int:
        """Return the most memory that the pack takes on its device; 0: not known."""

    @property
    def packs_per_gpu(self) -> float:
        """Return how many such packs trained at once on a GPU; 1 on CPUs, a half where a pack takes two GPUs."""


@dataclass(frozen=True, slots=True)
class AssumedTiming:
    """A timing that nobody measured."""

    pack_width: int
    threads: int
    seconds_per_step: float
    memory_bytes: int = 0
    packs_per_gpu: float = 1


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
    needs: Needs = ANYWHERE

    @property
    def key(self) -> str:
        """Return the name of this set of runs; every launch of it adds a number."""
        return hashlib.sha256("\n".join(sorted(self.run_ids)).encode()).hexdigest()[:16]

    @property
    def shape(self) -> Shape:
        """Return what of a machine it takes."""
        return self.threads, self.needs


@dataclass(frozen=True, slots=True)
class _Choice:
    """So many packs of so many threads, each with these needs."""

    packs: int
    threads: int
    needs: Needs


@dataclass(frozen=True, slots=True)
class _Group:
    """Runs that may share a pack, and the choices there are, each with the seconds of its widest pack."""

    condition_id: str
    run_ids: tuple[str, ...]
    choices: Mapping[_Choice, float]
    chosen: _Choice

    def packs(self) -> list[Pack]:
        """Return the packs of the choice, their widths as equal as they can be."""
        chosen, seconds = self.chosen, self.choices[self.chosen]
        cuts = [len(self.run_ids) * part // chosen.packs for part in range(chosen.packs + 1)]
        parts = (self.run_ids[start:end] for start, end in pairwise(cuts))
        return [Pack(self.condition_id, part, chosen.threads, seconds, needs=chosen.needs) for part in parts]


def most_threads(cpus: int) -> int:
    """Return the most threads that one pack may use: a power of two, because weights do not depend on those."""
    return 1 << (cpus.bit_length() - 1)


def cpus_of(engine: SingleSpec) -> int:
    """Return the CPUs that a pack of an engine of single runs takes: each process has its threads."""
    return engine.processes * engine.threads


def assumed_timings(condition: Condition, machine: Machine, nodes: int = 1) -> list[AssumedTiming]:
    """Return timings for a pack that was not measured, in no particular unit of time.

    Assumed: the best pack holds 512 / model width runs, 32 at most; a step costs a quarter of that pack even
    for one run, and grows with layers × width²; n threads make it n^0.6 times faster. A trial of eager
    PyTorch on two cores had best widths 32, 32, 8, 4 at model widths 16, 32, 64, 128.
    """
    model, engine = condition.model, condition.engine
    layers, model_width = (1, 1) if isinstance(model, Given) else (model.layers, model.width)
    per_run = layers * model_width**2 * condition.training.batch_size
    if isinstance(engine, SingleSpec):
        # One run after another: a second one in a pack would take as long as two packs.
        threads, taken = cpus_of(engine), min(cpus_of(engine), machine.most_cpus(nodes))
        return [AssumedTiming(1, taken, per_run / threads, packs_per_gpu=1 / engine.processes)]
    widest = max(1, min(32, 512 // model_width))
    return [
        AssumedTiming(width, threads, (widest / 4 + width) * per_run / threads**0.6)
        for threads in sorted({1, most_threads(machine.most_cpus())})
        for width in sorted({1, widest})
    ]


def pack_runs(
    todo: Sequence[Todo],
    timings: Mapping[str, Sequence[Timing]],
    pack_width: int | Literal["calibrated"],
    machine: Machine,
    needs: Needs = ANYWHERE,
) -> tuple[Pack, ...]:
    """Return the packs for all runs, in the order in which they start.

    No pack has more threads than a node, nor takes more memory than its device has, as far as that is known.

    timings     for each condition id
    pack_width  the most runs in a pack, and then as few packs as possible; `calibrated`: what ends earliest
    needs       of every pack; what memory it takes, and whether it shares a GPU, comes from the timings
    """
    members: dict[tuple[str, int], list[Todo]] = {}
    for run in todo:
        members.setdefault((run.condition_id, run.resumed_step), []).append(run)
    groups = [_group(runs, timings[key[0]], pack_width, machine, needs) for key, runs in members.items()]
    most = _MOST_PACKS_TO_TUNE * machine.side_by_side(1, needs)
    if sum(group.chosen.packs for group in groups) <= most:
        groups = _tuned(groups, machine)
    return _in_order(groups)


def seconds_in_all(packs: Sequence[Pack], machine: Machine) -> float:
    """Return when the last pack ends, if each starts in its turn as soon as it fits and takes what is expected."""
    running: list[tuple[float, int]] = []
    shapes: Counter[Shape] = Counter()
    now = 0.0
    for index, pack in enumerate(packs):
        shapes[pack.shape] += 1
        while running and not machine.fits(shapes):
            now, ended = heapq.heappop(running)
            shapes[packs[ended].shape] -= 1
        heapq.heappush(running, (now + pack.seconds, index))
    return max((end for end, _ in running), default=0.0)


def _group(
    runs: Sequence[Todo],
    timings: Sequence[Timing],
    pack_width: int | Literal["calibrated"],
    machine: Machine,
    needs: Needs,
) -> _Group:
    curves: dict[tuple[int, float], list[Timing]] = {}
    for timing in sorted(timings, key=lambda t: t.pack_width):
        if timing.threads <= machine.most_cpus(needs.nodes):
            curves.setdefault((timing.threads, timing.packs_per_gpu), []).append(timing)
    steps, count = max(run.steps_left for run in runs), len(runs)
    choices: dict[_Choice, float] = {}
    for (threads, per_gpu), curve in curves.items():
        mine = replace(needs, gpu_share=needs.gpu_share / per_gpu)
        most = machine.most_bytes(mine)
        asked = range(1, curve[-1].pack_width + 1) if pack_width == "calibrated" else (min(pack_width, count),)
        # A run alone is planned in any case: smaller there is nothing.
        widths = [width for width in asked if width == 1 or _memory_bytes(curve, width) <= most]
        for width in widths or [_widest(curve, most)]:
            packs = -(-count // width)
            widest = -(-count // packs)
            choice = _Choice(packs, threads, replace(mine, memory_bytes=_reserved(_memory_bytes(curve, widest), most)))
            choices[choice] = machine.start_s + _seconds_per_step(curve, widest) * max(steps, 1)

    def cost(choice: _Choice) -> tuple[float, int, int]:
        at_once = machine.side_by_side(choice.threads, choice.needs)
        return choices[choice] * choice.packs / at_once, choice.packs, -choice.threads

    return _Group(runs[0].condition_id, tuple(run.run_id for run in runs), choices, min(choices, key=cost))


def _widest(curve: Sequence[Timing], most: float) -> int:
    return max((width for width in range(1, curve[-1].pack_width) if _memory_bytes(curve, width) <= most), default=1)


def _reserved(size_bytes: float, most: float) -> int:
    """Return the bytes to reserve: in steps, so that packs of about one size may follow each other in one process."""
    return int(min(math.ceil(size_bytes / _MEMORY_STEP) * _MEMORY_STEP, most))


def _seconds_per_step(curve: Sequence[Timing], width: int) -> float:
    return _at_width([(timing.pack_width, timing.seconds_per_step) for timing in curve], width)


def _memory_bytes(curve: Sequence[Timing], width: int) -> float:
    """Return the memory of a pack; 0 where that of any width that is known is not."""
    known = [(timing.pack_width, float(timing.memory_bytes)) for timing in curve]
    return _at_width(known, width) if all(size for _, size in known) else 0.0


def _at_width(curve: Sequence[tuple[int, float]], width: int) -> float:
    """Return the value at `width`, on straight lines between the widths that are known.

    Below the first known width a pack costs as much as that one; beyond the last, it grows in proportion.
    """
    for (low, at_low), (high, at_high) in pairwise(curve):
        if low <= width <= high:
            return at_low + (width - low) / (high - low) * (at_high - at_low)
    last, at_last = curve[-1]
    return at_last * width / last if width > last else curve[0][1]


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
            if choice.packs <= _MOST_PACKS_TO_TUNE * machine.packs_at_once
        ]
        ends = [seconds_in_all(_in_order(trial), machine) for trial in trials]
        if not ends or min(ends) >= best * _WORTHWHILE:
            return groups
        best = min(ends)
        groups = trials[ends.index(best)]
