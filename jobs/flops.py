"""FLOPs of training by formula: 6 a parameter and token, attention of large models, what is frozen, and second passes.

Forward 2 for a parameter and token, back through it 2, for its own gradient 2 (Kaplan et al. 2020, 2.1); attention as
in PaLM (Chowdhery et al. 2022, appendix B). Formulas, not measurements: the plan tells them before anything runs, and
probes the same ones as runs go on (`measure: [cost]`).
"""

from dataclasses import dataclass

from jobs.scalar import ever
from jobs.spec import Condition, HuggingFaceSpec, OptimizerSpec

_FORWARD, _PASSES = 2, 3  # forward, back through it, its own gradient
_ATTENTION = 12  # per layer, width, position attended to and token


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many parameters a model has, how many are trained, and of how many a gradient is computed."""

    parameters: int
    trained: int
    sloped: int

    @classmethod
    def whole(cls, parameters: int) -> "Sizes":
        """Return the sizes of a model of which all is trained."""
        return cls(parameters, parameters, parameters)


def training_flops(condition: Condition, sizes: Sizes, length: int, tokens: int) -> int:
    """Return the FLOPs that training on `tokens` takes in sequences of `length`.

    The way forward and back through frozen parameters is counted; their gradient, which nobody computes, is not.
    """
    per_token = _FORWARD * _PASSES * sizes.parameters
    if isinstance(condition.model, HuggingFaceSpec):
        per_token += _ATTENTION * condition.model.layers * condition.model.width * length
    optimizer = condition.optimizer
    if isinstance(optimizer, OptimizerSpec) and ever(optimizer.sharpness_radius):
        # Twice; a trust region takes two ways forward more, each a third of a pass.
        per_token = per_token * (8 if optimizer.has_trust_region else 6) // 3
    return per_token * tokens * (2 * sizes.parameters + sizes.sloped) // (3 * sizes.parameters)


def forward_flops(parameters: int, tokens: int) -> int:
    """Return the FLOPs of a pass over `tokens` that only looks."""
    return _FORWARD * parameters * tokens
