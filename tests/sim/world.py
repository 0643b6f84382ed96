"""One machine for all: a simulated clock, a cluster that loses messages, workers that hang, drivers that die.

Everything that happens is an entry of one heap, and every choice is drawn from one generator, so a seed is a whole
history. The drivers, the lease, the state machine, the claims and the records are the real ones; what is simulated
is time, the network, the disk and the training. Faults stop at QUIET_S, and then everything must end.
"""

import contextlib
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jobs.errors import ClusterError, LeaseLost, NodeLost, OutOfMemory, SeedbedError, StoreError
from jobs.lease import Candidate, Lease
from jobs.pack import PackRun, SeedDigests, SeedProof, get_outcome
from jobs.spec import Condition
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.clusters import News
from orchestrator.driver import Driver
from orchestrator.events import PackEnded, PackLost
from orchestrator.invariants import check_invariants
from orchestrator.machine import ANYWHERE, Machine, Needs, Shape
from orchestrator.packing import AssumedTiming, Timing
from orchestrator.prepare import prepare
from tests.sim.checks import Checks
from tests.sim.store import Client, MemoryStore
from tests.sim.worker import Died, Worker

QUIET_S = 200.0
END_S = 4000.0  # by far longer than any history that ends
TURN_S = 1.0
BEAT_S = 5.0
NODES = 2
RETRIES = 3
STUDY = parse_study(
    """\
study: sim
task: {name: parity, bits: 4, subset: 2, test_size: 8}
model: {family: mlp, width: 4}
optimizer: {learning_rate: 1e-3}
training: {steps: 6, batch_size: 1}
grid: {model.width: [4, 8]}
seeds: {design: paired, count: 3}
execution: {pack_width: 2, retries: 3}
""",
    "sim.yaml",
    Path(),
)
FAULTS = (
    "launch_lost",
    "launch_doubled",
    "launch_late",
    "news_lost",
    "news_doubled",
    "news_late",
    "crash",
    "preempt",
    "hang",
    "stall",
    "out_of_memory",
    "node_cut",
    "node_killed",
    "store_error",
    "driver_killed",
    "driver_stopped",
    "clock_jump",
    "takeover",
    "second_driver",
    "adoption_lost",
)


class Failure(AssertionError):
    """An invariant that does not hold; its message begins with the seed that shows it."""


@dataclass
class Process:
    """A worker under way: `alive` until its process ends, `busy_until` while it hangs, heart and all.

    tellers  the drivers' views of the cluster that hear of its end
    """

    worker: Worker
    life: Iterator[float]
    tellers: list["SimCluster"]
    alive: bool = True
    cut: bool = False  # its node is gone for the cluster, but it goes on
    busy_until: float = 0.0

    def tell(self, item: News) -> None:
        for teller in self.tellers:
            teller.tell(item)


@dataclass
class Head:
    """A driver's process, from its start as a candidate to its end."""

    number: int
    candidate: Candidate
    cluster: "SimCluster"
    store: Client
    offset_s: float = 0.0
    stopped_until: float = 0.0
    lease: Lease | None = None
    driver: Driver | None = None
    ended: bool = False


