"""Notice to leave: a signal to the process of a pack, or the drain of its node.

Each process hears for itself, so that its pack is saved also while no head is alive. SIGTERM is what Kubernetes,
systemd and Slurm send, SIGUSR2 what Slurm sends ahead of an end; a node is drained by `ray drain-node`, by Ray's
autoscaler, and by a `ray start --block` that is told to end. A process that has nothing to do ends at once, since a
drained node waits for the last of them.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

LOOK_S = 2.0  # between two questions for drained nodes: one call to the cluster's head each, answered in 1 ms
_REPLY_S = 5.0  # for the last answer to reach whoever asked
Leave = Callable[[str], bool]  # why → whether there is something to end first


def hear(leave: Leave, nodes: Callable[[], Collection[str]]) -> None:
    """Let `leave` hear of the first signals and of a drain; where nothing is to be ended, the process ends.

    `nodes` are those whose drain counts.

    To be called in the main thread of an actor's process, where Python handles signals.
    """
    ray_handler = signal.getsignal(signal.SIGTERM)

    def on_signal(number: int, frame: FrameType | None) -> None:
        if leave(signal.Signals(number).name):
            return
        if callable(ray_handler):
            ray_handler(signal.SIGTERM, frame)
        sys.exit(0)

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, on_signal)
    threading.Thread(target=_watch, args=(leave, nodes), name="notice", daemon=True).start()


@contextmanager
def signals_ignored_by_children() -> Iterator[None]:
    """Let processes that are started meanwhile ignore SIGUSR2: Slurm sends it to all, and it would end Ray's own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def end_soon() -> None:
    """End this process, which has nothing more to do, once its last answer had time to arrive."""
    timer = threading.Timer(_REPLY_S, end)
    timer.daemon = True
    timer.start()


def draining(ray: Any) -> Mapping[str, int]:
    """Return the nodes that are to leave → when, in ms since 1970 (0: not said); none where Ray does not tell."""
    try:
        # What Ray Train asks, too; Ray has no public name for it.
        found: Mapping[str, int] = ray._private.state.state.get_draining_nodes()  # noqa: SLF001
    except (AttributeError, RuntimeError, ConnectionError, ray.exceptions.RayError):
        return {}
    return found


def _watch(leave: Leave, nodes: Callable[[], Collection[str]]) -> None:
    import ray

    mine, pause = frozenset(nodes()), threading.Event()
    while mine.isdisjoint(draining(ray)):
        pause.wait(LOOK_S)
    if not leave("its node is drained"):
        end()


def end() -> None:
    """End this process now."""
    # To itself: Ray's own handler lets a worker leave in order, and only the main thread can call it.
    os.kill(os.getpid(), signal.SIGTERM)
