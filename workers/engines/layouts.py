"""How one run's module lies on the processes that train it: on one, whole on each (DDP), or in parts (FSDP2).

Weights and moments are float32 everywhere; bf16 is for products and activations alone. A resumed process makes the
sums that one which was never interrupted makes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from jobs.spec import AccelerateSpec
from workers.engines import MODEL
from workers.engines.adamw import ModuleAdamW, local
from workers.engines.world import World
from workers.models.family import Parameter
from workers.models.huggingface import HuggingFace
from workers.models.shown import blocks_of
from workers.models.whole import Whole
from workers.optimizer import Rates
from workers.parts import Piece

_WARM_UP = 2  # passes; DDP lays its buckets out anew after the first, and a resumed process begins with a first one

Objective = Callable[[Tensor], Tensor]
MOMENTS, FIRST_MOMENT, BUFFER = "adamw.", "adamw.first.", "buffer."  # before the names of these in a state


class Layout(Protocol):
    """One run's module, its gradient and its optimiser, on this process and its fellows."""

    whole: Whole

    def logits(self, tokens: Tensor, drop: Any) -> Tensor:
        """Return float32 logits [batch, answers, vocabulary] for this process's part of a batch."""

    def learn(self, tokens: Tensor, drop: Any, objective: Objective, *, is_last: bool) -> None:
        """Add the gradient of a part's objective; with the last part, the processes' gradients become their mean."""

    def update(self, rates: Rates, clip: float | None) -> float:
        """Clip, update unless the gradient is not finite, forget the gradient; returns its norm before clipping."""

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield weights and saved buffers, whole, one after another; every process has to call it."""

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield both moments of each parameter, whole, one after another; every process has to call it."""

    def pieces(self) -> dict[str, Piece]:
        """Return what lies of the moments on this process alone; nothing where every process has all of them."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` holds, each tensor asked for once, in the order of names; every process has to call it."""

    def fill(self, name: str, values: Tensor) -> None:
        """Write what lies on this process of a moment: values of the shape of its piece."""

    def blanks(self) -> dict[str, Tensor]:
        """Return tensors of the names, shapes and types of the state, in one order, without values."""


