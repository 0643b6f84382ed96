"""What a cluster is made of, and what fits where: pure.

A pack lies on one node, or in equal parts on several. So what counts is not the sum of all CPUs, but how many packs of
a kind each node holds: two nodes with three CPUs each hold two packs of two threads, not three.
"""

import math
from collections.abc import Mapping, Sequence
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
    nodes         on which it lies in equal parts; custom resources are taken on each of them
    """

    memory_bytes: int = 0
    gpu_share: float = 0.0
    resources: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    nodes: int = 1


ANYWHERE = Needs()
Shape = tuple[int, Needs]  # the threads of a pack, and what else it needs


def part_of(shape: Shape) -> Shape:
    """Return what a pack takes of each of its nodes."""
    threads, needs = shape
    count = needs.nodes
    if count == 1:
        return shape
    memory = -(-needs.memory_bytes // count)
    return -(-threads // count), replace(needs, nodes=1, memory_bytes=memory, gpu_share=needs.gpu_share / count)


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
        """Return how many packs of the shape, which lie on one node, train here side by side."""
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

    def most_cpus(self, nodes: int = 1) -> int:
        """Return the most threads that one pack may have which lies on so many nodes."""
        if not self.nodes:
            return self.cpus
        sizes = sorted((node.cpus for node in self.nodes), reverse=True)
        return min(self.cpus, nodes * sizes[min(nodes, len(sizes)) - 1])

    def most_bytes(self, needs: Needs) -> float:
        """Return how many bytes a pack with these needs may take on the nodes that offer most."""
        _, part = part_of((0, needs))
        most = max((node.most_bytes(part) for node in self.places() if node.takes(part)), default=math.inf)
        return most * needs.nodes

    def side_by_side(self, threads: int, needs: Needs = ANYWHERE) -> int:
        """Return how many packs with that many threads train at once; one at least."""
        if not self.nodes:  # one machine, of which nothing more is known: a pack lies on it as a whole
            needs = replace(needs, nodes=1)
        rooms = [node.holds(part_of((threads, needs))) for node in self.places()]
        return max(1, min(self.cpus // threads, self.packs_at_once, _spread(rooms, needs.nodes)))

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
            placed = _beside(free, shape, count) if shape[1].nodes == 1 else _across(free, shape, count)
            if not placed:
                return False
        return True


def _beside(free: list[Node], shape: Shape, left: int) -> bool:
    """Take the room of so many packs, each on one node; returns whether it was there."""
    for index, node in enumerate(free):
        here = min(left, node.holds(shape))
        if here:
            free[index] = node.without(shape, here)
            left -= here
    return left == 0


def _across(free: list[Node], shape: Shape, count: int) -> bool:
    """Take the room of so many packs, each on several nodes, where there is most; returns whether it was there."""
    part, nodes = part_of(shape), shape[1].nodes
    for _ in range(count):
        rooms = [node.holds(part) for node in free]
        chosen = sorted(range(len(free)), key=lambda index: -rooms[index])[:nodes]
        if len(chosen) < nodes or not all(rooms[index] for index in chosen):
            return False
        for index in chosen:
            free[index] = free[index].without(part, 1)
    return True


def _spread(rooms: Sequence[int], nodes: int) -> int:
    """Return how many packs train at once that take one of the rooms of each of so many nodes."""
    return max(at_once for at_once in range(sum(rooms) // nodes + 1) if _serve(rooms, at_once) >= at_once * nodes)


def _serve(rooms: Sequence[int], packs: int) -> int:
    return sum(min(room, packs) for room in rooms)


def needs_of(execution: ExecutionRule) -> Needs:
    """Return what every pack of a study needs, as far as its file says."""
    return Needs(
        gpu_share=1.0 if execution.device == "cuda" else 0.0,
        resources=tuple(sorted(execution.resources.items())),
        labels=tuple(sorted(execution.labels.items())),
        nodes=execution.nodes,
    )


def check_offer(offered: Machine, execution: ExecutionRule) -> None:
    """Raise ClusterError where no node is what the study asks for."""
    if offered.cpus == 0 and needs_of(execution) != ANYWHERE:
        asked = [f"device {execution.device}"] if execution.device != "cpu" else []
        asked += [f"{amount:g} of {name}" for name, amount in sorted(execution.resources.items())]
        asked += [f"label {name}={value}" for name, value in sorted(execution.labels.items())]
        asked += [f"{execution.nodes} nodes"] if execution.nodes > 1 else []
        raise ClusterError(
            f"no node of the cluster has {', '.join(asked)}: see `execution` in the study file, and `ray status`"
        )


def _times(room: float, part: float) -> int:
    """Return how often a part goes into a room; a third goes into one three times."""
    return int(room / part + 1e-6)


def _size(shape: Shape) -> tuple[int, float, int, int, str]:
    threads, needs = shape
    return needs.nodes, needs.gpu_share, threads, needs.memory_bytes, str((needs.resources, needs.labels))
