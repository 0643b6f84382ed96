"""The optimiser of a whole module: the update of `workers/optimizer.py`, parameter by parameter.

Part of a parameter is as good as the whole, so that each process updates what lies on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from workers.optimizer import Rates, update

FIRST, SECOND = "exp_avg", "exp_avg_sq"  # DeepSpeed looks for moments by the names that torch gives them


def local(tensor: Tensor) -> Tensor:
    """Return what of a tensor lies on this process: all of it, unless it is sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ModuleAdamW(torch.optim.Optimizer):
    """AdamW whose numbers are given for each step; until then it changes nothing.

    decayed, others  parameters to which weight decay applies, and the rest
    """

    def __init__(self, decayed: Sequence[nn.Parameter], others: Sequence[nn.Parameter]) -> None:
        groups = [{"params": list(some), "decays": some is decayed} for some in (decayed, others) if some]
        super().__init__(groups, {"lr": 0.0})
        self.rates = Rates()

    def moments(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Return both moments of a parameter, shaped and sharded like it: what the next step writes to."""
        state = self.state[parameter]
        if not state:
            state[FIRST], state[SECOND] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        return state[FIRST], state[SECOND]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """Update every parameter that has a gradient."""
        rates = self.rates
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                weights, first, second = (local(tensor) for tensor in (parameter, *self.moments(parameter)))
                if rates.decay and group["decays"]:
                    weights.mul_(1 - rates.rate * rates.decay)
                update(rates, weights, local(parameter.grad), first, second, torch.empty_like(weights))
