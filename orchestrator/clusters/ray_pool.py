"""Processes on Ray that carry out one pack after another, so that 4 s of importing torch are not paid for each.

A process takes the packs of one number of threads: torch and MKL fix it at their start. A pack that crashes takes its
own process down and no other. Whatever is idle makes room for a process of another shape.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jobs.errors import ClusterError, NodeLost, OutOfMemory, SeedbedError, StudyInterrupted
from jobs.pack import PackRun, SeedProof
from jobs.spec import Condition
from orchestrator.clusters.inline import measure_here, prove_here
from orchestrator.clusters.ray_notice import end_soon, hear
from orchestrator.machine import ANYWHERE, Needs, Shape
from orchestrator.packing import Timing


class PackActor:
    """The process of one pack after another. `run` works in one thread, `stop` is heard in another."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}
        self._leaves_for = ""
        hear(self.leave)

    def run(self, store_url: str, pack_id: str) -> SeedbedError | None:
        """Carry a pack out; returns the error that ended it early, if it was one that Seedbed raises.

        NodeLost where the process was told to leave: it takes no other pack.
        """
        from workers.pack import run_pack

        stop = self._stops.setdefault(pack_id, threading.Event())
        if self._leaves_for:
            stop.set()
        try:
            run_pack(store_url, pack_id, stop)
        except StudyInterrupted as error:
            return NodeLost(f"told to leave ({self._leaves_for}): {error}") if self._leaves_for else error
        except SeedbedError as error:
            return error
        finally:
            self._stops.pop(pack_id, None)
            if self._leaves_for:
                end_soon()
        return None

    def leave(self, why: str) -> bool:
        """Let the pack save a checkpoint and end, and take no other; returns whether there is one."""
        self._leaves_for = self._leaves_for or why
        for stop in tuple(self._stops.values()):
            stop.set()
        return bool(self._stops)

    def stop(self, pack_id: str) -> None:
        """Let a pack save a checkpoint and end; it may not have begun."""
        self._stops.setdefault(pack_id, threading.Event()).set()

    def measure(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs,
    ) -> list[Timing]:
        """Return timings of a condition in this process."""
        return measure_here(store_url, condition, most_runs, threads, seconds, needs)

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        """Return what the runs' seeds make, drawn in this process."""
        return prove_here(store_url, condition, runs)

    def process(self) -> tuple[str, int]:
        """Return the node and the number of this process."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()


class Pool:
    """The actors of one cluster. `cpus` is what all of them may hold together, as its owner says."""

    def __init__(self, ray: Any) -> None:
        self._ray, self.cpus = ray, 0
        self._idle: dict[Shape, list[Any]] = {}
        self._shapes: dict[Any, Shape] = {}

    def take(self, threads: int, needs: Needs = ANYWHERE) -> Any:
        """Return an actor with that many threads, where there is what it needs: an idle one, or a new one."""
        for shape in sorted(self._idle, key=lambda it: it[1].memory_bytes):
            if self._idle[shape] and _serves(shape, (threads, needs)):
                return self._idle[shape].pop()
        others = [actor for of_shape in self._idle.values() for actor in of_shape]
        # CPUs are counted here; what else is taken, and where, only Ray knows, so that all that is idle makes room.
        while others and (needs != ANYWHERE or sum(taken for taken, _ in self._shapes.values()) + threads > self.cpus):
            self.drop(others.pop())
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "MKL_CBWR": "AUTO"}
        options = {"num_cpus": threads, "max_restarts": 0, "max_concurrency": 2} | options_of(needs)
        actor = self._ray.remote(PackActor).options(**options, runtime_env={"env_vars": environment}).remote()
        self._shapes[actor] = threads, needs
        return actor

    def give(self, actor: Any) -> None:
        """Take an actor back that has nothing to do."""
        self._idle.setdefault(self._shapes[actor], []).append(actor)

    def drop(self, actor: Any) -> None:
        """End an actor's process, if it can still be reached."""
        shape = self._shapes.pop(actor, None)
        if shape is not None and actor in self._idle.get(shape, []):
            self._idle[shape].remove(actor)
        self._ray.kill(actor)


def _serves(has: Shape, asked: Shape) -> bool:
    """Return whether a process of one shape may take a pack of another: more memory than it needs does no harm."""
    (threads, needs), (_, wanted) = has, asked
    enough = needs.memory_bytes >= wanted.memory_bytes
    return enough and (threads, replace(needs, memory_bytes=wanted.memory_bytes)) == asked


def options_of(needs: Needs) -> dict[str, Any]:
    """Return what Ray is asked for beside CPUs, so that it puts an actor where there is what it needs."""
    options: dict[str, Any] = {}
    if needs.gpu_share:
        options["num_gpus"] = needs.gpu_share
    elif needs.memory_bytes:
        options["memory"] = needs.memory_bytes
    if needs.resources:
        options["resources"] = dict(needs.resources)
    if needs.labels:
        options["label_selector"] = dict(needs.labels)
    return options


def loss(ray: Any, error: BaseException) -> SeedbedError:
    """Return what an error of Ray means for the pack: its node, its memory, or its process."""
    line = str(error).strip().partition("\n")[0]
    words = str(error).lower()
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return OutOfMemory(line)
    # An actor's death names its cause in words alone.
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in words or "node was terminated" in words:
        return NodeLost(f"the pack's node is gone: {line}")
    if "memory pressure" in words or "out of memory" in words:
        return OutOfMemory(line)
    return ClusterError(f"the pack's process ended: {line}")
