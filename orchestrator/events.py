"""What happened and what shall be done: the words that the state machine and the driver exchange.

Events say in the past tense what happened, commands in the imperative what to do. Both are plain data. Every one
of them may be told twice, late, or not at all: the machine counts and ignores what no longer fits, and every
command may be carried out again.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.pack import PackOutcome
from jobs.records import Status
from orchestrator.machine import Machine
from orchestrator.packing import Pack
from orchestrator.policy import Budgets


@dataclass(frozen=True, slots=True)
class RunState:
    """Where one run stands.

    step         the step it ended at, or from which it goes on (-1: from nothing)
    crashes      how often in this drive it lost its pack and was charged with it
    preemptions  how often it lost its pack to something outside: a node, a signal, the store
    reason       why it failed or diverged; else empty
    """

    status: Status
    step: int
    crashes: int = 0
    preemptions: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LivePack:
    """A pack that is on the cluster; `pack_id` is empty until its launch was confirmed."""

    pack: Pack
    pack_id: str = ""


@dataclass(frozen=True, slots=True)
class StudyOpened:
    """The store was read: where every declared run stands, the packs to train, and those that train already."""

    runs: Mapping[str, RunState]
    packs: tuple[Pack, ...]
    machine: Machine
    budgets: Budgets
    live: tuple[LivePack, ...] = ()


@dataclass(frozen=True, slots=True)
class RunsAdded:
    """More runs were declared, such as the next seeds of an adaptive study; none of them is known yet."""

    runs: Mapping[str, RunState]
    packs: tuple[Pack, ...]


@dataclass(frozen=True, slots=True)
class PackLaunched:
    """The cluster took a pack."""

    key: str
    pack_id: str


@dataclass(frozen=True, slots=True)
class PackEnded:
    """A pack said how its runs ended.

    steps  of runs that it left open (another head had given it up): the step from which each goes on
    """

    pack_id: str
    outcome: PackOutcome
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PackLost:
    """A pack's process ended without an outcome, or was given up.

    steps  the step from which each of its runs can go on, as the store has it
    """

    pack_id: str
    error: BaseException
    steps: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MachineChanged:
    """Nodes came or went."""

    machine: Machine


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Somebody wants the study to stop, such as by Ctrl-C."""


@dataclass(frozen=True, slots=True)
class DriverReplaced:
    """Another driver has the study now; what is live is its to watch."""

    error: BaseException


Event = StudyOpened | RunsAdded | PackLaunched | PackEnded | PackLost | MachineChanged | StopRequested | DriverReplaced


@dataclass(frozen=True, slots=True)
class LaunchPack:
    """Ask the cluster to train these runs, after a pause."""

    pack: Pack
    device: str
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class AdoptPack:
    """Take over a pack that an earlier driver launched, and that trains on."""

    pack: Pack
    pack_id: str


@dataclass(frozen=True, slots=True)
class StopPack:
    """Ask a pack to save a checkpoint and end."""

    pack_id: str


@dataclass(frozen=True, slots=True)
class KillPack:
    """End what is left of a pack that was given up; whatever it still writes does not count."""

    pack_id: str


@dataclass(frozen=True, slots=True)
class RecordLoss:
    """Write into the store that `failed` of a lost pack have failed, and why; the rest of it goes on elsewhere."""

    pack_id: str
    failed: tuple[str, ...]
    run_ids: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Nothing is left to do."""


Command = LaunchPack | AdoptPack | StopPack | KillPack | RecordLoss | Finish


def line(event: Event) -> str:
    """Return an event as one line of a story."""
    match event:
        case StudyOpened():
            return f"StudyOpened with {len(event.runs)} runs in {len(event.packs)} packs, {len(event.live)} live"
        case RunsAdded():
            return f"RunsAdded: {len(event.runs)} runs in {len(event.packs)} packs"
        case PackLaunched():
            return f"PackLaunched {event.pack_id}"
        case PackEnded():
            counts = Counter(str(run.status) for run in event.outcome.runs)
            return f"PackEnded {event.pack_id}: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
        case PackLost():
            return f"PackLost {event.pack_id}: {type(event.error).__name__}: {event.error}"
        case MachineChanged():
            return f"MachineChanged: {event.machine.cpus} CPUs, {event.machine.packs_at_once} packs at once"
        case StopRequested():
            return "StopRequested"
        case DriverReplaced():
            return f"DriverReplaced: {event.error}"
