"""What a user asks of whoever drives a study, as records in the store: stop.

A request is put under the next number, and a driver honours those that are newer than the ones that were there
when its drive was asked for. So nobody needs to reach the driver, and a request is heard by the drive that it was
meant for, also where it was made before that drive began.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from jobs.errors import StoreError
from jobs.layout import PackKeys
from jobs.numbered import newest, put_next
from jobs.pack import PackRequest
from jobs.store import Store

LOOK_S = 2.0  # between two looks of a driver: one question to the store each


def stop_key(study: str, number: int) -> str:
    """Return the key of the `number`-th request to stop the study."""
    return f"requests/{study}.stop.{number:04d}.json"


def stops(store: Store, study: str) -> int:
    """Return how often it was asked to stop the study so far."""
    return newest(store, partial(stop_key, study))


def request_stop(store: Store, study: str) -> int:
    """Ask whoever drives the study to save checkpoints and leave; returns the number of the request."""
    made = stops(store, study)
    return put_next(store, partial(stop_key, study), lambda number: {"study": study, "stop": number}, made)


@dataclass(slots=True)
class StopWatch:
    """Tells a driver whether it was asked to stop.

    honoured  how many requests were there when the drive was asked for
    clock     seconds that only go forward
    """

    store: Store
    study: str
    honoured: int
    clock: Callable[[], float]
    _next_look: float = float("-inf")
    _asked: bool = False

    def __call__(self) -> bool:
        """Return whether there is a newer request; asks the store every LOOK_S at most."""
        if not self._asked and self.clock() >= self._next_look:
            self._next_look = self.clock() + LOOK_S
            try:
                self._asked = self.store.exists(stop_key(self.study, self.honoured + 1))
            except StoreError:  # a store that does not answer is the driver's trouble, and not a request
                return False
        return self._asked


@dataclass(slots=True)
class Wanted:
    """Tells a pack whether it is still wanted: its head may be gone, and then nobody else tells it.

    Only what two calls in a row have seen counts, so that a head, where there is one, comes first.
    """

    store: Store
    request: PackRequest
    _honoured: int = field(init=False)
    _doubted: bool = False

    def __post_init__(self) -> None:
        self._honoured = stops(self.store, self.request.study) if self.request.study else 0

    def __call__(self) -> bool:
        """Return whether it was neither given up nor its study stopped since; raises what the store raises."""
        keys, study = PackKeys(self.request.pack_id), self.request.study
        doubted = self.store.exists(keys.given_up) or (
            bool(study) and self.store.exists(stop_key(study, self._honoured + 1))
        )
        wanted = not (doubted and self._doubted)
        self._doubted = doubted
        return wanted
