"""What a cluster is made of, and what fits where: pure.

A pack lies on one node. So what counts is not the sum of all CPUs, but how many packs of a kind each node holds:
two nodes with three CPUs each hold two packs of two threads, not three.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from jobs.errors import ClusterError
from jobs.study import ExecutionRule

_USABLE = 0.85  # of a memory: the allocator keeps pieces that nobody uses, and held-out sets come on top


@dataclass(frozen=True, slots=True)
class Needs:
    """What a pack needs beside its threads.

    memory_bytes  of a node, or of its GPU where it trains on one; 0: not known
    gpu_share     1 / packs on a GPU; 0: trains on CPUs
    resources     custom resources of Ray, each with how much of it a pack takes
    labels        a node must have all of them
    """

    memory_bytes: int = 0
    gpu_share: float = 0.0
    resources: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


ANYWHERE = Needs()
Shape = tuple[int, Needs]  # the threads of a pack, and what else it needs


@dataclass(frozen=True, slots=True)
class Node:
    """One machine of a cluster, or what is left of it.

    memory_bytes, gpu_bytes  of the machine, and of each of its GPUs; 0: not known, and then no limit
    """

    cpus: int
    memory_bytes: int = 0
    gpus: float = 0.0
    gpu_bytes: int = 0
    resources: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def takes(self, needs: Needs) -> bool:
        """Return whether a pack with these needs may lie here at all, whatever its size."""
        has = dict(self.resources)
        return (
            set(needs.labels) <= set(self.labels)
            and all(has.get(name, 0.0) >= amount for name, amount in needs.resources)
            and self.gpus >= needs.gpu_share
        )

    def most_bytes(self, needs: Needs) -> float:
        """Return how many bytes one pack with these needs may take here."""
        size = self.gpu_bytes * needs.gpu_share if needs.gpu_share else self.memory_bytes
        return size * _USABLE or math.inf

    def holds(self, shape: Shape) -> int:
        """Return how many packs of the shape train here side by side."""
        threads, needs = shape
        if not self.takes(needs) or needs.memory_bytes > self.most_bytes(needs):
            return 0
        rooms = [self.cpus // threads]
        if needs.gpu_share:
            rooms.append(_times(self.gpus, needs.gpu_share))
        elif needs.memory_bytes and self.memory_bytes:
            rooms.append(int(self.memory_bytes * _USABLE // needs.memory_bytes))
        has = dict(self.resources)
        rooms += [_times(has[name], amount) for name, amount in needs.resources if amount]
        return max(0, min(rooms))

    def without(self, shape: Shape, count: int) -> "Node":
        """Return what is left beside so many packs of the shape."""
        threads, needs = shape
        taken = dict(needs.resources)
        memory = self.memory_bytes
        if memory and not needs.gpu_share:
            memory = max(1, memory - math.ceil(count * needs.memory_bytes / _USABLE))
        return replace(
            self,
            cpus=self.cpus - count * threads,
            memory_bytes=memory,
            gpus=self.gpus - count * needs.gpu_share,
            resources=tuple((name, amount - count * taken.get(name, 0.0)) for name, amount in self.resources),
        )


@dataclass(frozen=True, slots=True)
class Machine:
    """What a cluster offers: CPUs, the most packs at once, the device that a pack trains on, and its nodes.

    start_s  seconds until the process of a pack trains: what makes many small packs dear
    nodes    none: a single one, of which nothing but its CPUs is known
    """

    cpus: int
    packs_at_once: int
    device: str
    start_s: float = 0.0
    nodes: tuple[Node, ...] = ()

    def at_most(self, packs: int | Literal["machine"]) -> "Machine":
        """Return the machine as it is to be filled, with so many packs at once."""
        return self if packs == "machine" else replace(self, packs_at_once=min(packs, self.packs_at_once))

    def offered_to(self, execution: ExecutionRule) -> "Machine":
        """Return the part on which a study's packs may train: no CPUs where no node will do."""
        needs = needs_of(execution)
        if needs == ANYWHERE:
            return self.at_most(execution.packs_at_once)
        nodes = tuple(node for node in self.places() if node.takes(needs))
        cpus = min(self.cpus, sum(node.cpus for node in nodes))
        at_once = min(self.packs_at_once, cpus)
        part = replace(self, cpus=cpus, packs_at_once=at_once, device=execution.device, nodes=nodes)
        return part.at_most(execution.packs_at_once)

    def places(self) -> tuple[Node, ...]:
        """Return the nodes."""
        return self.nodes or (Node(self.cpus),)

    def most_cpus(self) -> int:
        """Return the most threads that one pack may have: a pack lies on one node."""
        return min(self.cpus, max(node.cpus for node in self.places()))

    def most_bytes(self, needs: Needs) -> float:
        """Return how many bytes a pack with these needs may take on the node that offers most."""
        return max((node.most_bytes(needs) for node in self.places() if node.takes(needs)), default=math.inf)

    def side_by_side(self, threads: int, needs: Needs = ANYWHERE) -> int:
        """Return how many packs with that many threads train at once; one at least."""
        on_nodes = sum(node.holds((threads, needs)) for node in self.places())
        return max(1, min(self.cpus // threads, self.packs_at_once, on_nodes))

    def fits(self, shapes: Mapping[Shape, int]) -> bool:
        """Return whether so many packs of each shape train at once: the largest first, each where there is room."""
        if sum(shapes.values()) > self.packs_at_once:
            return False
        if sum(threads * count for (threads, _), count in shapes.items()) > self.cpus:
            return False
        if not self.nodes:
            return True
        free = list(self.nodes)
        for shape, count in sorted(shapes.items(), key=lambda item: _size(item[0]), reverse=True):
            left = count
            for index, node in enumerate(free):
                here = min(left, node.holds(shape))
                if here:
                    free[index] = node.without(shape, here)
                    left -= here
            if left:
                return False
        return True


def needs_of(execution: ExecutionRule) -> Needs:
    """Return what every pack of a study needs, as far as its file says."""
    return Needs(
        gpu_share=1.0 if execution.device == "cuda" else 0.0,
        resources=tuple(sorted(execution.resources.items())),
        labels=tuple(sorted(execution.labels.items())),
    )


def check_offer(offered: Machine, execution: ExecutionRule) -> None:
    """Raise ClusterError where no node is what the study asks for."""
    if offered.cpus == 0 and needs_of(execution) != ANYWHERE:
        asked = [f"device {execution.device}"] if execution.device != "cpu" else []
        asked += [f"{amount:g} of {name}" for name, amount in sorted(execution.resources.items())]
        asked += [f"label {name}={value}" for name, value in sorted(execution.labels.items())]
        raise ClusterError(
            f"no node of the cluster has {', '.join(asked)}: see `execution` in the study file, and `ray status`"
        )


def _times(room: float, part: float) -> int:
    """Return how often a part goes into a room; a third goes into one three times."""
    return int(room / part + 1e-6)


def _size(shape: Shape) -> tuple[float, int, int, str]:
    threads, needs = shape
    return needs.gpu_share, threads, needs.memory_bytes, str((needs.resources, needs.labels))
