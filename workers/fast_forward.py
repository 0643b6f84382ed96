"""Going on along the last update while a small set gets better (Fast Forward: Rahamim et al. 2024, arXiv 2409.04206).

With Δ = W(t) − W(t−1) over all that is trained, W becomes W + Δ again and again as long as each time the mean loss on
the set falls; the first time that it does not fall is taken back. Every run goes on for itself and stops by itself;
moments stay as they are. Steps still count updates: what is tried beside them is counted, as passes over the set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from jobs.finetuning import FastForward

KIND = "forward."  # before the names of the counters in an engine's state


@dataclass(slots=True)
class Forward:
    """The repeated updates of the runs of a pack, counted since they began.

    repeated  int64 [run]: updates that were made again and kept
    tried     int64 [run]: passes over the set, the one before the first try among them
    flops     of such a pass, of one run: 2 a parameter and token
    """

    rule: FastForward
    runs: int
    device: torch.device
    flops: int
    repeated: Tensor = field(init=False)
    tried: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.repeated, self.tried = (torch.zeros(self.runs, dtype=torch.int64, device=self.device) for _ in range(2))

    def is_due(self, step: int) -> bool:
        """Return whether update number `step` (from 0) is one that is made again."""
        return (step + 1) % self.rule.every == 0

    def state(self) -> Mapping[str, Tensor]:
        """Return the counters, as part of a checkpoint."""
        return {f"{KIND}repeated": self.repeated, f"{KIND}tried": self.tried}

    @torch.no_grad()
    def go_on(self, weights: Tensor, before: Tensor, alive: Tensor, losses: Callable[[], Tensor]) -> None:
        """Move the weights [run, values] of each run that is alive [run] on from `before`.

        losses  gives the loss on the set [run] at the weights as they stand
        """
        direction = weights - before
        best = losses()
        self.tried += alive
        going = alive & best.isfinite()
        for _ in range(self.rule.most):
            if not bool(going.any()):
                return
            kept = weights.clone()
            weights.copy_(torch.where(going[:, None], weights + direction, weights))
            found = losses()
            self.tried += going
            going &= found < best
            best = torch.where(going, found, best)
            weights.copy_(torch.where(going[:, None], weights, kept))
            self.repeated += going
