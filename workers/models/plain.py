"""One run's model as an ordinary torch module: the oracle of the seed-batched families, and what a user loads.

The names and shapes of its parameters are those of a run's slice, so `load_state_dict` takes one as it is.
"""

from itertools import pairwise
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jobs.spec import GptSpec, LstmSpec, MlpSpec, Packable
from workers.models.gpt import NORM_EPSILON, ROTARY_BASE
from workers.models.lstm import FORGET_BIAS


def build(spec: Packable, vocabulary_size: int, length: int) -> nn.Module:
    """Return the module of a spec; it maps int64 tokens [batch, length] to logits.

    gpt and lstm: [batch, length, vocabulary]; mlp: [batch, 1, vocabulary], at the last position.
    """
    if isinstance(spec, GptSpec):
        return PlainGpt(spec, vocabulary_size, length)
    if isinstance(spec, LstmSpec):
        return PlainLstm(spec, vocabulary_size)
    return PlainMlp(spec, vocabulary_size, length)


class _Gain(nn.Module):
    """A normalisation over the last axis with a gain and without a bias."""

    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.kind = spec.norm
        self.gain = nn.Parameter(torch.ones(spec.width))

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "layernorm":
            x = x - x.mean(-1, keepdim=True)
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + NORM_EPSILON) * self.gain


class _Attention(nn.Module):
    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.spec = spec
        self.qkv = nn.Parameter(torch.empty(spec.width, 3 * spec.width))
        self.out = nn.Parameter(torch.empty(spec.width, spec.width))
        self.weights = nn.Softmax(-1)  # a module, so that a hook can see what it makes

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        heads = self.spec.heads
        q, k, v = (part.view(batch, length, heads, -1).transpose(1, 2) for part in (x @ self.qkv).chunk(3, -1))
        if self.spec.positions == "rotary":
            q, k = rotate(q), rotate(k)
        scores = q @ k.transpose(-1, -2) / sqrt(width // heads)
        if self.spec.attention == "causal":
            scores = scores.masked_fill(torch.ones(length, length, dtype=torch.bool).triu(1), float("-inf"))
        weights: Tensor = self.weights(scores)
        return (weights @ v).transpose(1, 2).reshape(batch, length, width) @ self.out


def rotate(x: Tensor) -> Tensor:
    """Return x [batch, heads, length, size] with rotary positions (Su et al. 2021), as complex numbers."""
    length, size = x.shape[-2:]
    angles = torch.arange(length).double()[:, None] * ROTARY_BASE ** (-torch.arange(0, size, 2).double() / size)
    turned = torch.complex(x[..., : size // 2], x[..., size // 2 :]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([turned.real, turned.imag], -1).to(x.dtype)


class _FeedForward(nn.Module):
    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.activation = spec.activation
        hidden = spec.feedforward_multiple * spec.width
        self.up = nn.Parameter(torch.empty(spec.width, 2 * hidden if self.activation == "swiglu" else hidden))
        self.down = nn.Parameter(torch.empty(hidden, spec.width))

    def forward(self, x: Tensor) -> Tensor:
        h = x @ self.up
        if self.activation == "swiglu":
            gate, value = h.chunk(2, -1)
            return (F.silu(gate) * value) @ self.down
        return F.gelu(h) @ self.down


class _Block(nn.Module):
    def __init__(self, spec: GptSpec) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = _Gain(spec), _Gain(spec)
        self.attention, self.feedforward = _Attention(spec), _FeedForward(spec)

    def forward(self, x: Tensor, drop: Any) -> Tensor:
        x = x + drop(self.attention(self.norm_1(x)))
        out: Tensor = x + drop(self.feedforward(self.norm_2(x)))
        return out


class PlainGpt(nn.Module):
    """The transformer of one run."""

    def __init__(self, spec: GptSpec, vocabulary_size: int, length: int) -> None:
        super().__init__()
        self.spec = spec
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, spec.width))
        if spec.positions == "learned":
            self.positions = nn.Parameter(torch.empty(length, spec.width))
        self.blocks = nn.ModuleList(_Block(spec) for _ in range(spec.layers))
        self.norm = _Gain(spec)
        if not spec.tied_head:
            self.head = nn.Parameter(torch.empty(spec.width, vocabulary_size))

    def forward(self, tokens: Tensor, drop: Any = lambda x: x) -> Tensor:
        """Return logits [batch, length, vocabulary] for tokens [batch, length]."""
        x = F.embedding(tokens, self.embedding)
        if self.spec.positions == "learned":
            x = x + self.positions[: tokens.shape[1]]
        x = drop(x)
        for block in self.blocks:
            x = block(x, drop)
        out: Tensor = self.norm(x) @ (self.embedding.T if self.spec.tied_head else self.head)
        return out


class _Recurrence(nn.Module):
    """One layer of an LSTM over all steps; the gates are in, forget, out, and what is new."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input, self.recurrent = (nn.Parameter(torch.empty(width, 4 * width)) for _ in range(2))
        self.bias = nn.Parameter(torch.zeros(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        state = memory = x.new_zeros(x.shape[0], x.shape[2])
        states = []
        for now in x.unbind(1):
            into, forget, out, new = (now @ self.input + state @ self.recurrent + self.bias).chunk(4, -1)
            memory = torch.sigmoid(forget + FORGET_BIAS) * memory + torch.sigmoid(into) * torch.tanh(new)
            state = torch.sigmoid(out) * torch.tanh(memory)
            states.append(state)
        return torch.stack(states, dim=1)


class PlainLstm(nn.Module):
    """The recurrent model of one run."""

    def __init__(self, spec: LstmSpec, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, spec.width))
        self.layers = nn.ModuleList(_Recurrence(spec.width) for _ in range(spec.layers))
        if not spec.tied_head:
            self.head = nn.Parameter(torch.empty(spec.width, vocabulary_size))

    def forward(self, tokens: Tensor, drop: Any = lambda x: x) -> Tensor:
        """Return logits [batch, length, vocabulary] for tokens [batch, length]."""
        x = drop(F.embedding(tokens, self.embedding))
        for layer in self.layers:
            x = drop(layer(x))
        out: Tensor = x @ (self.head if hasattr(self, "head") else self.embedding.T)
        return out


class _Affine(nn.Module):
    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.empty(fan_in, fan_out)), nn.Parameter(torch.zeros(fan_out))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class _Layer(_Affine):
    """What a hook sees of it is its activations."""

    def __init__(self, fan_in: int, fan_out: int, activation: str) -> None:
        super().__init__(fan_in, fan_out)
        self.activation = {"relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh}[activation]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(super().forward(x))
        return out


class PlainMlp(nn.Module):
    """The perceptron of one run."""

    def __init__(self, spec: MlpSpec, vocabulary_size: int, length: int) -> None:
        super().__init__()
        self.vocabulary_size = vocabulary_size
        widths = [length * vocabulary_size, *[spec.width] * spec.layers]
        self.layers = nn.ModuleList(_Layer(a, b, spec.activation) for a, b in pairwise(widths))
        self.head = _Affine(spec.width, vocabulary_size)

    def forward(self, tokens: Tensor, drop: Any = lambda x: x) -> Tensor:
        """Return logits [batch, 1, vocabulary] for tokens [batch, length]."""
        x = F.one_hot(tokens, self.vocabulary_size).flatten(1).to(self.head.weight.dtype)
        for layer in self.layers:
            x = drop(layer(x))
        out: Tensor = self.head(x)[:, None]
        return out
