"""Drive a study from here: take its lease, prepare, and let the driver turn until all is done.

The loop waits, hears Ctrl-C and what Slurm sends, and shows; what is done in a turn is in `driver.py`.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobs.beats import Clock
from jobs.errors import StudyInterrupted
from jobs.lease import Lease
from jobs.store import Store
from jobs.study import Study
from orchestrator.clusters import Cluster
from orchestrator.driver import Driver
from orchestrator.prepare import prepare
from orchestrator.rivals import wishes
from orchestrator.state import State
from orchestrator.tenure import tenure

POLL_S = 0.5


def _ignore(state: State) -> None:
    """Watch nothing."""


def _never() -> bool:
    """Hear no request."""
    return False


def drive(
    study: Study,
    store: Store,
    cluster: Cluster,
    on_change: Callable[[State], None] = _ignore,
    *,
    calibrate: bool = True,
    strict: bool = False,
) -> State:
    """Train every run of the study that the store does not hold yet; returns the state at the end.

    Waits while another process drives the study. For the rest see `drive_under`.
    """
    with tenure(store, study.name, time.monotonic) as lease:
        return drive_under(lease, study, store, cluster, on_change, calibrate=calibrate, strict=strict)


def drive_under(
    lease: Lease,
    study: Study,
    store: Store,
    cluster: Cluster,
    on_change: Callable[[State], None] = _ignore,
    *,
    calibrate: bool = True,
    strict: bool = False,
    clock: Clock = time.monotonic,
    stop_requested: Callable[[], bool] = _never,
) -> State:
    """Train every run of the study that the store does not hold yet, under this lease; returns the state at the end.

    The seeds of all runs are proven first. With `strict`, a checkpoint of another environment is refused.
    `on_change` is called in every turn, at least every POLL_S while packs train. Raises StudyInterrupted after
    Ctrl-C, SIGTERM, SIGUSR2 or `stop_requested`, when all packs have saved a checkpoint; LeaseLost where another
    driver has taken the study; SeedError where the seeds do not do what the design says; EnvironmentChanged;
    StoreError and its kin where the store fails; SpecMismatch where a stored run is not what its id says.
    """
    # Its first process may have to wait for room, too: that which measures and proves.
    lease.says = wishes(study.settings.execution.priority, 1)
    prepared = prepare(study, store, cluster, calibrate=calibrate)
    driver = Driver(study, store, cluster, lease, clock, prepared, strict)
    with _stop_signals() as stop:
        while not driver.state.finished:
            on_change(driver.state)
            if not driver.state.stopping and (stop.is_set() or stop_requested()):
                driver.request_stop()
            driver.turn(POLL_S)
        driver.close()
    state = driver.state
    on_change(state)
    if state.error:
        raise state.error
    if state.stopping:
        raise StudyInterrupted("stopped; the same command goes on from the last checkpoints")
    return state


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM or SIGUSR2 sets; a second Ctrl-C or SIGTERM raises KeyboardInterrupt.

    SIGUSR2 is what Slurm sends ahead of an end, to every process and perhaps twice.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number: int, frame: object) -> None:  # noqa: ARG001
        if stop.is_set() and number != signal.SIGUSR2:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
