"""How alike are two representations of the same inputs: linear CKA and SVCCA, in float64.

Neither minds a rotation or a scale of the features; SVCCA minds no invertible map of the directions that it keeps. Both
compare rows, so two models must be asked the same inputs in the same order.
"""

import torch
from torch import Tensor

from workers.determinism import one_thread

KEPT_VARIANCE = 0.99  # of each representation: Raghu et al. 2017


def similarities(one: Tensor, other: Tensor) -> dict[str, float]:
    """Return `cka` and `svcca` of one layer of two runs, [row, feature] each; what is not defined is left out."""
    with one_thread():
        found = {"cka": linear_cka(one, other), "svcca": svcca(one, other)}
    return {name: value for name, value in found.items() if value == value}


def linear_cka(one: Tensor, other: Tensor) -> float:
    """Return |Y'X|² / (|X'X| |Y'Y|) of centred X [row, feature] and Y [row, feature] (Kornblith et al. 2019, eq. 5).

    Of a representation that is the same for all rows nothing can be said: it is NaN.
    """
    x, y = _centred(one), _centred(other)
    # Products of the smaller side: features where rows are many, rows where features are.
    if len(x) >= max(x.shape[1], y.shape[1]):
        across = (y.T @ x).square().sum()
        own = (x.T @ x).square().sum().sqrt() * (y.T @ y).square().sum().sqrt()
    else:
        a, b = x @ x.T, y @ y.T
        across = (a * b).sum()
        own = a.square().sum().sqrt() * b.square().sum().sqrt()
    return float(across / own) if own > 0 else float("nan")


def svcca(one: Tensor, other: Tensor, kept: float = KEPT_VARIANCE) -> float:
    """Return the mean canonical correlation of the directions that hold `kept` of each variance (Raghu et al. 2017).

    The mean is over as many correlations as the smaller of both has directions; NaN where one has none.
    """
    bases = [_directions(_centred(values), kept) for values in (one, other)]
    if not all(basis.shape[1] for basis in bases):
        return float("nan")
    correlations = torch.linalg.svdvals(bases[0].T @ bases[1])
    return float(correlations.clamp(max=1.0).mean())


def _centred(values: Tensor) -> Tensor:
    found: Tensor = values.double()
    return found.sub(found.mean(dim=0, keepdim=True))


def _directions(values: Tensor, kept: float) -> Tensor:
    """Return an orthonormal basis [row, direction] of the largest directions that hold `kept` of the variance."""
    left: Tensor
    left, singular, _ = torch.linalg.svd(values, full_matrices=False)
    variance: Tensor = singular.square()
    if not variance.sum() > 0:
        return left.narrow(1, 0, 0)
    share = torch.cumsum(variance, 0) / variance.sum()
    return left.narrow(1, 0, int((share < kept).sum()) + 1)
