"""Softmax attention over many small heads, causal or full.

PyTorch's fused attention costs about 7 µs a head, forward and backward, whatever the head's size: with a crowd of
seeds that is half of a step. From `_LONG` tokens on, plain products over slabs of heads that fit the cache are 1.5 to
2.6 times as fast (measured at 32 tokens, head sizes 32 to 4); below, the fused kernel is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

_LONG = 24
_MOST_EXPLICIT = 256  # tokens; beyond, the square of the length no longer fits the cache
_SLAB = 512  # heads
_SMALL_HEAD = 8
_VECTOR = 16  # floats in the widest register
_NARROWEST = 12  # below, MKL rounds a transposed product otherwise


def attend_together(qkv: Tensor, *, causal: bool, maps: list[Tensor] | None = None) -> Tensor:
    """Return attention [n, length, heads, size] of all positions for qkv [n, length, 3, heads, size].

    maps  is given the weights [n, heads, from, to]; their gradients count
    """
    length = qkv.shape[1]
    if maps is not None or _LONG <= length <= _MOST_EXPLICIT:
        out, weights = _Slabs.apply(qkv, causal)  # type: ignore[no-untyped-call]
        if maps is not None:
            maps.append(weights.view(len(qkv), -1, length, length))
        return out  # type: ignore[no-any-return]
    return attend(*qkv.unbind(2), causal=causal)


def is_narrow(width: int, heads: int, length: int) -> bool:
    """Return whether `attend_narrow` serves; its bits are those of the other way."""
    return width >= _NARROWEST and width // heads <= _SMALL_HEAD and _LONG <= length <= _MOST_EXPLICIT


def attend_narrow(
    x: Tensor, qkv: Tensor, out: Tensor, *, heads: int, length: int, causal: bool, maps: list[Tensor] | None = None
) -> Tensor:
    """Return attention of all positions with its projections, [run, batch·length, width] for x of that shape.

    qkv   [run, width, 3·width], queries first
    out   [run, width, width]
    maps  is given the weights [n, heads, from, to]; their gradients count
    """
    mixed, weights = _Narrow.apply(x, qkv, out, heads, length, causal)  # type: ignore[no-untyped-call]
    if maps is not None:
        maps.append(weights.transpose(1, 2).flatten(0, 1))
    return mixed  # type: ignore[no-any-return]


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Return attention of the last positions: [n, asked, heads, size] for k, v [n, length, heads, size]."""
    asked, length = q.shape[1], k.shape[1]
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if asked == length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2)
    if asked == 1 or not causal:
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    seen = torch.ones(asked, length, dtype=torch.bool).tril(length - asked)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen).transpose(1, 2)


