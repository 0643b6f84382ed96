"""One run on one process, trained as a whole module: its share of each batch, its loss, its masks.

All processes of a run do the same here at the same time; which part of what each of them has is a layout's.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.scalar import at
from jobs.seeds import Streams
from jobs.spec import (
    AccelerateSpec,
    CommandSpec,
    Condition,
    DeepSpeedSpec,
    Given,
    HuggingFaceSpec,
    ModuleSpec,
    PackedSpec,
)
from jobs.tasks.task import IGNORE
from workers.engines.layouts import MOMENTS, Layout
from workers.engines.world import World
from workers.models.shown import Shown, attention_of, layers_of
from workers.optimizer import Schedule
from workers.parts import Cut


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is made for."""

    vocabulary_size: int
    length: int
    first_answer: int


def module_spec(condition: Condition) -> AccelerateSpec | DeepSpeedSpec:
    """Return the engine of a condition that trains whole modules."""
    if isinstance(condition.engine, PackedSpec | CommandSpec):
        raise TypeError(f"engine {condition.engine.name} trains no whole modules")
    return condition.engine


class Replica:
    """Trains and measures one run.

    loss, grad_norm  of the last step; the same on every process
    cuts             what each process holds of the moments; none where each holds all
    """

    def __init__(
        self, condition: Condition, spec: ModuleSpec, streams: Streams, world: World, layout: Layout, first_answer: int
    ) -> None:
        if isinstance(condition.optimizer, Given) or isinstance(condition.model, Given):
            raise TypeError("a script trains its model itself")
        self.condition, self.streams, self.world, self.layout = condition, streams, world, layout
        self.first_answer = first_answer
        self.schedule = Schedule(condition.optimizer, condition.training.steps)
        self._dropout = None if isinstance(condition.model, HuggingFaceSpec) else condition.model.dropout
        self._clip = condition.optimizer.grad_clip_norm
        self.share = condition.training.batch_size // spec.processes
        self.part = self.share // spec.accumulate
        self.loss = self.grad_norm = 0.0
        self.cuts = _cuts(layout, world)

    def train_step(self, step: int, inputs: Tensor, targets: Tensor) -> None:
        """Make update number `step` with the whole batch [batch, length]."""
        asked = targets[:, self.first_answer :]
        count = max(1, int((asked != IGNORE).sum()))
        scale = self.world.size / count  # layouts make means over the processes; the loss is a sum over them
        z_loss = at(self.condition.training.z_loss, step)
        total = torch.zeros((), dtype=torch.float64)
        begin = self.world.rank * self.share
        for first in range(begin, begin + self.share, self.part):
            some = slice(first, first + self.part)
            found: list[Tensor] = []
            objective = partial(_objective, asked[some].to(self.world.device), scale, z_loss, found)
            is_last = first + self.part == begin + self.share
            with self._masks(step, first) as drop:
                self.layout.learn(inputs[some].to(self.world.device), drop, objective, is_last=is_last)
            total += found[0].double().cpu()
        self.loss = float(self.world.sum(total)) / count
        finite = np.isfinite(self.loss)
        limit = None if self._clip is None else at(self._clip, step)
        self.grad_norm = self.layout.update(self.schedule.at(step), limit) if finite else float("nan")

    @contextmanager
    def _masks(self, step: int, first: int) -> Iterator[Any]:
        """Give the masks of the part of a batch from row `first` on, keyed by seed, step and row.

        A module of the library draws them from torch's generators, which are seeded for it and put back.
        """
        generator = self.streams.dropout(step, first)
        if self._dropout is None:
            devices = [self.world.device] if self.world.device.type == "cuda" else []
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(int(generator.integers(0, 2**63)))
                yield _keep
        else:
            rate = at(self._dropout, step)
            yield partial(_drop, generator, rate) if rate else _keep

    @torch.no_grad()
    def evaluate(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the likeliest token and the loss at each position, int64 and float32 [items, length].

        Every process measures as many items at a time as it trains on: one shape, whatever the set's size.
        """
        items, length = inputs.shape
        predicted, losses = torch.zeros(items, length, dtype=torch.int64), torch.zeros(items, length)
        together = self.part * self.world.size
        self.layout.whole.eval()
        for begin in range(0, items, together):
            rows = torch.arange(begin, begin + together).clamp(max=items - 1)
            mine = rows[self.world.rank * self.part :][: self.part]
            tokens, nll = self._measured(inputs[mine], targets[mine])
            kept = min(together, items - begin)
            where = (slice(begin, begin + kept), slice(self.first_answer, None))
            predicted[where] = self.world.gather(tokens)[:kept].cpu()
            losses[where] = self.world.gather(nll)[:kept].cpu()
        self.layout.whole.train()
        return predicted, losses

    def hidden(self, inputs: Tensor) -> list[Tensor]:
        """Return what each block makes of inputs [items, length], as float32 [row, width]; see `Layered`."""
        layers = self._shown(layers_of, inputs)
        if layers[-1].dim() == 3:
            layers[-1] = layers[-1][:, self.first_answer :]
        return [layer.flatten(0, -2) for layer in layers]

    def attention(self, inputs: Tensor) -> list[Tensor]:
        """Return each layer's weights of attention, float32 [item, head, from, to], for inputs [item, length]."""
        return self._shown(attention_of, inputs)

    @torch.no_grad()
    def _shown(self, look: Shown, inputs: Tensor) -> list[Tensor]:
        """Return what the module shows, on every process: as many items at a time as one trains on."""
        found = []
        self.layout.whole.eval()
        with look(self.layout.whole) as shown:
            for some in torch.split(inputs, self.part):
                shown.clear()
                self.layout.logits(some.to(self.world.device), _keep)
                found.append([one.float().cpu() for one in shown])
        self.layout.whole.train()
        return [torch.cat(parts) for parts in zip(*found, strict=True)]

    def _measured(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layout.logits(inputs.to(self.world.device), _keep)
        asked = targets[:, self.first_answer :].to(self.world.device)
        nll = F.cross_entropy(logits.transpose(1, 2), asked, ignore_index=IGNORE, reduction="none")
        return logits.argmax(-1), nll

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`, without a run axis."""
        self.layout.load(state)


def _cuts(layout: Layout, world: World) -> tuple[Cut, ...]:
    """Return what each process holds of each moment; every process has to call it."""
    mine = {name: piece.cut for name, piece in layout.pieces().items()}
    names = [name for name in layout.blanks() if name.startswith(MOMENTS)]
    ranges = world.gather(torch.tensor([[mine.get(name, (0, 0)) for name in names]]))
    found = tuple({name: (a, b) for name, (a, b) in zip(names, row, strict=True) if a < b} for row in ranges.tolist())
    return found if any(found) else ()


def _objective(asked: Tensor, scale: float, z_loss: float, found: list[Tensor], logits: Tensor) -> Tensor:
    """Return what is minimised; the sum of the cross-entropies, in nats, is put into `found`."""
    nll = F.cross_entropy(logits.flatten(0, 1), asked.flatten(), ignore_index=IGNORE, reduction="sum")
    found.append(nll.detach())
    if z_loss:
        log_z = logits.logsumexp(-1).masked_fill(asked == IGNORE, 0.0)
        return (nll + z_loss * log_z.square().sum()) * scale
    return nll * scale


def _keep(values: Tensor) -> Tensor:
    return values


def _drop(generator: np.random.Generator, rate: float, values: Tensor) -> Tensor:
    """Return values with some dropped: rows of all sequences in one axis, as a pack draws them."""
    rows = (values.numel() // values.shape[-1], values.shape[-1])
    kept = torch.from_numpy(generator.random(rows, np.float32) >= rate).to(values.device)
    return values * kept.view(values.shape) / (1 - rate)
