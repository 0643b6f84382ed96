"""Packs in this process, one after another: for small studies, notebooks, debuggers and tests.

A pack trains in one thread beside the caller's, so that progress is shown and Ctrl-C heard while it does. It
takes all threads of the machine. A pack that stands still is left behind in its thread, which ends with the process;
one that brings the process down brings the head down, too: where that matters there is `ray`.
"""

import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.memory import memory_bytes
from jobs.pack import PackOutcome, PackRun, SeedProof
from jobs.spec import CommandSpec, Condition
from jobs.store import open_store
from orchestrator.clusters import News
from orchestrator.events import PackEnded, PackLost
from orchestrator.machine import ANYWHERE, Machine, Needs, Node, Shape
from orchestrator.packing import Timing

Work = Callable[[str, str, threading.Event], PackOutcome]
_NVIDIA = Path("/proc/driver/nvidia/gpus")  # a folder for each GPU; to ask torch would take seconds


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run_pack(store_url: str, pack_id: str, stop: threading.Event) -> PackOutcome:
    from workers.pack import run_pack  # torch takes seconds to import, and planning needs none of it

    return run_pack(store_url, pack_id, stop)


def measure_here(
    store_url: str,
    condition: Condition,
    most_runs: int,
    threads: tuple[int, ...],
    seconds: float,
    needs: Needs = ANYWHERE,
) -> list[Timing]:
    """Return timings of the condition in this process; its task is the copy that lies in the store."""
    from workers.calibration import measure
    from workers.stored import load_task

    task = load_task(open_store(store_url), condition.task)
    device = "cuda" if needs.gpu_share else "cpu"
    return [*measure(condition, task, most_runs=most_runs, threads=threads, seconds=seconds, device=device)]


def prove_here(store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
    """Return what the runs' seeds make, in this process; the task is the copy that lies in the store."""
    from workers.seed_proof import prove, prove_nothing
    from workers.stored import load_task

    if isinstance(condition.engine, CommandSpec):
        return prove_nothing(runs)
    return prove(condition, load_task(open_store(store_url), condition.task), runs)


class _Line:
    """A thread that carries out one thing after another. A daemon: one that stands still keeps no process alive."""

    def __init__(self, jobs: "queue.SimpleQueue[Callable[[], None]] | None" = None) -> None:
        self._jobs = jobs or queue.SimpleQueue()
        self._ends = False
        self._thread = threading.Thread(target=self._run, name="pack", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ends:
            self._jobs.get()()

    def submit(self, job: Callable[[], None]) -> None:
        """Let the job be done when those before it have ended."""
        self._jobs.put(job)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the function returns, or raise what it raises, in its turn."""
        done: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        self.submit(lambda: done.put(_tried(function, *arguments)))
        result, error = done.get()
        if error is not None:
            raise error
        return result

    def left_behind(self) -> "_Line":
        """Return another thread that goes on with what waits; this one ends with what it does now."""
        self._ends = True
        return _Line(self._jobs)

    def close(self) -> None:
        """Begin nothing more, and wait for what is under way."""
        self._ends = True
        self._jobs.put(lambda: None)
        self._thread.join()


def _tried(function: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    try:
        return function(*arguments), None
    except BaseException as error:  # the border of a pack: what it died of is news, and not this thread's end
        return None, error


class InlineCluster:
    """This process as a cluster.

    cpus  threads that a pack may use; all of the machine's where it is not given
    work  what carries out a pack
    """

    def __init__(self, cpus: int = 0, work: Work = _run_pack) -> None:
        self._cpus = cpus or available_cpus()
        self._work = work
        self._line = _Line()
        self._news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._under_way = ""
        self._stops: dict[str, threading.Event] = {}
        self._killed: set[str] = set()

    def machine(self) -> Machine:
        """Return this machine, for one pack at a time."""
        node = Node(self._cpus, memory_bytes(), gpus=float(len(list(_NVIDIA.glob("*")))))
        return Machine(self._cpus, packs_at_once=1, device="cpu", nodes=(node,))

    def room(self) -> Machine:
        """Return this machine: who else uses it is not asked."""
        return self.machine()

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        """Do nothing: packs take their turns in one thread."""

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        """Measure here, in the thread that packs train in."""
        return list(self._line.call(measure_here, store_url, condition, most_runs, threads, seconds, needs))

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        """Draw here, in the thread that packs train in."""
        found: SeedProof = self._line.call(prove_here, store_url, condition, runs)
        return found

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:  # noqa: ARG002
        """Put the pack in the queue; its threads are named in its request."""
        stop = self._stops[pack_id] = threading.Event()
        self._line.submit(lambda: self._carry_out(store_url, pack_id, stop))

    def _carry_out(self, store_url: str, pack_id: str, stop: threading.Event) -> None:
        if pack_id in self._killed:
            return
        self._under_way = pack_id
        outcome, error = _tried(self._work, store_url, pack_id, stop)
        self._news.put(PackEnded(pack_id, outcome) if error is None else PackLost(pack_id, error))

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:  # noqa: ARG002
        """Return whether it is one's own: what another process trains, only the store tells of."""
        return pack_id in self._stops

    def poll(self, timeout_s: float) -> list[News]:
        """Return the news, waiting for the first."""
        news = []
        try:
            news.append(self._news.get(timeout=timeout_s))
            while True:
                news.append(self._news.get_nowait())
        except queue.Empty:
            pass
        for item in news:
            self._stops.pop(item.pack_id, None)
        return [item for item in news if item.pack_id not in self._killed]

    def stop(self, pack_id: str) -> None:
        """Let the pack end after its current step."""
        if pack_id in self._stops:
            self._stops[pack_id].set()

    def kill(self, pack_id: str) -> None:
        """Let the pack end after its current step: a thread cannot be killed. The next pack does not wait for it."""
        stop = self._stops.pop(pack_id, None)
        if stop is None:
            return
        self._killed.add(pack_id)
        stop.set()
        if self._under_way == pack_id:
            self._line = self._line.left_behind()

    def close(self) -> None:
        """Stop every pack and wait for the current step's end."""
        for stop in self._stops.values():
            stop.set()
        self._line.close()
