"""Several nodes for one run: a placement group of the pack's process, with a process on each other node.

The group and its processes belong to the process of the pack, and end with it, however it ends: Ray removes what a dead
actor has made, and a run's own processes end when the input closes that this one holds. What a node offers beside CPUs
is asked for on each of them; Ray sets the mask of GPUs there.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import NodeLost
from workers.host import ALONE, Ended, Here, Nodes

_PLACED_S = 60.0  # until there is room on other nodes; then the first one is given back, for another group
_REACHED_S = 60.0  # for an answer of a process of the group
_LOOK_S = 0.05
_WATCH_S = 20.0
_THREADS = 4  # one waits for news, while others start and end
_OF_NODE = "ray.io/node-id"


class HostActor:
    """The process on another node that starts a run's processes there."""

    def __init__(self) -> None:
        self._here = Here()

    def node_id(self) -> str:
        """Return its node."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def start(self, asked: str, ranks: Sequence[int], threads: int) -> None:
        """Start processes."""
        self._here.start(asked, ranks, threads)

    def are_ready(self) -> bool:
        """Return whether all have said that they are there."""
        return self._here.are_ready()

    def ended(self) -> Ended | None:
        """Return the first process that has ended, waiting a while for one."""
        pause = threading.Event()
        for _ in range(int(_WATCH_S / _LOOK_S)):
            if (found := self._here.ended()) is not None:
                return found
            pause.wait(_LOOK_S)
        return None

    def end(self, wait_s: float) -> None:
        """End all processes."""
        self._here.end(wait_s)


class _RayHost:
    """A host by its actor; what it was told to look at is heard without waiting, for it is asked at every step."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor
        self._news: Any = None

    def start(self, asked: str, ranks: Sequence[int], threads: int) -> None:
        self._answer(self._actor.start.remote(asked, list(ranks), threads))
        self._news = self._actor.ended.remote()

    def are_ready(self) -> bool:
        return bool(self._answer(self._actor.are_ready.remote()))

    def ended(self) -> Ended | None:
        if self._news is None or not self._ray.wait([self._news], timeout=0)[0]:
            return None
        found: Ended | None = self._answer(self._news)
        if found is None:
            self._news = self._actor.ended.remote()
        return found

    def end(self, wait_s: float) -> None:
        self._news = None
        try:
            self._ray.get(self._actor.end.remote(wait_s), timeout=wait_s + _REACHED_S)
        except self._ray.exceptions.RayError:
            return  # it ends with its processes, or has ended

    def _answer(self, asked: Any) -> Any:
        try:
            return self._ray.get(asked, timeout=_REACHED_S)
        except self._ray.exceptions.RayError as error:
            line = str(error).strip().partition("\n")[0]
            raise NodeLost(f"a node of the pack's cannot be reached: {line}") from error


class NodeGroup:
    """So many nodes beside this process's own, and what it takes of each; none for runs on one node.

    Raises NodeLost where there is no room on others.
    """

    def __init__(self, count: int, options: Mapping[str, Any]) -> None:
        self.node_ids: list[str] = []
        self._hosts: list[_RayHost] = []
        self._address = ""
        if count:
            self._place(count, dict(options))

    def _place(self, count: int, options: dict[str, Any]) -> None:
        import ray
        from ray.util import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        own = ray.get_runtime_context().get_node_id()
        labels = {**options.pop("label_selector", {}), _OF_NODE: f"!{own}"}
        group = placement_group([_bundle(options)] * count, "STRICT_SPREAD", bundle_label_selector=[labels] * count)
        if not group.wait(_PLACED_S):
            raise NodeLost(f"there was no room on {count} other nodes for {_PLACED_S:.0f} s")
        actors: list[Any] = [
            ray.remote(HostActor)
            .options(
                **options,
                max_concurrency=_THREADS,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            )
            .remote()
            for index in range(count)
        ]
        self.node_ids = ray.get([actor.node_id.remote() for actor in actors])
        self._hosts = [_RayHost(ray, actor) for actor in actors]
        self._address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]

    def nodes(self) -> Nodes:
        """Return the other nodes, as a pack sees them."""
        return Nodes(self._hosts, self._address) if self._hosts else ALONE


def _bundle(options: Mapping[str, Any]) -> dict[str, float]:
    """Return the resources of an actor's options as those of a bundle."""
    names = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    found = {names[name]: float(options[name]) for name in names if options.get(name)}
    return found | dict(options.get("resources", {}))
