"""AdamW over one flat buffer of all runs' parameters, with a gradient norm per run and a schedule.

Adam with decoupled weight decay, Loshchilov & Hutter 2019, algorithm 2. The buffer is [run, values]; each run's
part is padded, so that every value meets vector code whatever its slot (see `models/family.py`).
"""

from dataclasses import dataclass, field
from math import cos, pi

import torch
from torch import Tensor

from jobs.scalar import Curve, at
from jobs.spec import OptimizerSpec

CHUNK = 1024  # values; each run's part of the buffer is a multiple of it


def learning_rate(spec: OptimizerSpec, step: int, steps: int) -> float:
    """Return the rate of update `step` (from 0) of `steps`: warm-up, then decay to `final_fraction` at the last."""
    peak = at(spec.learning_rate, step)
    if step < spec.warmup_steps:
        return peak * (step + 1) / spec.warmup_steps
    if spec.decay == "constant":
        return peak
    done = (step - spec.warmup_steps) / max(steps - 1 - spec.warmup_steps, 1)
    fall = 0.5 * (1 + cos(pi * done)) if spec.decay == "cosine" else 1 - done
    return peak * (spec.final_fraction + (1 - spec.final_fraction) * fall)


@dataclass(slots=True)
class AdamW:
    """The optimiser of a pack.

    weights   [run, values], a multiple of CHUNK values, changed in place
    decayed   how many of the values, from the first on, decay
    """

    spec: OptimizerSpec
    steps: int
    weights: Tensor
    decayed: int
    gradients: Tensor = field(init=False)
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)
    _scratch: Tensor = field(init=False)
    _products: dict[str, list[float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gradients, self.first, self.second, self._scratch = (torch.zeros_like(self.weights) for _ in range(4))

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each run's gradient, float32 [run]."""
        squares = torch.mul(self.gradients, self.gradients, out=self._scratch)
        # In two stages: a sum over all values of one run alone would be split among threads, and its order with them.
        return squares.view(len(squares), -1, CHUNK).sum(2).sum(1).sqrt_()

    def clip(self, norms: Tensor, step: int) -> None:
        """Scale the gradient of each run whose norm is above `grad_clip_norm` down to it."""
        if self.spec.grad_clip_norm is not None:
            factors = (at(self.spec.grad_clip_norm, step) / (norms + 1e-6)).clamp_(max=1.0)
            if bool((factors < 1).any()):
                self.gradients.mul_(factors[:, None])

    def update(self, step: int) -> None:
        """Make update number `step` (from 0) of every run."""
        spec = self.spec
        rate, decay = learning_rate(spec, step, self.steps), at(spec.weight_decay, step)
        beta1, beta2 = at(spec.beta1, step), at(spec.beta2, step)
        if decay:
            self.weights[:, : self.decayed].mul_(1 - rate * decay)
        self.first.mul_(beta1).add_(self.gradients, alpha=1 - beta1)
        self.second.mul_(beta2).addcmul_(self.gradients, self.gradients, value=1 - beta2)
        root = torch.sqrt(self.second, out=self._scratch).div_((1 - self._product("beta2", step)) ** 0.5)
        root.add_(at(spec.epsilon, step))
        self.weights.addcdiv_(self.first, root, value=-rate / (1 - self._product("beta1", step)))

    def _product(self, name: str, step: int) -> float:
        """Return the product of a beta over the updates 0 to `step`: what its moment still owes to its start at 0."""
        beta = getattr(self.spec, name)
        if not isinstance(beta, Curve):
            return float(beta ** (step + 1))
        products = self._products.setdefault(name, [])
        while len(products) <= step:
            products.append((products[-1] if products else 1.0) * beta.at(len(products)))
        return products[step]
