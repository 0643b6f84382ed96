"""What of a Ray that others use, too, is there for one head: what is free, and what its own processes hold.

Ray tells what is free on each node. A process that waits in Ray's queue holds nothing yet, so each is asked where it
is, and counts from its answer on. Figures may be a second old: whoever acts on them looks again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.machine import Shape, part_of


class Places:
    """On which node each process of one head is, as far as it has said so."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._asked: dict[Any, Any] = {}
        self._nodes: dict[Any, list[str]] = {}

    def held(self, shapes: Mapping[Any, Shape]) -> Mapping[str, Counter[str]]:
        """Return for each node how much of each resource the processes hold there, each given with its shape."""
        self._asked = {actor: self._asked.get(actor) or actor.nodes.remote() for actor in shapes}
        self._nodes = {actor: nodes for actor, nodes in self._nodes.items() if actor in shapes}
        self._hear([actor for actor in shapes if actor not in self._nodes])
        held: dict[str, Counter[str]] = {}
        for actor, nodes in self._nodes.items():
            for node in nodes:
                held.setdefault(node, Counter()).update(_resources(part_of(shapes[actor])))
        return held

    def _hear(self, unknown: Iterable[Any]) -> None:
        answers = {self._asked[actor]: actor for actor in unknown}
        if not answers:
            return
        ready, _ = self._ray.wait(list(answers), num_returns=len(answers), timeout=0)
        for answer in ready:
            try:
                self._nodes[answers[answer]] = self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue  # it has died: that it did is told elsewhere


def free_resources(ray: Any) -> Mapping[str, Mapping[str, float]]:
    """Return what is free on each node, by its id; raises what Ray raises where it does not tell."""
    # Ray's public function sums over all nodes.
    found: Mapping[str, Mapping[str, float]] = ray._private.state.available_resources_per_node()  # noqa: SLF001
    return found


def _resources(shape: Shape) -> dict[str, float]:
    threads, needs = shape
    taken = {"CPU": float(threads), "GPU": needs.gpu_share} | dict(needs.resources)
    return taken if needs.gpu_share else taken | {"memory": float(needs.memory_bytes)}
