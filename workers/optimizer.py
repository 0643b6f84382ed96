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


@dataclass(frozen=True, slots=True)
class Rates:
    """The numbers of one update; as they stand here, it changes no weight.

    correction1, correction2  one minus the product of the betas so far: what a moment owes to its start at 0
    """

    rate: float = 0.0
    decay: float = 0.0
    beta1: float = 0.0
    beta2: float = 0.0
    epsilon: float = 1.0
    correction1: float = 1.0
    correction2: float = 1.0


@dataclass(slots=True)
class Schedule:
    """What the numbers of each update are, of `steps` in all."""

    spec: OptimizerSpec
    steps: int
    _products: dict[str, list[float]] = field(default_factory=dict)

    def at(self, step: int) -> Rates:
        """Return the numbers of update `step` (from 0)."""
        spec = self.spec
        return Rates(
            rate=learning_rate(spec, step, self.steps),
            decay=at(spec.weight_decay, step),
            beta1=at(spec.beta1, step),
            beta2=at(spec.beta2, step),
            epsilon=at(spec.epsilon, step),
            correction1=1 - self._product("beta1", step),
            correction2=1 - self._product("beta2", step),
        )

    def _product(self, name: str, step: int) -> float:
        """Return the product of a beta over the updates 0 to `step`."""
        beta = getattr(self.spec, name)
        if not isinstance(beta, Curve):
            return float(beta ** (step + 1))
        products = self._products.setdefault(name, [])
        while len(products) <= step:
            products.append((products[-1] if products else 1.0) * beta.at(len(products)))
        return products[step]


def update(rates: Rates, weights: Tensor, gradients: Tensor, first: Tensor, second: Tensor, scratch: Tensor) -> None:
    """Update moments and weights in place; weight decay is not in it. `scratch` has their shape and is written to."""
    first.mul_(rates.beta1).add_(gradients, alpha=1 - rates.beta1)
    second.mul_(rates.beta2).addcmul_(gradients, gradients, value=1 - rates.beta2)
    root = torch.sqrt(second, out=scratch).div_(rates.correction2**0.5)
    root.add_(rates.epsilon)
    weights.addcdiv_(first, root, value=-rates.rate / rates.correction1)


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
    _schedule: Schedule = field(init=False)

    def __post_init__(self) -> None:
        self._schedule = Schedule(self.spec, self.steps)
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
        rates = self._schedule.at(step)
        if rates.decay:
            self.weights[:, : self.decayed].mul_(1 - rates.rate * rates.decay)
        update(rates, self.weights, self.gradients, self.first, self.second, self._scratch)
