"""The processes that train one run together, on one node or on several: how they find each other, and what they say.

The first of them is the pack's own process. On one node they meet by a file in a private folder; on several by a port
that the first one listens on. The system gives each its ports, so that two runs on a node never collide. What goes
between them is tensors of numbers, and no pickle; between nodes it is not encrypted.
"""

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torch.distributed has them, but says so to no type checker.
from torch._C._distributed_c10d import FileStore, Store, TCPStore

from jobs.errors import ModelError
from jobs.spec import AccelerateSpec, DeepSpeedSpec
from workers.models.huggingface import library

_MEETING = timedelta(minutes=5)
_PATIENCE = timedelta(days=7)  # a rank waits while the first one writes a checkpoint; if that dies, it hears so
_ADDRESS_OF_INTERFACE = 0x8915  # SIOCGIFADDR of Linux
_OF_ACCELERATE = "ACCELERATE_"
_BACKENDS = {"cpu": "gloo", "cuda": "cpu:gloo,cuda:nccl"}


@dataclass(frozen=True, slots=True)
class World:
    """One process among `size`: its rank, and the device on which it computes."""

    rank: int
    size: int
    device: torch.device

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes; `value` may be changed."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def tell(self, value: Tensor) -> Tensor:
        """Return what the first process has in `value`, a tensor of the CPU that the others lend for it."""
        if self.size > 1:
            dist.broadcast(value, src=0)
        return value

    def gather(self, value: Tensor) -> Tensor:
        """Return the tensors of all processes one after another along the first axis."""
        if self.size == 1:
            return value
        parts = [torch.empty_like(value) for _ in range(self.size)]
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts)

    def accelerator(self, spec: AccelerateSpec | DeepSpeedSpec, **options: Any) -> Any:
        """Return a new Accelerator for these processes; raises ModelError where the package is missing."""
        accelerate = library("accelerate", f"engine {spec.name}")
        _forget_accelerate()
        precision = "bf16" if spec.precision == "bf16" else "no"
        return accelerate.Accelerator(mixed_precision=precision, **{"cpu": self.device.type == "cpu", **options})


def device_of(kind: str, rank: int) -> torch.device:
    """Return the device of a rank: of several GPUs each has one."""
    return torch.device(kind, rank % max(1, torch.cuda.device_count())) if kind == "cuda" else torch.device(kind)


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the processes of a run find each other: in a folder, or at the address of the first one's node.

    nodes  on which there are as many of them each, in the order of their ranks
    """

    folder: Path
    address: str = ""
    port: int = 0
    nodes: int = 1

    def store(self, size: int) -> Store:
        """Return what this process and its fellows tell each other their own addresses by."""
        if not self.address:
            return FileStore(str(self.folder / "meeting"), size)
        return TCPStore(self.address, self.port, is_master=False, timeout=_MEETING)

    def interface(self) -> str:
        """Return the network interface by which this process reaches the first one; empty where that is not told."""
        return _interface_to(self.address) if self.address else "lo"


def open_meeting(folder: Path, address: str, nodes: int) -> tuple[Meeting, object]:
    """Return a new meeting at an address of this node, and what holds its port as long as it is kept."""
    if nodes == 1:
        return Meeting(folder), None
    listens = TCPStore(address, 0, is_master=True, timeout=_MEETING, wait_for_workers=False)
    return Meeting(folder, address, listens.port, nodes), listens


def _interface_to(address: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect((address, 9))
        mine = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # one without an address
                told = fcntl.ioctl(probe.fileno(), _ADDRESS_OF_INTERFACE, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(told[20:24]) == mine:
                    return name
    return ""


@contextmanager
def joined(meeting: Meeting, rank: int, size: int, kind: str) -> Iterator[World]:
    """Be one of `size` processes that meet, as long as the context lasts."""
    world = World(rank, size, device_of(kind, rank))
    if dist.is_initialized():  # libraries would take it for a run of several processes, and wait for ever
        raise ModelError("this process is one of several that train a run: it cannot train another beside it")
    if size == 1:
        with _accelerate_forgotten():
            yield world
        return
    if world.device.type == "cuda":
        torch.cuda.set_device(world.device)
    with _accelerate_forgotten(), _linear_put_back(), _told_by_environment(world, meeting):
        store = meeting.store(size)
        dist.init_process_group(_BACKENDS[kind], store=store, rank=rank, world_size=size, timeout=_MEETING)
        try:
            dist.distributed_c10d._set_pg_timeout(_PATIENCE)  # noqa: SLF001
            yield world
        finally:
            dist.destroy_process_group()


def _forget_accelerate() -> None:
    """Drop accelerate's state, which is the process's and outlives the run for which it was made."""
    state = sys.modules.get("accelerate.state")
    if state is not None:
        state.AcceleratorState._reset_state(reset_partial_state=True)  # noqa: SLF001
        state.GradientState._reset_state()  # noqa: SLF001


@contextmanager
def _put_back(concerns: Callable[[str], bool]) -> Iterator[None]:
    """Put the variables of the environment with such names back as they were."""
    before = {name: value for name, value in os.environ.items() if concerns(name)}
    try:
        yield
    finally:
        for name in filter(concerns, list(os.environ)):
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _accelerate_forgotten() -> Iterator[None]:
    """Take back what accelerate keeps and says in the environment: whatever trains here next would heed it."""
    with _put_back(lambda name: name.startswith(_OF_ACCELERATE)):
        try:
            yield
        finally:
            _forget_accelerate()


@contextmanager
def _linear_put_back() -> Iterator[None]:
    """Take back ZeRO 3's own linear map, which would stay, and round otherwise in whatever trains here next."""
    before = torch.nn.functional.linear
    try:
        yield
    finally:
        torch.nn.functional.linear = before


@contextmanager
def _told_by_environment(world: World, meeting: Meeting) -> Iterator[None]:
    """Say in the environment what libraries look for there at any time, and take it back."""
    here = world.size // meeting.nodes
    interface = meeting.interface()
    told = {
        "RANK": world.rank,
        "LOCAL_RANK": world.rank % here,
        "WORLD_SIZE": world.size,
        "LOCAL_WORLD_SIZE": here,
        "LOCAL_SIZE": here,
        "MASTER_ADDR": meeting.address or "127.0.0.1",
        "MASTER_PORT": meeting.port,
        **({"GLOO_SOCKET_IFNAME": interface} if interface else {}),
        "DS_ACCELERATOR": world.device.type,
        "OMP_NUM_THREADS": torch.get_num_threads(),  # where it is not said, accelerate sets another number of threads
    }
    with _put_back(told.__contains__):
        os.environ.update({name: str(value) for name, value in told.items()})
        yield