class ModuleLayout:
    """The layout of engine `accelerate`."""

    def __init__(self, whole: Whole, parameters: Sequence[Parameter], spec: AccelerateSpec, world: World) -> None:
        self.whole, self.world = whole, world
        if spec.recompute and isinstance(whole, HuggingFace):
            whole.recompute()
        whole.to(world.device)
        self.is_sharded = spec.sharding == "fsdp" and world.size > 1
        self._autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        if self.is_sharded:
            _shard(whole, world)
            if spec.precision == "bf16":
                self._autocast = lambda: torch.autocast(world.device.type, dtype=torch.bfloat16)
            self._prepared: Any = whole
        else:
            self._prepared = world.accelerator(spec).prepare_model(whole)
        self.values: dict[str, nn.Parameter] = dict(whole.model.named_parameters())
        self.buffers = {n: b for n, b in whole.model.named_buffers() if n in whole.model.state_dict()}
        decays = {parameter.name: parameter.decays for parameter in parameters}
        self.optimizer = ModuleAdamW(
            [value for name, value in self.values.items() if decays[name]],
            [value for name, value in self.values.items() if not decays[name]],
        )
        if world.size > 1 and not self.is_sharded:
            self._warm_up()

    def _warm_up(self) -> None:
        tokens = torch.zeros(1, self.whole.length, dtype=torch.int64, device=self.world.device)
        for _ in range(_WARM_UP):
            self.learn(tokens, lambda x: x, torch.sum, is_last=True)
        self.optimizer.zero_grad()

    def logits(self, tokens: Tensor, drop: Any) -> Tensor:
        """Return logits [batch, answers, vocabulary]."""
        with self._autocast():
            out: Tensor = self._prepared(tokens, drop)
        return out.float()

    def learn(self, tokens: Tensor, drop: Any, objective: Objective, *, is_last: bool) -> None:
        """Add the gradient of a part's objective; the processes talk about it with the last part."""
        if self.is_sharded:
            self._prepared.set_requires_gradient_sync(is_last)
        alone = is_last or self.is_sharded or self.world.size == 1
        with nullcontext() if alone else self._prepared.no_sync():
            objective(self.logits(tokens, drop)).backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def update(self, rates: Rates, clip: float | None) -> float:
        """Clip, update unless the gradient is not finite, forget the gradient."""
        gradients = [local(value.grad) for value in self.values.values() if value.grad is not None]
        squares = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        norm = float((self.world.sum(squares) if self.is_sharded else squares).sqrt())
        if norm < float("inf"):
            factor = 1.0 if clip is None else min(1.0, clip / (norm + 1e-6))
            for gradient in gradients if factor < 1 else ():
                gradient.mul_(factor)
            self.optimizer.rates = rates
            self.optimizer.step()
        self.optimizer.zero_grad()
        return norm

    @torch.no_grad()
    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield weights and buffers that are saved."""
        for name, value in self.values.items():
            yield f"model.{name}", _full(value)
        yield from ((f"buffer.{name}", buffer) for name, buffer in self.buffers.items())

    @torch.no_grad()
    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield both moments by parameter."""
        for name, moment in self._moments():
            yield name, _full(moment)

    def pieces(self) -> dict[str, Piece]:
        """Return the rows of each moment that lie on this process; of DDP nothing."""
        if not self.is_sharded:
            return {}
        return {name: _piece(moment) for name, moment in self._moments() if len(local(moment))}

    def _moments(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self.values.items():
            first, second = self.optimizer.moments(value)
            yield from ((f"adamw.first.{name}", first), (f"adamw.second.{name}", second))

    def blanks(self) -> dict[str, Tensor]:
        """Return tensors of the names, shapes and types of the state, in one order, without values."""
        return blanks_of(self.values, self.buffers)

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` holds; raises KeyError or RuntimeError where it is another model's."""
        weights = {f"{MODEL}{name}": value for name, value in self.values.items()}
        here = weights | dict(self._moments()) | {f"{BUFFER}{name}": buffer for name, buffer in self.buffers.items()}
        for name in sorted(state):
            _fill(here[name], state[name])

    @torch.no_grad()
    def fill(self, name: str, values: Tensor) -> None:
        """Write the rows of a moment that lie on this process."""
        first, second = self.optimizer.moments(self.values[parameter_of(name)])
        local(first if name.startswith(FIRST_MOMENT) else second).copy_(values)


def _shard(whole: Whole, world: World) -> None:
    """Give every block, and what is left, in parts to the processes (`fully_shard`: FSDP2)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in blocks_of(whole):
        fully_shard(block, mesh=mesh)
    whole.register_forward_hook(_no_view)  # before those of FSDP2, which take none
    fully_shard(whole, mesh=mesh)


def _no_view(_: nn.Module, __: Any, out: Tensor) -> Tensor:
    return out.clone() if out._is_view() else out  # noqa: SLF001


def blanks_of(values: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what a state is made of, without values: weights and moments as float32, and buffers as they are."""
    kinds = ("model", "adamw.first", "adamw.second")
    found = {f"{k}.{n}": torch.empty(value.shape, device="meta") for k in kinds for n, value in values.items()}
    return found | {f"buffer.{n}": torch.empty_like(buffer, device="meta") for n, buffer in buffers.items()}


def parameter_of(moment: str) -> str:
    """Return the name of the parameter whose moment has this name."""
    return moment.split(".", 2)[2]


def _full(tensor: Tensor) -> Tensor:
    """Return a tensor whole, and not a copy where it is."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach()


def _piece(tensor: Tensor) -> Piece:
    if not isinstance(tensor, DTensor):
        raise TypeError("this tensor does not lie on several processes")
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return Piece(tensor.to_local().detach(), tuple(offset), tuple(tensor.shape))


def _fill(tensor: Tensor, whole: Tensor) -> None:
    """Write a whole tensor's values, or this process's part of them, into `tensor`."""
    if isinstance(tensor, DTensor):
        whole = distribute_tensor(whole.to(tensor.device), tensor.device_mesh, tensor.placements, src_data_rank=None)
    local(tensor).copy_(local(whole))
