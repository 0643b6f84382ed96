"""What a seed-batched family is: a list of parameters, and a forward pass over a leading run axis.

Weight matrices are [in, out]. A gain that follows a normalisation multiplies the rows of the next matrix, which
is the same mathematics and saves a pass over the activations.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.seeds import Streams


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of one run: its name, shape and initial values.

    std    of the normal distribution it is drawn from; 0: every value is `fill`
    decays whether weight decay applies (matrices and embeddings: yes, gains and biases: no)
    """

    name: str
    shape: tuple[int, ...]
    std: float = 0.0
    fill: float = 0.0
    decays: bool = True

    @property
    def size(self) -> int:
        """Return the number of values."""
        return int(np.prod(self.shape))

    def draw(self, streams: Streams) -> NDArray[np.float32]:
        """Return the initial values of the run with these streams."""
        if not self.std:
            return np.full(self.shape, self.fill, np.float32)
        return streams.init(self.name).standard_normal(self.shape, dtype=np.float32) * np.float32(self.std)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a forward pass leaves behind for those who look into it.

    layers  what each layer makes, [run, rows, width]: a row for each position from which answers follow
    maps    each layer's weights of attention, [run·batch, head, from, to]; None where nobody asks for them
    """

    layers: list[Tensor] = field(default_factory=list)
    maps: list[Tensor] | None = None


class Masks(Protocol):
    """Where a forward pass asks for its dropout masks, site by site."""

    def __call__(self, values: Tensor) -> Tensor:
        """Return `values` [run, …] with some dropped and the others scaled up; unchanged in evaluation."""


class Drawn(Protocol):
    """What the initial weights of a model of fixed shape are drawn from."""

    @property
    def parameters(self) -> Sequence[Parameter]:
        """Return the parameters of one run."""

    @property
    def first_answer(self) -> int:
        """Return the first position that is asked for."""


class Family(Drawn, Protocol):
    """A seed-batched model of fixed shape."""

    def logits(self, values: Mapping[str, Tensor], tokens: Tensor, drop: Masks, seen: Seen | None = None) -> Tensor:
        """Return the logits at positions from `first_answer` on, and fill `seen`.

        values: name → [run, …]; tokens: int64 [run, batch, length]; returns [run, batch, answers, vocabulary].
        """


SMALL_VOCABULARY = 256  # up to here a product with one-hot rows is faster than a gather and its scatter


def look_up(table: Tensor, tokens: Tensor) -> Tensor:
    """Return the rows [run, batch·length, width] of table [run, rows, width] at tokens [run, batch, length]."""
    runs, rows, _ = table.shape
    if rows <= SMALL_VOCABULARY:
        return torch.bmm(torch.eye(rows)[tokens].view(runs, -1, rows), table)
    return gather_rows(table, tokens)


def gather_rows(table: Tensor, tokens: Tensor) -> Tensor:
    """Return the same by a gather."""
    runs, rows, width = table.shape
    offsets = torch.arange(runs)[:, None, None] * rows
    return torch.nn.functional.embedding(tokens + offsets, table.reshape(-1, width)).view(runs, -1, width)


class Affine(torch.autograd.Function):
    """x·w + b with a leading run axis; the bias's gradient is a matrix product.

    A plain sum over rows would add in an order that depends on the pack's width and on threads.
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        """Return [run, rows, out] for x [run, rows, in], w [run, in, out], b [run, out]."""
        ctx.save_for_backward(x, w)
        return torch.baddbmm(b[:, None, :], x, w)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        """Return the gradients of x, w and b."""
        x, w = ctx.saved_tensors  # type: ignore[attr-defined]
        g = gradients[0]
        dx = torch.bmm(g, w.transpose(1, 2)) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        ones = g.new_ones(1, 1, g.shape[1]).expand(g.shape[0], 1, -1)
        return dx, torch.bmm(x.transpose(1, 2), g), torch.bmm(ones, g)[:, 0]


def padded_rows(x: Tensor, multiple: int = 1024) -> Tensor:
    """Return x [run, rows, width] with rows of zeros added until each run's part is a multiple of `multiple` values.

    The vector and the scalar code of exp, erf and tanh round differently, and which of them sees a value depends on
    where in memory it lies. With such parts every value meets the vector code, in any slot, with 1, 2, 4, … threads.
    """
    width = x.shape[2]
    step = multiple // int(np.gcd(multiple, width))
    missing = -x.shape[1] % step
    return torch.nn.functional.pad(x, (0, 0, 0, missing)) if missing else x


def activate(name: str, x: Tensor) -> Tensor:
    """Return the activation of x [run, rows, width]; `swiglu` takes its gate from the first half of the width."""
    rows = x.shape[1]
    if name == "swiglu":
        gate, value = x.chunk(2, dim=2)
        return torch.nn.functional.silu(padded_rows(gate.contiguous()))[:, :rows] * value
    if name == "relu":
        return torch.relu(x)
    padded = padded_rows(x)
    return (torch.nn.functional.gelu(padded) if name == "gelu" else torch.tanh(padded))[:, :rows]
