"""Sharpness-aware updates: the gradient is taken where the loss near the weights is largest, to first order.

SAM (Foret et al. 2021, arXiv 2010.01412): w + ρ g/‖g‖ in the place of w, for each run by its own norm. TRAM (Sherborne
et al. 2024, arXiv 2310.03646) has ρ d in the place of ρ, where d is how much the model's answers change in a trust
region, the mean over what is asked of a run. Three of their four are here:

    TRAM-x      KL(p(·|x + z, w) ‖ p(·|x, w)) with noise z ~ N(0, σ²) on the embeddings (their equation 5)
    TRAM-θ(t-1) KL(p(·|x, v) ‖ p(·|x, w)) with v the weights before the last update (equation 4)
    TRAM-θ(0)   the same with v the weights in which the run began: of a fork the pretrained ones

TRAM-Fisher is not: its estimate of the Fisher information is printed as a square of log-probabilities. They scale each
weight's way uphill by its size (ASAM), which is not done here. Nothing is averaged across the pack.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from jobs.seeds import Streams
from workers.models.family import Masks

_LEAST_NORM = 1e-12


@contextmanager
def uphill(weights: Tensor, gradients: Tensor, norms: Tensor, radii: Tensor) -> Iterator[None]:
    """Move the weights [run, values] of each run by its radius along its gradient; afterwards they are what they were.

    norms, radii  [run]
    """
    kept = weights.clone()
    with torch.no_grad():
        weights.addcmul_(gradients, (radii / (norms + _LEAST_NORM))[:, None])
    try:
        yield
    finally:
        with torch.no_grad():
            weights.copy_(kept)


TRUST = "trust."  # before the names of parameters as they were, in an engine's state


def divergence(other: Tensor, plain: Tensor, weight: Tensor) -> Tensor:
    """Return KL(other ‖ plain) of each run [run], from log p [run, batch, answers, token] and weights of answers."""
    apart = (other.exp() * (other - plain)).sum(-1)
    return (apart.masked_fill_(weight == 0, 0.0) * weight).sum(2).sum(1).clamp_(min=0.0)


class Noise:
    """What drops as `drop` does, after noise was added where masks are first asked for: the embeddings of a gpt."""

    def __init__(self, spread: float, streams: Sequence[Streams], step: int, drop: Masks) -> None:
        self.spread, self.drop = spread, drop
        self.generators = [stream.noise(step) for stream in streams]

    def __call__(self, values: Tensor) -> Tensor:
        """Return `values` [run, …] as the model goes on with them."""
        if self.generators:
            drawn = np.stack([one.standard_normal(values.shape[1:], np.float32) for one in self.generators])
            self.generators = []
            values = values + self.spread * torch.from_numpy(drawn).to(values.device)
        return self.drop(values)
