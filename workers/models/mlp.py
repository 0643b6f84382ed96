"""A seed-batched multilayer perceptron: one-hot tokens of the whole sequence in, logits at the last position out."""

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor

from jobs.spec import MlpSpec
from workers.models.family import Affine, Masks, Parameter, Seen, activate


class Mlp:
    """The perceptron of a spec for a vocabulary size and a length in tokens."""

    def __init__(self, spec: MlpSpec, vocabulary_size: int, length: int) -> None:
        self.spec, self.vocabulary_size, self.length = spec, vocabulary_size, length
        self.first_answer: int = length - 1
        self.parameters: Sequence[Parameter] = tuple(_parameters(spec, vocabulary_size, length))

    def logits(self, values: Mapping[str, Tensor], tokens: Tensor, drop: Masks, seen: Seen | None = None) -> Tensor:
        """Return [run, batch, 1, vocabulary] for int64 tokens [run, batch, length]."""
        runs, batch, _ = tokens.shape
        rows = torch.zeros(runs, batch, self.length, self.vocabulary_size)
        rows.scatter_(3, tokens[..., None], 1.0)
        x = rows.view(runs, batch, -1)
        for index in range(self.spec.layers):
            x = Affine.apply(x, values[f"layers.{index}.weight"], values[f"layers.{index}.bias"])  # type: ignore[no-untyped-call]
            x = drop(activate(self.spec.activation, x))
            if seen is not None:
                seen.layers.append(x)
        return Affine.apply(x, values["head.weight"], values["head.bias"])[:, :, None]  # type: ignore[no-any-return, no-untyped-call]


def _parameters(spec: MlpSpec, vocabulary_size: int, length: int) -> list[Parameter]:
    found: list[Parameter] = []
    # Of the one-hot inputs, `length` are on at a time, so that is the fan-in of the first layer.
    size, fan_in = length * vocabulary_size, length
    for index in range(spec.layers):
        found.append(Parameter(f"layers.{index}.weight", (size, spec.width), std=1 / sqrt(fan_in)))
        found.append(Parameter(f"layers.{index}.bias", (spec.width,), decays=False))
        size = fan_in = spec.width
    found.append(Parameter("head.weight", (size, vocabulary_size), std=1 / sqrt(fan_in)))
    found.append(Parameter("head.bias", (vocabulary_size,), decays=False))
    return found
