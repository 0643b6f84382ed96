"""The other processes of a run, as its first one sees them: started, told what to do, and ended.

They keep nothing that the first process could not make again, so that killing them loses nothing; they end when it
does, however it ends (their input closes). One that dies is an error of the first, and the run goes on elsewhere.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import torch
from torch import Tensor

from jobs.errors import RankLost, SeedbedError, StoreError
from jobs.seeds import Streams
from jobs.spec import Condition
from workers.engines.replica import Shape, module_spec
from workers.engines.world import Meeting, World, joined, open_meeting
from workers.host import ALONE, LAST_S, LOOK_S, Ended, Here, Host, Nodes

HEADER = 5  # order, run, step, rows, length
STORE_FAILED = 74  # the exit code of a process that could not save
_START_S = 300.0
_GONE_S = 30.0  # after a library could not reach another process, until that is seen to have ended; Ray's nodes: 14 s
log = logging.getLogger(__name__)


class Order(IntEnum):
    """What the first process lets all do."""

    STOP = 0
    STEP = 1
    EVALUATE = 2
    STATE = 3
    LOAD = 4
    LAYERS = 5
    ATTENTION = 6
    WEIGHTS = 7
    SAVE = 8

    @property
    def parts(self) -> int:
        """Return how many tables of tokens go with it: inputs, and targets where something is asked."""
        return {Order.STEP: 2, Order.EVALUATE: 2, Order.LAYERS: 1, Order.ATTENTION: 1}.get(self, 0)


@dataclass(slots=True)
class Fellows:
    """The processes beside this one, by the nodes that they are on; none where a run has one process."""

    world: World
    hosts: Sequence[Host] = ()
    is_idle: bool = True

    @contextmanager
    def doing(
        self, order: Order, slot: int = 0, step: int = 0, rows: Sequence[Tensor] = (), said: str = ""
    ) -> Iterator[None]:
        """Let all processes carry out an order, this one in the context; raises RankLost where one has ended.

        What belongs to it are rows of a batch, or something said.
        """
        if not self.hosts:
            yield
            return
        with self.watched():
            self.check()
            text = torch.tensor(list(said.encode()), dtype=torch.uint8)
            shape = rows[0].shape if rows else (0, len(text))
            self.world.tell(torch.tensor([order, slot, step, *shape]))
            for part in rows or ((text,) if said else ()):
                self.world.tell(part)
            yield

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Do something with all processes in the context; raises RankLost where one ends meanwhile."""
        self.is_idle = False
        try:
            yield
        except RuntimeError as error:  # what a library says when another process is gone
            self.check(wait_s=_GONE_S if self.hosts else 0.0, because=error)
            raise
        self.is_idle = True

    def check(self, wait_s: float = 0.0, because: BaseException | None = None) -> None:
        """Raise RankLost where a process has ended, StoreError where its store failed; waits a while for that.

        NodeLost where the node of one is gone.
        """
        until = time.monotonic() + wait_s
        while True:
            for host in self.hosts:
                ended = host.ended()
                if ended is not None:
                    raise self._lost(ended) from because
            if time.monotonic() >= until:
                return
            time.sleep(LOOK_S)

    def _lost(self, ended: Ended) -> SeedbedError:
        told = ""
        if ended.said:
            log.error("what a process of the pack said last:\n%s", ended.said)
            told = f": {ended.said.splitlines()[-1]}"
        name = f"process {ended.rank} of {self.world.size}"
        if ended.code == STORE_FAILED:
            return StoreError("parts", f"{name} could not save its part{told}")
        return RankLost(f"{name} ended with code {ended.code}{told}")

    def end(self) -> None:
        """End the processes: by their word where they wait for one, else at once."""
        if self.is_idle and self.hosts and all(host.ended() is None for host in self.hosts):
            with self.doing(Order.STOP):
                pass
        for host in self.hosts:
            host.end(LAST_S if self.is_idle else 0.0)


@contextmanager
def gathered(
    condition: Condition, shape: Shape, streams: Sequence[Streams], device: str, nodes: Nodes = ALONE
) -> Iterator[Fellows]:
    """Give the processes that train a pack together with this one, as long as the context lasts.

    They lie on this node and the others, as many on each. Raises RankLost where one ends before it has begun, NodeLost
    where a node does.
    """
    spec = module_spec(condition)
    if spec.processes == 1:
        with joined(Meeting(Path()), 0, 1, device) as world:
            yield Fellows(world)
        return
    here = Here()
    hosts = (here, *nodes.others)
    meeting, port = open_meeting(here.folder, nodes.address, len(hosts))
    asked = {
        "condition": condition.model_dump(mode="json"),
        "shape": [shape.vocabulary_size, shape.length, shape.first_answer],
        "seeds": [stream.seeds.as_dict() for stream in streams],
        "device": device,
        "meeting": [meeting.address, meeting.port, meeting.nodes],
    }
    fellows = Fellows(World(0, spec.processes, torch.device("cpu")), hosts)
    try:
        each = spec.processes // len(hosts)
        for number, host in enumerate(hosts):
            ranks = range(max(1, number * each), (number + 1) * each)  # this process is the first
            host.start(json.dumps(asked), ranks, spec.threads)
        _await_all(fellows)
        with joined(meeting, 0, spec.processes, device) as world:
            fellows.world = world
            try:
                yield fellows
            finally:
                fellows.end()
    finally:
        del port  # it was kept for as long as processes might meet
        for host in hosts:
            host.end(0.0)


def _await_all(fellows: Fellows) -> None:
    """Wait until every process has said that it is there: only then is it safe to wait for it inside a library."""
    until = time.monotonic() + _START_S
    while not all(host.are_ready() for host in fellows.hosts):
        fellows.check()
        if time.monotonic() > until:
            raise RankLost(f"the other processes were not there after {_START_S:.0f} s")
        time.sleep(LOOK_S)
