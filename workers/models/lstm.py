"""A seed-batched LSTM (Hochreiter & Schmidhuber 1997; forget gates: Gers et al. 2000), layer upon layer.

A state lies as [run, width, column], a column for each sequence: the gates of a step are then blocks that lie together.
Columns of zeros, which stay zero, fill each block up to whole vectors (see `padded_rows` in `family.py`).
"""

from collections.abc import Mapping, Sequence
from math import gcd, sqrt

import torch
from torch import Tensor

from jobs.spec import LstmSpec
from workers.models.family import Affine, Masks, Parameter, Seen, look_up

FORGET_BIAS = 1.0  # added to the forget gate, so that memory lasts at the beginning (Jozefowicz et al. 2015)
_VALUES = 1024  # of a gate of a run: a multiple of it


class Lstm:
    """The recurrent model of a spec for a vocabulary size and a length in tokens."""

    def __init__(self, spec: LstmSpec, vocabulary_size: int, length: int, first_answer: int) -> None:
        self.spec, self.vocabulary_size, self.length = spec, vocabulary_size, length
        self.first_answer: int = first_answer
        self.parameters: Sequence[Parameter] = tuple(_parameters(spec, vocabulary_size))

    def logits(self, values: Mapping[str, Tensor], tokens: Tensor, drop: Masks, seen: Seen | None = None) -> Tensor:
        """Return [run, batch, answers, vocabulary] for int64 tokens [run, batch, length]."""
        runs, batch, length = tokens.shape
        x = drop(look_up(values["embedding"], tokens))
        for index in range(self.spec.layers):
            first = self.first_answer if index == self.spec.layers - 1 else 0
            x = drop(_layer(values, f"layers.{index}.", x.view(runs, batch, length, -1), first))
            if seen is not None:
                seen.layers.append(x)
        head = values["embedding"].transpose(1, 2) if self.spec.tied_head else values["head"]
        return torch.bmm(x, head).view(runs, batch, length - self.first_answer, self.vocabulary_size)


def _layer(values: Mapping[str, Tensor], at: str, x: Tensor, first: int) -> Tensor:
    """Return the states from position `first` on, [run, batch·positions, width], for x [run, batch, length, width]."""
    runs, batch, length, width = x.shape
    bias = values[at + "bias"]
    forget = torch.zeros_like(bias)
    forget[:, width : 2 * width] = FORGET_BIAS
    gates = Affine.apply(x.reshape(runs, -1, width), values[at + "input"], bias + forget)  # type: ignore[no-untyped-call]
    missing = -batch % (_VALUES // gcd(_VALUES, width))
    columns = gates.view(runs, batch, length, 4 * width).permute(2, 0, 3, 1)
    columns = torch.nn.functional.pad(columns.contiguous(), (0, missing))
    recurrent = values[at + "recurrent"].transpose(1, 2)
    state = memory = x.new_zeros(runs, width, batch + missing)
    states = []
    for now in columns:
        state, memory = _Cell.apply(torch.baddbmm(now, recurrent, state), memory)  # type: ignore[no-untyped-call]
        states.append(state)
    kept = torch.stack(states[first:], dim=3)[:, :, :batch]
    return kept.reshape(runs, width, -1).transpose(1, 2).contiguous()


class _Cell(torch.autograd.Function):
    """One step from the gates' sums [run, 4·width, column] (in, forget, out, what is new) and the memory before it."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, sums: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state and the memory, [run, width, column] each."""
        width = memory.shape[1]
        gates, new = torch.sigmoid(sums[:, : 3 * width]), torch.tanh(sums[:, 3 * width :])
        into, forget, out = gates.chunk(3, dim=1)
        after = (forget * memory).add_(into * new)
        shown = torch.tanh(after)
        ctx.save_for_backward(gates, new, memory, shown)
        return out * shown, after

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the sums and of the memory before."""
        gates, new, memory, shown = ctx.saved_tensors  # type: ignore[attr-defined]
        of_state, of_memory = gradients
        into, forget, out = gates.chunk(3, dim=1)
        slope = of_memory + of_state * out * (1 - shown * shown)
        of_gates = torch.cat([slope * new, slope * memory, of_state * shown], dim=1) * gates * (1 - gates)
        of_sums = torch.cat([of_gates, slope * into * (1 - new * new)], dim=1)
        return of_sums, slope * forget


def _parameters(spec: LstmSpec, vocabulary_size: int) -> list[Parameter]:
    width, std = spec.width, 1 / sqrt(spec.width)
    found = [Parameter("embedding", (vocabulary_size, width), std=spec.embedding_std)]
    for index in range(spec.layers):
        found += [
            Parameter(f"layers.{index}.input", (width, 4 * width), std=std),
            Parameter(f"layers.{index}.recurrent", (width, 4 * width), std=std),
            Parameter(f"layers.{index}.bias", (4 * width,), decays=False),
        ]
    if not spec.tied_head:
        found.append(Parameter("head", (width, vocabulary_size), std=std))
    return found
