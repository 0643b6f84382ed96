"""Whole torch modules, one run after another: the engines `accelerate` and `deepspeed`.

With several processes this one is the first: it tells the others (`fellows.py`) what all of them do next, and hands
them the batch. A pack of several runs is one module after another; no run's bits depend on another's.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.seeds import Streams
from jobs.spec import Condition, DeepSpeedSpec
from workers.engines import SHOWN, Integers
from workers.engines.fellows import Order, gathered
from workers.engines.layouts import Layout, ModuleLayout
from workers.engines.replica import Replica, Shape, module_spec
from workers.engines.world import World
from workers.engines.zero import ZeroLayout
from workers.models.whole import draw, drawn_of, whole_of


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


class ModuleEngine:
    """The engine of whole modules; see `Engine` for its fields and methods."""

    def __init__(self, condition: Condition, shape: Shape, streams: Sequence[Streams], device: str = "cpu") -> None:
        self.losses, self.grad_norms = np.zeros(len(streams)), np.zeros(len(streams))
        self.diverged_at = np.full(len(streams), -1, np.int64)
        with ExitStack() as opened:
            self._fellows = opened.enter_context(gathered(condition, shape, streams, device))
            with self._fellows.watched():
                self._replicas = replicas_of(condition, shape, streams, self._fellows.world)
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
        states = []
        for slot, replica in enumerate(self._replicas):
            with self._fellows.doing(Order.STATE, slot):
                states.append(replica.layout.state())
        if len(states) == 1:
            return {name: tensor[None] for name, tensor in states[0].items()}
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; raises KeyError or RuntimeError where it is another model's."""
        for slot, replica in enumerate(self._replicas):
            mine = {name: tensor[slot] for name, tensor in state.items()}
            with self._fellows.doing(Order.LOAD, slot):
                replica.load(self._fellows.told(mine, replica))

    def close(self) -> None:
        """End the other processes, where there are some."""
        self._opened.close()
