"""A seed-batched transformer: every parameter has a leading run axis.

Pre-norm blocks without biases; the options of `GptSpec`. Only positions from `first_answer` on are asked for,
so the last block computes queries, feed-forward and logits there alone: the same mathematics, less of it.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.spec import GptSpec
from workers.models.attention import attend, attend_narrow, attend_together, is_narrow
from workers.models.family import SMALL_VOCABULARY, Masks, Parameter, Seen, activate, gather_rows

NORM_EPSILON = 1e-5
ROTARY_BASE = 10_000.0


class Gpt:
    """The transformer of a spec for a vocabulary size and a length in tokens."""

    def __init__(self, spec: GptSpec, vocabulary_size: int, length: int, first_answer: int) -> None:
        self.spec, self.vocabulary_size, self.length = spec, vocabulary_size, length
        self.first_answer: int = first_answer
        self.parameters: Sequence[Parameter] = tuple(_parameters(spec, vocabulary_size, length))
        self._rotation = _rotation(length, spec.width // spec.heads) if spec.positions == "rotary" else None

    def logits(self, values: Mapping[str, Tensor], tokens: Tensor, drop: Masks, seen: Seen | None = None) -> Tensor:
        """Return [run, batch, answers, vocabulary] for int64 tokens [run, batch, length]."""
        runs, batch, length = tokens.shape
        x = drop(self._embed(values, tokens))
        for index in range(self.spec.layers):
            asked = self.first_answer if index == self.spec.layers - 1 else 0
            x = self._block(values, f"blocks.{index}.", x, (batch, length, asked), drop, seen)
            if seen is not None:
                seen.layers.append(x)
        x = self._norm(x)
        head = values["embedding"].transpose(1, 2) if self.spec.tied_head else values["head"]
        out = torch.bmm(x, values["norm.gain"][:, :, None] * head)
        return out.view(runs, batch, length - self.first_answer, self.vocabulary_size)

    def _embed(self, values: Mapping[str, Tensor], tokens: Tensor) -> Tensor:
        """Return [run, batch·length, width]."""
        runs, batch, length = tokens.shape
        learned = self.spec.positions == "learned"
        table = torch.cat([values["embedding"], values["positions"]], dim=1) if learned else values["embedding"]
        places = torch.arange(length) + self.vocabulary_size
        if self.vocabulary_size <= SMALL_VOCABULARY:
            return torch.bmm(self._one_hot(tokens), table)
        x = gather_rows(table, tokens)
        return x + gather_rows(table, places.expand(runs, batch, length)) if learned else x

    def _one_hot(self, tokens: Tensor) -> Tensor:
        """Return [run, batch·length, vocabulary (+ length)]: the token, and the place where places are learned."""
        runs, batch, length = tokens.shape
        rows = torch.eye(self.vocabulary_size)[tokens]
        if self.spec.positions == "learned":
            places = torch.eye(self.length)[:length].expand(runs, batch, length, self.length)
            rows = torch.cat([rows, places], dim=3)
        return rows.view(runs, batch * length, -1)

    def _block(
        self,
        values: Mapping[str, Tensor],
        at: str,
        x: Tensor,
        shape: tuple[int, int, int],
        drop: Masks,
        seen: Seen | None,
    ) -> Tensor:
        batch, length, asked = shape
        mixed = self._attention(values, at, self._norm(x), shape, seen)
        if asked:
            x = x.view(x.shape[0], batch, length, -1)[:, :, asked:].reshape(mixed.shape)
        x = x + drop(mixed)
        up = values[at + "norm_2.gain"][:, :, None] * values[at + "feedforward.up"]
        hidden = activate(self.spec.activation, torch.bmm(self._norm(x), up))
        return x + drop(torch.bmm(hidden, values[at + "feedforward.down"]))

    def _attention(
        self, values: Mapping[str, Tensor], at: str, x: Tensor, shape: tuple[int, int, int], seen: Seen | None
    ) -> Tensor:
        """Return attention with its projections, [run, rows, width] of the positions that are asked for."""
        batch, length, asked = shape
        spec, runs, causal = self.spec, x.shape[0], self.spec.attention == "causal"
        heads, size, maps = spec.heads, spec.width // spec.heads, seen.maps if seen else None
        qkv = values[at + "norm_1.gain"][:, :, None] * values[at + "attention.qkv"]
        out = values[at + "attention.out"]
        if not asked and self._rotation is None and is_narrow(spec.width, heads, length):
            return attend_narrow(x, qkv, out, heads=heads, length=length, causal=causal, maps=maps)
        if asked:
            rest = length - asked
            some = x.view(runs, batch, length, -1)[:, :, asked:].reshape(runs, batch * rest, -1)
            q = torch.bmm(some, qkv[:, :, : spec.width]).view(runs * batch, rest, heads, size)
            k, v = torch.bmm(x, qkv[:, :, spec.width :]).view(runs * batch, length, 2, heads, size).unbind(2)
            mixed = attend(*self._turned(q, k, asked), v, causal=causal)
        else:
            together = torch.bmm(x, qkv).view(runs * batch, length, 3, heads, size)
            if self._rotation is not None:
                q, k, v = together.unbind(2)
                together = torch.stack([*self._turned(q, k, 0), v], dim=2)
            mixed = attend_together(together, causal=causal, maps=maps)
        return torch.bmm(mixed.reshape(runs, -1, spec.width), out)

    def _turned(self, q: Tensor, k: Tensor, asked: int) -> tuple[Tensor, Tensor]:
        """Return q (from position `asked` on) and k with rotary positions, where the spec has them."""
        if self._rotation is None:
            return q, k
        return _rotate(q, self._rotation, asked), _rotate(k, self._rotation, 0)

    def _norm(self, x: Tensor) -> Tensor:
        if self.spec.norm == "layernorm":
            return F.layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)
        return _RmsNorm.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class _RmsNorm(torch.autograd.Function):
    """x / √(mean x² + ε), row by row (Zhang & Sennrich 2019)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        scale = (x.square().mean(dim=-1, keepdim=True) + NORM_EPSILON).rsqrt_()
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        y, scale = ctx.saved_tensors  # type: ignore[attr-defined]
        g = gradients[0]
        return g.addcmul(y, (g * y).mean(dim=-1, keepdim=True), value=-1).mul_(scale)


