"""Processes on Ray that carry out one pack after another, so that 4 s of importing torch are not paid for each.

A process takes the packs of one number of threads: torch and MKL fix it at their start. A pack that crashes takes its
own process down and no other. Whatever is idle makes room for a process of another shape.

On a Ray that outlives its head, processes do, too (detached actors with a name): they train on, a later head finds
them by the name in a pack's claim, and one that has nothing to do and hears of no head ends by itself.
"""

import os
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from jobs.beats import Clock
from jobs.errors import ClusterError, LeaseLost, NodeLost, OutOfMemory, SeedbedError, StudyInterrupted
from jobs.pack import PackRun, SeedProof
from jobs.spec import Condition
from orchestrator.clusters.inline import measure_here, prove_here
from orchestrator.clusters.ray_group import NodeGroup
from orchestrator.clusters.ray_notice import end, end_soon, hear
from orchestrator.machine import ANYWHERE, Needs, Shape, part_of
from orchestrator.packing import Timing

NAMESPACE = "seedbed"
IDLE_S = 20.0  # without work and without a word of a head, after which a process that could outlive one ends
HOLD_S = 5.0  # between two words of a head to its processes
_RETIRE_S = 2.0
_THREADS = 8  # of an actor: one trains, one hears, and heads that come and go wait for WATCH_S each
_WATCH_S = 20.0


class PackActor:
    """The process of one pack after another. `run` works in one thread, what else is asked is heard in others.

    name    by which later heads find it; empty: it ends with its head
    idle_s  without work or a word of a head, after which it ends
    beside  what it takes of each of so many other nodes, for runs on several
    """

    def __init__(self, name: str = "", idle_s: float = IDLE_S, beside: tuple[int, Mapping[str, Any]] = (0, {})) -> None:
        self._name, self._idle_s = name, idle_s
        self._group = NodeGroup(*beside)
        self._stops: dict[str, threading.Event] = {}
        self._ends: dict[str, SeedbedError | None] = {}
        self._changed = threading.Condition()
        self._busy, self._heard = 0, time.monotonic()
        self._leaves_for = ""
        hear(self.leave, self.nodes)
        if name:
            threading.Thread(target=self._end_when_idle, name="idle", daemon=True).start()

    def run(self, store_url: str, pack_id: str) -> SeedbedError | None:
        """Carry a pack out; returns the error that ended it early, if it was one that Seedbed raises.

        NodeLost where the process was told to leave: it takes no other pack.
        """
        error: SeedbedError | None = ClusterError(f"pack {pack_id} ended by what is no error of Seedbed's")
        with self._working():
            try:
                error = self._run(store_url, pack_id)
            finally:
                with self._changed:
                    self._ends = {pack_id: error}
                    self._changed.notify_all()
        return error

    def _run(self, store_url: str, pack_id: str) -> SeedbedError | None:
        from workers.pack import run_pack

        stop = self._stops.setdefault(pack_id, threading.Event())
        if self._leaves_for:
            stop.set()
        try:
            run_pack(store_url, pack_id, stop, actor=self._name, nodes=self._group.nodes())
        except StudyInterrupted as error:
            return NodeLost(f"told to leave ({self._leaves_for}): {error}") if self._leaves_for else error
        except LeaseLost as error:
            self.leave("its head was replaced")  # and nobody else knows of this process
            return error
        except SeedbedError as error:
            return error
        finally:
            self._stops.pop(pack_id, None)
            if self._leaves_for:
                end_soon()
        return None

    def ended(self, pack_id: str) -> tuple[bool, SeedbedError | None]:
        """Return whether the pack has ended here, waiting a while for it, and what `run` returned then."""
        with self._changed:
            self._changed.wait_for(lambda: pack_id in self._ends, _WATCH_S)
            return pack_id in self._ends, self._ends.get(pack_id)

    def hold(self) -> None:
        """Hear that a head still counts on this process."""
        self._heard = time.monotonic()

    def retire(self) -> None:
        """End, unless there is something to do: a later head may have found it."""
        if not self._busy:
            import ray

            # A signal to itself would be shown to the user as a worker's unexpected death.
            ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    @contextmanager
    def _working(self) -> Iterator[None]:
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self.hold()

    def _end_when_idle(self) -> None:
        pause = threading.Event()
        while self._busy or time.monotonic() - self._heard < self._idle_s:
            pause.wait(min(1.0, self._idle_s))
        if not self.leave("no head has asked for anything"):
            end()

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
        with self._working():
            return measure_here(store_url, condition, most_runs, threads, seconds, needs)

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        """Return what the runs' seeds make, drawn in this process."""
        with self._working():
            return prove_here(store_url, condition, runs)

    def process(self) -> tuple[str, int]:
        """Return the node and the number of this process."""
        import ray

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def nodes(self) -> list[str]:
        """Return the node of this process, and those on which it has others."""
        return [self.process()[0], *self._group.node_ids]