def _slabs(heads: int) -> list[slice]:
    """Return slices of at least `_SLAB` heads, or one of all: never a slab of fewer matrices than threads."""
    count = max(heads // _SLAB, 1)
    edges = [heads * part // count for part in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


class _Slabs(torch.autograd.Function):
    """Attention of qkv [n, length, 3, heads, size], slab by slab.

    Returns [n, length, heads, size] and the weights [n·heads, from, to].
    """

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, qkv: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        _, length, _, heads, size = qkv.shape
        layout = _Layout(heads, length, size)
        q, k, v = (layout.gather(part) for part in qkv.unbind(2))
        out, weights = _mixed(q, k, v, layout, causal=causal)
        ctx.save_for_backward(q, k, v, weights)
        ctx.layout = layout  # type: ignore[attr-defined]
        return layout.scatter(out), weights

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> tuple[Tensor, None]:
        q, k, v, weights = ctx.saved_tensors  # type: ignore[attr-defined]
        layout: _Layout = ctx.layout  # type: ignore[attr-defined]
        parts = tuple(torch.empty_like(q) for _ in range(3))
        _slopes(layout.gather(gradients[0]), gradients[1], (q, k, v, weights), parts, layout)
        return torch.stack([layout.scatter(part) for part in parts], dim=2), None


class _Narrow(torch.autograd.Function):
    """Attention with its projections for x [run, rows, width], all of it with positions last in memory.

    The products that make queries, keys and values write them across at once, and heads are copied in whole rows.
    Returns [run, rows, width] and the weights [run, heads, batch, from, to]; all as in `attend_narrow`.
    """

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        qkv: Tensor,
        out: Tensor,
        heads: int,
        length: int,
        causal: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        runs, rows, width = x.shape
        layout, batch = _Layout(heads, length, width // heads), rows // length
        across = torch.bmm(qkv.transpose(1, 2), x.transpose(1, 2)).view(runs, 3, heads, -1, batch, length)
        parts = across.permute(1, 0, 2, 4, 3, 5).reshape(3, -1, layout.size, length)
        q, k, v = parts
        mixed, weights = _mixed(q, k, v, layout, causal=causal)
        mixed = mixed.view(runs, heads, batch, -1, length).transpose(2, 3).reshape(runs, width, rows)
        ctx.save_for_backward(x, qkv, out, parts, weights, mixed)
        ctx.layout = layout  # type: ignore[attr-defined]
        return torch.bmm(mixed.transpose(1, 2), out), weights.view(runs, heads, batch, length, length)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, qkv, out, parts, weights, mixed = ctx.saved_tensors  # type: ignore[attr-defined]
        layout: _Layout = ctx.layout  # type: ignore[attr-defined]
        (runs, rows, width), heads, length = x.shape, layout.heads, layout.length
        g, of_weights = gradients
        of_out = torch.bmm(mixed, g)
        of_mixed = torch.bmm(out, g.transpose(1, 2)).view(runs, heads, -1, rows // length, length)
        of_mixed = of_mixed.transpose(2, 3).reshape(-1, layout.size, length)
        found = torch.empty_like(parts)
        slopes = None if of_weights is None else of_weights.reshape(weights.shape)
        _slopes(of_mixed, slopes, (*parts, weights), tuple(found), layout)
        across = found.view(3, runs, heads, rows // length, -1, length).permute(1, 0, 2, 4, 3, 5)
        of_qkv = across.reshape(runs, 3 * width, rows).transpose(1, 2)
        return torch.bmm(of_qkv, qkv.transpose(1, 2)), torch.bmm(x.transpose(1, 2), of_qkv), of_out, None, None, None


def _mixed(q: Tensor, k: Tensor, v: Tensor, layout: "_Layout", *, causal: bool) -> tuple[Tensor, Tensor]:
    """Return attention laid out like q, k and v, and the weights [head, from, to]."""
    bias = q.new_zeros(layout.length, layout.length)
    if causal:
        bias.masked_fill_(torch.ones_like(bias, dtype=torch.bool).triu(1), float("-inf"))
    out, weights = torch.empty_like(q), q.new_empty(len(q), layout.length, layout.length)
    for some in _slabs(len(q)):
        scores = torch.baddbmm(bias, layout.rows(q[some]), layout.columns(k[some]), alpha=layout.size**-0.5)
        torch.softmax(scores, -1, out=weights[some])
        layout.product(weights[some], v[some], out[some])
    return out, weights


def _slopes(
    g: Tensor, of_weights: Tensor | None, saved: Sequence[Tensor], found: Sequence[Tensor], layout: "_Layout"
) -> None:
    """Write the gradients of q, k and v into `found`, for g behind the attention; all laid out like heads.

    of_weights  the gradient of the weights; None where nothing but the output is asked about
    """
    (q, k, v, weights), (dq, dk, dv) = saved, found
    for some in _slabs(len(q)):
        p = weights[some]
        layout.product(p.transpose(1, 2), g[some], dv[some])
        slope = torch.bmm(layout.rows(g[some]), layout.columns(v[some]))
        if of_weights is not None:
            slope += of_weights[some]
        slope = _softmax_slope(slope, p).mul_(layout.size**-0.5)
        layout.product(slope, k[some], dq[some])
        layout.product(slope.transpose(1, 2), q[some], dk[some])


def _softmax_slope(slope: Tensor, p: Tensor) -> Tensor:
    """Return the gradient before the softmax, for `slope` behind it and its result p."""
    if p.shape[-1] % _VECTOR == 0:
        return torch._softmax_backward_data(slope, p, -1, p.dtype)  # noqa: SLF001
    # The fused kernel rounds rows with a rest differently on one and on two threads (3e-8 at 26, 27, 33 and 40).
    slope = slope.mul_(p)
    return slope.addcmul(p, slope.sum(-1, keepdim=True), value=-1)


@dataclass(frozen=True, slots=True)
class _Layout:
    """How heads lie in memory: [head, length, size], or [head, size, length] where heads are small.

    A product whose result has rows of 4 floats leaves most of a vector register empty; across, its rows are as long
    as the sequence (1.7 times as fast at size 4, 1.4 at 8, no faster from 16 on).
    """

    heads: int
    length: int
    size: int

    @property
    def across(self) -> bool:
        return self.size <= _SMALL_HEAD

    def gather(self, part: Tensor) -> Tensor:
        """Return [head, …] for [n, length, heads, size]."""
        part = part.permute(0, 2, 3, 1) if self.across else part.transpose(1, 2)
        return part.reshape(-1, *part.shape[2:])

    def scatter(self, part: Tensor) -> Tensor:
        """Return [n, length, heads, size] for [head, …]."""
        apart = part.view(-1, self.heads, *part.shape[1:])
        return apart.permute(0, 3, 1, 2) if self.across else apart.transpose(1, 2)

    def rows(self, part: Tensor) -> Tensor:
        """Return a view [head, length, size]."""
        return part.transpose(1, 2) if self.across else part

    def columns(self, part: Tensor) -> Tensor:
        """Return a view [head, size, length]."""
        return part if self.across else part.transpose(1, 2)

    def product(self, weights: Tensor, part: Tensor, out: Tensor) -> None:
        """Write weights [head, length, length] times the rows of `part` into `out`, both laid out like heads."""
        if self.across:
            torch.bmm(part, weights.transpose(1, 2), out=out)
        else:
            torch.bmm(weights, part, out=out)