def _rotation(length: int, size: int) -> Tensor:
    """Return cosines and sines [2, length, 1, size/2] of rotary positions (Su et al. 2021)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])[:, :, None, :].float()


def _rotate(x: Tensor, rotation: Tensor, first: int) -> Tensor:
    cos, sin = rotation[:, first : first + x.shape[1]]
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)


def _parameters(spec: GptSpec, vocabulary_size: int, length: int) -> list[Parameter]:
    width, hidden = spec.width, spec.feedforward_multiple * spec.width
    up = 2 * hidden if spec.activation == "swiglu" else hidden
    found = [Parameter("embedding", (vocabulary_size, width), std=spec.embedding_std)]
    if spec.positions == "learned":
        found.append(Parameter("positions", (length, width), std=spec.embedding_std))
    for index in range(spec.layers):
        at = f"blocks.{index}."
        found += [
            Parameter(at + "norm_1.gain", (width,), fill=1.0, decays=False),
            Parameter(at + "attention.qkv", (width, 3 * width), std=1 / sqrt(width)),
            Parameter(at + "attention.out", (width, width), std=1 / sqrt(width)),
            Parameter(at + "norm_2.gain", (width,), fill=1.0, decays=False),
            Parameter(at + "feedforward.up", (width, up), std=1 / sqrt(width)),
            Parameter(at + "feedforward.down", (hidden, width), std=1 / sqrt(hidden)),
        ]
    found.append(Parameter("norm.gain", (width,), fill=1.0, decays=False))
    if not spec.tied_head:
        found.append(Parameter("head", (width, vocabulary_size), std=1 / sqrt(width)))
    return found
