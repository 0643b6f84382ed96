"""Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685) of matrices with a leading run axis.

An adapted matrix W [run, in, out] is W + (α/r) A B wherever a model asks for it, by one batched product: trained are A
and B, and beside them W is kept, which no gradient reaches. Merged, they are the matrix itself, by the same product:
so an exported model, a probe and the training loop see the same bits.
"""

from collections.abc import Mapping, Sequence
from math import sqrt

import torch
from torch import Tensor

from jobs.finetuning import LowRank
from workers.models.family import Parameter

DOWN, UP = ".low_rank.a", ".low_rank.b"  # behind the name of the matrix


def is_adapter(name: str) -> bool:
    """Return whether a tensor's name is that of an adapter, or of a moment of one."""
    return name.endswith((DOWN, UP))


def adapted(rule: LowRank, parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return those of the parameters that have adapters."""
    return tuple(p for p in parameters if p.name.endswith(tuple(f".{target}" for target in rule.targets)))


def adapters(rule: LowRank, parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Return the adapters of a model with these parameters."""
    return tuple(
        adapter
        for matrix in adapted(rule, parameters)
        for adapter in (
            Parameter(matrix.name + DOWN, (matrix.shape[0], rule.rank), std=1 / sqrt(matrix.shape[0])),
            Parameter(matrix.name + UP, (rule.rank, matrix.shape[1])),
        )
    )


def merged(rule: LowRank | None, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return parameters by name [run, …] with every adapter in its matrix, and none by itself."""
    if rule is None:
        return dict(values)
    scale = rule.alpha / rule.rank
    return {
        name: torch.baddbmm(value, values[name + DOWN], values[name + UP], alpha=scale)
        if name + DOWN in values
        else value
        for name, value in values.items()
        if not is_adapter(name)
    }
