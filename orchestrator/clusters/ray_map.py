"""Parts of a collection as Ray tasks: the same functions as on threads, so the same bytes.

Tasks find their shards and leave their files through the store, whose address they are given; only what a part is
made from and what it became travels through Ray.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from jobs.errors import ClusterError, SeedbedError

T = TypeVar("T")
R = TypeVar("R")


class RayMap:
    """Carries tasks out on a Ray that was started.

    ray           its module
    memory_bytes  what Ray sets aside for a task, so that no machine gets more of them than it can hold
    """

    def __init__(self, ray: Any, memory_bytes: int = 1 << 29) -> None:
        self._ray, self._memory_bytes = ray, memory_bytes

    def __call__(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterable[R]:
        """Yield what the function gives for each task, in their order; raises its SeedbedError, or ClusterError."""
        remote = self._ray.remote(function).options(num_cpus=1, memory=self._memory_bytes)
        results = [remote.remote(task) for task in tasks]
        try:
            for result in results:
                yield self._ray.get(result)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, SeedbedError) else ClusterError(_first(error)) from error
        except self._ray.exceptions.RayError as lost:
            raise ClusterError(f"a task of the collector was lost: {_first(lost)}") from lost


def _first(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
