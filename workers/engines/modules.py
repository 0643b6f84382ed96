"""Whole torch modules, one run after another: the engines `accelerate` and `deepspeed`.

With several processes this one is the first: it tells the others (`fellows.py`) what all of them do next, and hands
them the batch. A pack of several runs is one module after another; no run's bits depend on another's.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.errors import Corrupt
from jobs.seeds import Streams
from jobs.spec import Condition, DeepSpeedSpec
from workers.engines import MODEL, SHOWN, Integers
from workers.engines.fellows import Order, gathered
from workers.engines.layouts import MOMENTS, Layout, ModuleLayout
from workers.engines.replica import Replica, Shape, module_spec
from workers.engines.world import World
from workers.engines.zero import ZeroLayout
from workers.host import ALONE, Nodes
from workers.models.whole import draw, drawn_of, whole_of
from workers.part_loader import take_parts, told_of
from workers.part_saver import Commit, PartSaver, Place, Taken
from workers.parts import Cut
from workers.stored_slice import CheckedSlice, StoredRows


def replicas_of(condition: Condition, shape: Shape, streams: Sequence[Streams], world: World) -> list[Replica]:
    """Return the runs of a pack on this process, with their initial weights; every process has to call it."""
    spec, sizes = module_spec(condition), (shape.vocabulary_size, shape.length, shape.first_answer)
    drawn = drawn_of(condition, *sizes)
    found = []
    for stream in streams:
        whole = whole_of(condition, *sizes)
        draw(whole, drawn.parameters, stream)
        layout: Layout
        if isinstance(spec, DeepSpeedSpec):
            layout = ZeroLayout(whole, drawn.parameters, spec, condition, world)
        else:
            layout = ModuleLayout(whole, drawn.parameters, spec, world)
        found.append(Replica(condition, spec, stream, world, layout, drawn.first_answer))
    return found


def carry_out(order: Order, step: int, replica: Replica, *rows: Tensor) -> Sequence[Tensor]:
    """Let one run do what every process does for it with `rows`; returns what is measured."""
    if order is Order.EVALUATE:
        return replica.evaluate(*rows)
    if order is Order.LAYERS:
        return replica.hidden(*rows)
    if order is Order.ATTENTION:
        return replica.attention(*rows)
    replica.train_step(step, *rows)
    return ()


def _everything(replica: Replica) -> Iterator[tuple[str, Tensor]]:
    yield from replica.layout.weights()
    yield from replica.layout.moments()


def _weights(replica: Replica) -> Iterator[tuple[str, Tensor]]:
    return replica.layout.weights()


# What orders gather, tensor by tensor, on the first process.
WHOLE = {Order.STATE: _everything, Order.WEIGHTS: _weights}


def take_part(
    replicas: Sequence[Replica], parts: PartSaver, place: Place, step: int, whole: dict[str, Tensor] | None = None
) -> Commit:
    """Copy what this process saves of all runs, and the weights into `whole` where it is given; all have to call it."""
    for slot, replica in enumerate(replicas):
        for name, tensor in replica.layout.weights():
            if whole is not None:
                if name not in whole:
                    whole[name] = torch.empty(len(replicas), *tensor.shape, dtype=tensor.dtype)
                whole[name][slot].copy_(tensor)
    return parts.take(place, step, [replica.layout.pieces() for replica in replicas])


class Told(Mapping[str, Tensor]):
    """A run's state on every process: each tensor goes to all when it is asked for, which all do in one order.

    blanks  the names, shapes and types of what there is
    state   on the first process: where it is
    """

    def __init__(self, world: World, blanks: Mapping[str, Tensor], state: Mapping[str, Tensor] | None = None) -> None:
        self._world, self._blanks, self._state = world, blanks, state

    def __iter__(self) -> Iterator[str]:
        return iter(self._blanks)

    def __len__(self) -> int:
        return len(self._blanks)

    def __getitem__(self, name: str) -> Tensor:
        blank = self._blanks[name]
        if self._state is None:
            return self._world.tell(torch.empty_like(blank, device="cpu"))
        tensor = self._state[name].cpu().contiguous()
        if (tensor.shape, tensor.dtype) != (blank.shape, blank.dtype):  # the others wait for what they know
            raise KeyError(f"{name} of another shape or type")
        return self._world.tell(tensor)


class _Slot(Mapping[str, Tensor]):
    """One run's tensors of a state [run, …]."""

    def __init__(self, state: Mapping[str, Tensor], slot: int) -> None:
        self._state, self._slot = state, slot

    def __iter__(self) -> Iterator[str]:
        return iter(self._state)

    def __len__(self) -> int:
        return len(self._state)

    def __getitem__(self, name: str) -> Tensor:
        return self._state[name][self._slot]


def take_up(replica: Replica, world: World, said: str, stored: CheckedSlice | None = None) -> None:
    """Let a run go on from a checkpoint in parts: each process reads its own, if it lies as it did then.

    Every process has to call it; `stored` is on the first one, which reads and tells the rest.
    """
    blanks = replica.layout.blanks()
    digests = take_parts(said, replica.layout, world)
    if digests:
        blanks = {name: blank for name, blank in blanks.items() if not name.startswith(MOMENTS)}
    if digests and stored is not None:
        stored.took(digests)
    replica.load(Told(world, blanks, None if stored is None else _Slot(stored, 0)))


