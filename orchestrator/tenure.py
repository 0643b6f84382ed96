"""The time during which this process has a study: wait for it, keep it by beating, give it back.

Whoever comes second waits and watches. It gets the study when the driver has left, has died or has lapsed; where all
is trained by then, there is nothing more to do, and so it ends with the study.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from jobs.beats import BEAT_S, Clock, Heart
from jobs.errors import StoreError
from jobs.lease import Candidate, Lease, holder, sight
from jobs.store import Store

_LOOK_S = 1.0
Watching = Callable[[Mapping[str, Any]], None]


def watch_silently(driver: Mapping[str, Any]) -> None:
    """Tell nobody who has the study."""


@contextmanager
def tenure(
    store: Store,
    study: str,
    clock: Clock,
    *,
    watching: Watching = watch_silently,
    takeover: bool = False,
    beat_s: float = BEAT_S,
) -> Iterator[Lease]:
    """Yield the lease of the study as soon as it is free, and beat until the end; then release it.

    `watching` is called about once a second with who has the study (host, pid). With `takeover`, it is taken at once.
    """
    candidate = Candidate(store, study, clock)
    lease = candidate.attempt(takeover=takeover)
    pause = threading.Event()
    while lease is None:
        watching(holder(store, study, sight(store, study).epoch))
        pause.wait(_LOOK_S)
        lease = candidate.attempt()
    try:
        with Heart(lease.beat, beat_s):
            yield lease
    finally:
        with suppress(StoreError):  # a full disk: the next driver waits for the lease to lapse
            lease.release()