class Pool:
    """The actors of one cluster. `cpus` is what all of them may hold together, as its owner says.

    outlives  whether they outlive this process
    """

    def __init__(self, ray: Any, clock: Clock, *, outlives: bool) -> None:
        self._ray, self._clock, self._outlives, self.cpus = ray, clock, outlives, 0
        self._actors = ray.remote(PackActor)  # once: Ray looks through the code of every class that it is given
        self._held_at = clock()
        self._idle: dict[Shape, list[Any]] = {}
        self._shapes: dict[Any, Shape] = {}

    @property
    def shapes(self) -> Mapping[Any, Shape]:
        """Return the actors, each with what it holds or waits for."""
        return self._shapes

    def take(self, threads: int, needs: Needs = ANYWHERE) -> Any:
        """Return an actor with that many threads, where there is what it needs: an idle one, or a new one."""
        self.hold()
        for shape in sorted(self._idle, key=lambda it: it[1].memory_bytes):
            if self._idle[shape] and _serves(shape, (threads, needs)):
                return self._idle[shape].pop()
        others = [actor for of_shape in self._idle.values() for actor in of_shape]
        # CPUs are counted here; what else is taken, and where, only Ray knows, so that all that is idle makes room.
        while others and (needs != ANYWHERE or sum(taken for taken, _ in self._shapes.values()) + threads > self.cpus):
            self.drop(others.pop())
        here, of_node = part_of((threads, needs))
        environment = {"OMP_NUM_THREADS": str(here), "MKL_NUM_THREADS": str(here), "MKL_CBWR": "AUTO"}
        of_each = {"num_cpus": here} | options_of(of_node)
        options: dict[str, Any] = {"max_restarts": 0, "max_concurrency": _THREADS} | of_each
        name = f"pack-process-{secrets.token_hex(8)}" if self._outlives else ""
        if name:
            options |= {"name": name, "namespace": NAMESPACE, "lifetime": "detached"}
        beside = (needs.nodes - 1, of_each)
        actor = self._actors.options(**options, runtime_env={"env_vars": environment}).remote(name, IDLE_S, beside)
        self._shapes[actor] = threads, needs
        return actor

    def give(self, actor: Any) -> None:
        """Take an actor back that has nothing to do."""
        self._idle.setdefault(self._shapes[actor], []).append(actor)

    def adopt(self, actor: Any, threads: int, needs: Needs) -> None:
        """Count an actor that another head has made."""
        self._shapes[actor] = threads, needs

    def hold(self) -> None:
        """Tell all actors, now and then, that this head is there."""
        silent_s = self._clock() - self._held_at
        if self._outlives and silent_s > HOLD_S:
            if silent_s > IDLE_S / 2:
                self.drop_idle()  # they heard nothing for so long that they may end at any moment, or have
            self._held_at = self._clock()
            for actor in self._shapes:
                actor.hold.remote()

    def drop_idle(self) -> None:
        """End all processes that have nothing to do, and wait a little for it."""
        idle = [actor for of_shape in self._idle.values() for actor in of_shape]
        self._idle.clear()
        for actor in idle:
            del self._shapes[actor]
        if idle:
            self._ray.wait([actor.retire.remote() for actor in idle], num_returns=len(idle), timeout=_RETIRE_S)

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
    # The death of a process is known within a second; where it is not, the node or the network is gone.
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return NodeLost(f"the pack's process cannot be reached: {line}")
    # An actor's death names its cause in words alone.
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in words or "node was terminated" in words:
        return NodeLost(f"the pack's node is gone: {line}")
    if "memory pressure" in words or "out of memory" in words:
        return OutOfMemory(line)
    return ClusterError(f"the pack's process ended: {line}")