@dataclass
class World:
    """A history: what a seed makes of the study. `injected` counts the faults that struck."""

    seed: int
    study: Study = STUDY
    now: float = 0.0
    store: MemoryStore = field(default_factory=MemoryStore)
    processes: list[Process] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    nodes_gone_until: list[float] = field(default_factory=lambda: [0.0] * NODES)
    crashes: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    events: int = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        self.rng = np.random.Generator(np.random.PCG64(self.seed))
        self._draws = iter(())
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        # Each history has faults of its own kinds: two that always come together would hide each other.
        self.rates = {name: rate * (self.rng.random() < 0.5) for name, rate in dict.fromkeys(FAULTS, 0.05).items()}
        runs = [run.id for run in self.study.runs]
        self.poison = frozenset(runs[:1]) if self.rng.random() < 0.15 else frozenset()
        self.diverging = frozenset(runs[-1:]) if self.rng.random() < 0.15 else frozenset()
        if self.poison:
            self.rates["crash"] = 0.0
        self.checks = Checks(self)
        self.store.on_put = self.checks.on_put

    def uniform(self) -> float:
        """Return the next draw; drawn in blocks, which is ten times faster."""
        for draw in self._draws:
            return draw
        self._draws = iter(self.rng.random(256).tolist())
        return next(self._draws)

    def strikes(self, fault: str, scale: float = 1.0) -> bool:
        """Return whether a fault happens now."""
        rate = self.rates[fault]
        if not rate or self.now > QUIET_S or self.uniform() >= rate * scale:
            return False
        self.injected[fault] += 1
        return True

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Let something happen after a delay."""
        heapq.heappush(self._heap, (self.now + delay_s, next(self._order), action))

    def run(self) -> None:
        """Let the history happen; raises Failure."""
        self.start_head()
        if self.rates["second_driver"]:
            self.injected["second_driver"] += 1
            self.at(20 * self.uniform(), self.start_head)
        if self.rates["node_cut"] or self.rates["node_killed"]:
            self.at(10.0, self.maybe_lose_node)
        while not self.is_over:
            if not self._heap:
                raise Failure(f"seed {self.seed}: nothing happens any more, and the study has not ended")
            self.now, _, action = heapq.heappop(self._heap)
            if self.now > END_S:
                raise Failure(f"seed {self.seed}: the study did not end")
            self.events += 1
            try:
                action()
            except Failure:
                raise
            except Exception as error:
                raise Failure(f"seed {self.seed}: at {self.now:.1f} s: {type(error).__name__}: {error}") from error
        try:
            self.checks.at_the_end()
        except AssertionError as error:
            raise Failure(f"seed {self.seed}: {error}") from error

    # Drivers

    def start_head(self) -> None:
        """Start a process that wants to drive the study."""
        if self.is_over:
            return
        number = len(self.heads) + 1
        store = Client(self.store, lambda: self.strikes("store_error", 0.2))
        cluster = SimCluster(self)
        head = Head(
            number, Candidate(store, self.study.name, lambda: self.clock(head), {"head": number}), cluster, store
        )
        self.heads.append(head)
        self.at(0.0, lambda: self.turn(head))
        self.at(0.0, lambda: self.beat(head))

    def clock(self, head: Head) -> float:
        """Return what a driver's own clock shows."""
        return self.now + head.offset_s

    def beat(self, head: Head) -> None:
        """Let a driver's heart beat, unless it is stopped."""
        if head.ended:
            return
        if head.lease and self.now >= head.stopped_until:
            with contextlib.suppress(SeedbedError):
                head.lease.beat()
        self.at(BEAT_S, lambda: self.beat(head))

    def turn(self, head: Head) -> None:
        """Let a driver have a turn, or meet its fate."""
        if head.ended:
            return
        if self.strikes("driver_killed", 0.3):
            head.ended = True
            head.cluster.news.clear()
            self.at(1 + 20 * self.uniform(), self.start_head)
            return
        if self.strikes("driver_stopped", 0.3):
            head.stopped_until = self.now + 60 * self.uniform()
        if self.strikes("clock_jump", 0.3):
            head.offset_s += 40 * self.uniform()
        if self.now < head.stopped_until:
            self.at(head.stopped_until - self.now, lambda: self.turn(head))
            return
        try:
            self._turn(head)
        except (StoreError, ClusterError, LeaseLost):
            self._leave(head)
            self.at(1 + 10 * self.uniform(), self.start_head)
        if not head.ended:
            self.at(TURN_S, lambda: self.turn(head))

    def _turn(self, head: Head) -> None:
        if head.lease is None:
            head.lease = head.candidate.attempt(takeover=head.number > 1 and self.strikes("takeover", 0.5))
            return
        if head.driver is None:
            head.lease.check()
            prepared = prepare(self.study, head.store, head.cluster, calibrate=False)
            clock = lambda: self.clock(head)  # noqa: E731
            head.driver = Driver(self.study, head.store, head.cluster, head.lease, clock, prepared)
        driver = head.driver
        driver.turn(0.0)
        check_invariants(driver.state)
        if driver.state.finished:
            driver.close()
            if driver.state.error:
                raise driver.state.error
            self.checks.on_finish(head.number, driver.state)
            # One that was stopped and does not know yet that it was replaced says nothing of what its successor does.
            self.is_over = head.lease.epoch == self.checks.epoch
            self._leave(head)

    def _leave(self, head: Head) -> None:
        head.ended = True
        if head.lease:
            with contextlib.suppress(SeedbedError):
                head.lease.release()

    # Workers

    def begin(self, pack_id: str, teller: "SimCluster") -> None:
        """Start a process for a pack, on a node that is there."""
        here = [node for node in range(NODES) if self.nodes_gone_until[node] <= self.now]
        if not here:
            self.at(5.0, lambda: self.begin(pack_id, teller))
            return
        node = here[int(self.uniform() * len(here))]
        store = Client(self.store, lambda: self.strikes("store_error", 0.1))
        worker = Worker(store, pack_id, node, self.diverging, self.poison, lambda: self.now)
        process = Process(worker, worker.life(), [teller])
        self.processes.append(process)
        teller.running.setdefault(pack_id, process)
        self.at(0.2 + self.uniform(), lambda: self.step(process))
        self.at(BEAT_S, lambda: self.pulse(process))

    def pulse(self, process: Process) -> None:
        """Let a worker's heart beat, unless it hangs."""
        if not process.alive:
            return
        if self.now >= process.busy_until and process.worker.pulse.number:
            with contextlib.suppress(SeedbedError):
                process.worker.signs.beat(0)
                process.worker.ask_whether_wanted()
        self.at(BEAT_S, lambda: self.pulse(process))

    def step(self, process: Process) -> None:
        """Let a worker do its next thing."""
        if not process.alive:
            return
        if process.busy_until > self.now:
            self.at(process.busy_until - self.now, lambda: self.step(process))
            return
        worker = process.worker
        if self._may_crash(worker) and self.strikes("crash"):
            self.crashes.update(worker.members)
            self._end(process, Died())
            return
        if self._may_crash(worker) and worker.is_training and self.strikes("stall", 0.5):
            # Its heart beats on, and its loop does nothing ever after.
            self.crashes.update(worker.members)
            self.checks.on_crash(worker)
            return
        if self.strikes("preempt", 0.5):
            worker.stop = True
        if self.strikes("hang", 0.5):
            process.busy_until = self.now + 10 + 80 * self.uniform()
            self.at(process.busy_until - self.now, lambda: self.step(process))
            return
        if len(worker.members) > 1 and self.strikes("out_of_memory", 0.3):
            self._end(process, OutOfMemory("it does not fit"))
            return
        try:
            delay = next(process.life)
        except StopIteration:
            self._end(process, None)
        except SeedbedError as error:
            self._end(process, error)
        else:
            self.at(delay * (0.5 + self.uniform()), lambda: self.step(process))

    def _may_crash(self, worker: Worker) -> bool:
        """Return whether a crash now leaves every run of the pack within its budget."""
        return bool(worker.members) and all(self.crashes[run_id] < RETRIES for run_id in worker.members)

    def _end(self, process: Process, error: SeedbedError | None) -> None:
        process.alive = False
        pack_id = process.worker.pack_id
        if isinstance(error, Died):
            self.checks.on_crash(process.worker)
            process.tell(PackLost(pack_id, ClusterError("the pack's process ended")))
            return
        if error is not None:
            with contextlib.suppress(SeedbedError):
                process.worker.pulse.end()
            process.tell(PackLost(pack_id, error))
        else:
            process.tell(PackEnded(pack_id, get_outcome(self.store, pack_id)))

    def maybe_lose_node(self) -> None:
        """Now and then, let a node be cut off, its workers training on, or die with them."""
        for fault in ("node_cut", "node_killed"):
            if self.strikes(fault, 5.0):
                node = int(self.uniform() * NODES)
                self.nodes_gone_until[node] = self.now + 5 + 40 * self.uniform()
                for head in self.heads:
                    head.cluster.lose(node)
                for process in self.processes:
                    if process.worker.node == node and process.alive:
                        process.cut, process.alive = True, fault == "node_cut"
        if self.now < QUIET_S:
            self.at(10.0, self.maybe_lose_node)


