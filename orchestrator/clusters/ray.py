"""Packs on Ray: each in a process of its own while it trains; the process is used again for the next.

Ray starts and watches processes and is never asked for a result: what an actor returns is only that it ended.
The embedded Ray listens on this machine, has no dashboard, and keeps token authentication on, with a token that
lives as long as this process and is in no file. On a Ray that runs by itself the processes outlive this one, and the
next head adopts what trains.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from jobs.errors import ClusterError, NodeLost, SeedbedError
from jobs.layout import PackKeys
from jobs.pack import PackRun, SeedProof, get_outcome
from jobs.spec import Condition
from jobs.store import get_record, open_store
from orchestrator.clusters import News
from orchestrator.clusters.inline import available_cpus
from orchestrator.clusters.ray_pool import NAMESPACE, Pool, loss
from orchestrator.clusters.ray_room import Places
from orchestrator.clusters.ray_start import attach_ray, read_nodes, start_ray
from orchestrator.events import PackEnded, PackLost
from orchestrator.machine import ANYWHERE, Machine, Needs, Node, Shape
from orchestrator.packing import Timing

_STOP_GRACE_S = 20.0
_PREPARE_TRIES = 3
_IDLE_S = 30.0  # without a pack that waits for room, after which idle processes go
_START_S = 4.0  # a process that imports torch, on a core that it has to itself


@dataclass(slots=True)
class _Live:
    actor: Any
    result: Any
    store_url: str
    is_adopted: bool = False


class RayCluster:
    """An embedded Ray on this machine, or a running one by its address.

    cpus      how many CPUs it may use; all of the machine's, or of the cluster's, where it is not given
    address   auto, host:port or ray://host:port; empty for an embedded one
    insecure  whether to attach to a Ray without authentication, or with known holes
    """

    def __init__(self, cpus: int = 0, address: str = "", *, insecure: bool = False) -> None:
        self._live: dict[str, _Live] = {}
        self._first: Any = None
        self._first_needs = ANYWHERE
        self._most_cpus, self._attached = cpus, bool(address)
        if address:
            self._ray = attach_ray(address, insecure=insecure)
        else:
            self._ray = start_ray(cpus or available_cpus())
        self._nodes = read_nodes(self._ray)
        if not self._nodes:
            raise ClusterError(f"the Ray at {address or 'this machine'} has no node with CPUs")
        self._pool = Pool(self._ray, time.monotonic, outlives=self._attached)
        self._places, self._waited_at = Places(self._ray), time.monotonic()
        self.machine()

    def machine(self) -> Machine:
        """Return the nodes that Ray has now; raises ClusterError where it does not tell."""
        if self._attached:
            self._nodes = read_nodes(self._ray)
        return self._of(self._nodes)

    def room(self) -> Machine:
        """Return what is free on the nodes, and what processes of this head hold; raises ClusterError."""
        if not self._attached:
            return self.machine()
        return self._of(read_nodes(self._ray, self._places.held(self._pool.shapes)))

    def _of(self, nodes: tuple[Node, ...]) -> Machine:
        cpus = sum(node.cpus for node in nodes)
        cpus = self._pool.cpus = min(self._most_cpus, cpus) if self._most_cpus else cpus
        return Machine(cpus, packs_at_once=cpus, device="cpu", start_s=_START_S, nodes=nodes)

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        """Leave the room of idle processes to others; on an embedded Ray there are none."""
        now = time.monotonic()
        if waiting:
            self._waited_at = now
        # Not at once: the next batch of an adaptive study would pay for new ones.
        if self._attached and (others_first or now - self._waited_at > _IDLE_S):
            self._give_first()
            self._pool.drop_idle()

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        """Measure in an actor that has all CPUs of a node to itself."""
        if self._first is not None and self._first_needs != needs:
            self._give_first()
        self._first_needs = needs
        return list(self._before_packs("measure", store_url, condition, most_runs, threads, seconds, needs))

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        """Draw in the same actor."""
        found: SeedProof = self._before_packs("prove", store_url, condition, runs)
        return found

    def _before_packs(self, method: str, *arguments: Any) -> Any:
        """Call an actor that stays from condition to condition until a pack is launched; raises ClusterError.

        One that ends, such as with its node, is replaced.
        """
        self._pool.hold()
        losses: list[BaseException] = []
        while len(losses) < _PREPARE_TRIES:
            if self._first is None:
                fitting = [node.cpus for node in self._nodes if node.takes(self._first_needs)]
                self._first = self._pool.take(min(max(fitting, default=1), self._pool.cpus), self._first_needs)
            try:
                return self._ray.get(getattr(self._first, method).remote(*arguments))
            except self._ray.exceptions.RayTaskError as error:
                cause = error.cause
                raise cause if isinstance(cause, SeedbedError) else ClusterError(_first_line(error)) from error
            except self._ray.exceptions.RayError as lost:
                losses.append(lost)
                self._pool.drop(self._first)
                self._first = None
                self.machine()
        raise ClusterError(f"the process that prepares the packs ended: {_first_line(losses[-1])}") from losses[-1]

    def _give_first(self) -> None:
        """Let the process that prepared the packs take one, too, if one is of its shape; else it makes room."""
        if self._first is not None:
            self._pool.give(self._first)
            self._first = None

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:
        """Give the pack to an idle process that has what it needs, or to a new one."""
        self._give_first()
        actor = self._pool.take(threads, needs)
        self._live[pack_id] = _Live(actor, actor.run.remote(store_url, pack_id), store_url)

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:
        """Take over the process that the pack's claim names, where Ray still knows it."""
        if pack_id in self._live:
            return True
        name = str(get_record(open_store(store_url), PackKeys(pack_id).claim).get("actor", ""))
        if not name:
            return False
        try:
            actor = self._ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            return False  # it has ended, or Ray has forgotten it
        except self._ray.exceptions.RayError as error:
            raise ClusterError(f"Ray does not tell of {name}: {_first_line(error)}") from error
        self._pool.adopt(actor, threads, needs)
        self._live[pack_id] = _Live(actor, actor.ended.remote(pack_id), store_url, is_adopted=True)
        return True

    def poll(self, timeout_s: float) -> list[News]:
        """Return the news, waiting for the first."""
        self._pool.hold()
        by_result = {live.result: pack_id for pack_id, live in self._live.items()}
        if not by_result:
            threading.Event().wait(timeout_s)
            return []
        done, _ = self._ray.wait(list(by_result), num_returns=1, timeout=timeout_s)
        return [news for result in done for news in self._news(by_result[result])]

    def _news(self, pack_id: str) -> list[News]:
        live = self._live.pop(pack_id)
        try:
            answer = self._ray.get(live.result)
        except self._ray.exceptions.RayError as lost:
            self._pool.drop(live.actor)
            store = open_store(live.store_url)
            if not store.exists(PackKeys(pack_id).claim):
                why = f"the process ended before the pack began: {_first_line(lost)}"
                return [PackLost(pack_id, NodeLost(why))]
            return [PackLost(pack_id, loss(self._ray, lost))]
        has_ended, error = answer if live.is_adopted else (True, answer)
        if not has_ended:
            self._live[pack_id] = replace(live, result=live.actor.ended.remote(pack_id))
            return []
        if isinstance(error, NodeLost):
            self._pool.drop(live.actor)
        else:
            self._pool.give(live.actor)
        if error is not None:
            return [PackLost(pack_id, error)]
        return [PackEnded(pack_id, get_outcome(open_store(live.store_url), pack_id))]

    def stop(self, pack_id: str) -> None:
        """Tell the pack's process to stop."""
        if pack_id in self._live:
            self._live[pack_id].actor.stop.remote(pack_id)

    def kill(self, pack_id: str) -> None:
        """Kill the pack's process, where it can still be reached."""
        live = self._live.pop(pack_id, None)
        if live is not None:
            self._pool.drop(live.actor)

    def close(self) -> None:
        """End what is idle, and leave the rest to the next head; on an embedded Ray, stop every pack and end Ray."""
        if self._attached:
            self._give_first()
            self._pool.drop_idle()
            self._live.clear()
        for pack_id in self._live:
            self.stop(pack_id)
        if self._live:
            results = [live.result for live in self._live.values()]
            self._ray.wait(results, num_returns=len(results), timeout=_STOP_GRACE_S)
            self._live.clear()
        self._ray.shutdown()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