class ModuleEngine:
    """The engine of whole modules; see `Engine` for its fields and methods."""

    def __init__(
        self,
        condition: Condition,
        shape: Shape,
        streams: Sequence[Streams],
        device: str = "cpu",
        nodes: Nodes = ALONE,
    ) -> None:
        self.losses, self.grad_norms = np.zeros(len(streams)), np.zeros(len(streams))
        self.diverged_at = np.full(len(streams), -1, np.int64)
        with ExitStack() as opened:
            self._fellows = opened.enter_context(gathered(condition, shape, streams, device, nodes))
            with self._fellows.watched():
                self._replicas = replicas_of(condition, shape, streams, self._fellows.world)
            self.cuts: Sequence[Cut] = self._replicas[0].cuts
            self._parts = PartSaver(0, self._fellows.world.size)
            self._opened = opened.pop_all()

    def train_step(self, step: int, inputs: Integers, targets: Integers, heads: Integers | None = None) -> None:  # noqa: ARG002
        """Make update number `step` with inputs and targets [run, batch, length]; no loss here asks for trees."""
        for slot, replica in enumerate(self._replicas):
            if self.diverged_at[slot] >= 0:
                continue
            self._together(Order.STEP, slot, inputs, targets, step=step)
            self.losses[slot], self.grad_norms[slot] = replica.loss, replica.grad_norm
            if not (np.isfinite(replica.loss) and np.isfinite(replica.grad_norm)):
                self.diverged_at[slot] = step

    def evaluate(self, inputs: Integers, targets: Integers) -> tuple[Integers, NDArray[np.float32]]:
        """Return the likeliest token and the loss at each position, [run, items, length] each."""
        predicted, losses = self._of_all(Order.EVALUATE, inputs, targets)
        return predicted.numpy(), losses.numpy()

    def hidden(self, inputs: Integers) -> list[Tensor]:
        """Return what each block makes of the first items of inputs [run, items, length]: [run, row, width]."""
        return self._of_all(Order.LAYERS, inputs[:, :SHOWN])

    def attention(self, inputs: Integers) -> list[Tensor]:
        """Return each layer's weights of attention, [run, item, head, from, to], for inputs [run, item, length]."""
        return self._of_all(Order.ATTENTION, inputs)

    def _of_all(self, order: Order, *rows: Integers) -> list[Tensor]:
        """Return what is measured of every run, along a leading run axis."""
        found = [self._together(order, slot, *rows) for slot in range(len(self._replicas))]
        return [torch.stack(of_runs) for of_runs in zip(*found, strict=True)]

    def _together(self, order: Order, slot: int, *rows: Integers, step: int = 0) -> Sequence[Tensor]:
        mine = [torch.from_numpy(np.ascontiguousarray(part[slot])) for part in rows]
        with self._fellows.doing(order, slot, step, mine):
            return carry_out(order, step, self._replicas[slot], *mine)

    def state(self) -> dict[str, Tensor]:
        """Return weights, both moments and saved buffers, each [run, …]; of a pack of one run no copies."""
        return self._whole(Order.STATE)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters, each [run, …]; of a pack of one run no copies."""
        return {name: tensor for name, tensor in self._whole(Order.WEIGHTS).items() if name.startswith(MODEL)}

    def take(self, place: Place, step: int, whole: dict[str, Tensor]) -> Taken:
        """Copy the state on every process: weights and buffers into `whole`, moments where they are."""
        with self._fellows.doing(Order.SAVE, step=step, said=place.text):
            job = take_part(self._replicas, self._parts, place, step, whole)
        return Taken(job, self._fellows.world.size, self._fellows.check)

    def _whole(self, order: Order) -> dict[str, Tensor]:
        states = []
        for slot, replica in enumerate(self._replicas):
            with self._fellows.doing(order, slot):
                states.append(dict(WHOLE[order](replica)))
        if len(states) == 1:
            return {name: tensor[None] for name, tensor in states[0].items()}
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; raises KeyError or RuntimeError where it is another model's.

        Of checkpoints in parts each process reads its own; they count when the state has been finished.
        """
        for slot, replica in enumerate(self._replicas):
            if isinstance(state, StoredRows):
                self._load_stored(slot, state.rows[slot])
                continue
            with self._fellows.doing(Order.LOAD, slot):
                replica.load(Told(self._fellows.world, replica.layout.blanks(), _Slot(state, slot)))

    def _load_stored(self, slot: int, stored: CheckedSlice) -> None:
        said = told_of(stored)
        try:
            with self._fellows.doing(Order.LOAD, slot, said=said):
                take_up(self._replicas[slot], self._fellows.world, said, stored)
        except KeyError as error:
            raise Corrupt(stored.key, f"is not the state of its run: {error}") from None

    def close(self) -> None:
        """End the other processes, where there are some."""
        self._opened.close()