class SimCluster:
    """What one driver sees of the cluster: its messages may be lost, doubled, late, and out of order."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.news: list[News] = []
        self.running: dict[str, Process] = {}

    def machine(self) -> Machine:
        here = sum(gone <= self.world.now for gone in self.world.nodes_gone_until)
        return Machine(2 * here, 2 * here, "cpu")

    def room(self) -> Machine:
        return self.machine()

    def expect(self, waiting: Sequence[Shape], *, others_first: bool) -> None:
        pass

    def calibrate(
        self,
        store_url: str,
        condition: Condition,
        most_runs: int,
        threads: tuple[int, ...],
        seconds: float,
        needs: Needs = ANYWHERE,
    ) -> list[Timing]:
        return [AssumedTiming(1, count, 1.0) for count in threads]

    def prove(self, store_url: str, condition: Condition, runs: Sequence[PackRun]) -> SeedProof:
        scopes = {"init": str(condition.model.width), "data": "", "dropout": "", "evaluation": ""}
        digests = (
            SeedDigests(**{n: f"{scopes[n]}{seed}" for n, seed in run.seeds.model_dump().items()}) for run in runs
        )
        return SeedProof(scopes=scopes, runs=tuple(digests))

    def launch(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> None:
        world = self.world
        world.checks.on_launch(pack_id)
        delay = 60 * world.uniform() if world.strikes("launch_late") else world.uniform()
        if not world.strikes("launch_lost"):
            world.at(delay, lambda: world.begin(pack_id, self))
        if world.strikes("launch_doubled"):
            world.at(10 * world.uniform(), lambda: world.begin(pack_id, self))

    def adopt(self, store_url: str, pack_id: str, threads: int, needs: Needs = ANYWHERE) -> bool:
        found = [it for it in self.world.processes if it.worker.pack_id == pack_id and it.worker.pulse.number]
        for process in found:
            if process.alive and not process.cut and not self.world.strikes("adoption_lost", 6.0):
                self.running[pack_id] = process
                process.tellers.append(self)
                return True
        return False

    def tell(self, item: News) -> None:
        world = self.world
        delay = 60 * world.uniform() if world.strikes("news_late") else world.uniform()
        if not world.strikes("news_lost"):
            world.at(delay, lambda: self.news.append(item))
        if world.strikes("news_doubled"):
            world.at(30 * world.uniform(), lambda: self.news.append(item))

    def lose(self, node: int) -> None:
        for pack_id, process in self.running.items():
            if process.worker.node == node and process.alive and not process.cut:
                self.tell(PackLost(pack_id, NodeLost("the node is gone")))

    def poll(self, timeout_s: float) -> list[News]:
        news, self.news = self.news, []
        return news

    def stop(self, pack_id: str) -> None:
        if pack_id in self.running:
            self.running[pack_id].worker.stop = True

    def kill(self, pack_id: str) -> None:
        process = self.running.get(pack_id)
        if process is not None and not process.cut and process.alive:
            process.alive = False
            process.tellers.remove(self)
            process.tell(PackLost(pack_id, ClusterError("the pack's process was killed")))

    def close(self) -> None:
        pass
