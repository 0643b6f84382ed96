"""The loss of one run on a fixed batch, as a function of its weights in one vector: slopes, curvature, directions.

All in float64 and on one thread (whoever asks sees to that), so that the bits depend on nothing but the weights. Slopes
of all tokens' losses along a direction take one pass in forward mode; a product with the Hessian takes one pass back
over the graph of the gradient (Pearlmutter 1994). The seed-batched families have neither, so the plain module is used.
"""

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn
from torch.func import functional_call, jvp, vmap
from torch.nn import functional as F

from jobs.tasks.task import IGNORE, Batch

TOLERANCE = 1e-4  # of an eigenvector; its eigenvalue then holds to about the square of it
_AT_ONCE = 8  # directions in one pass in forward mode
_MOST = 200  # products for one call of `steepest`
Product = Callable[[Tensor], Tensor]


class Landscape:
    """The loss of each answer of a batch over the weights of a module, as vectors of float64."""

    def __init__(self, module: nn.Module, batch: Batch) -> None:
        self.module = module
        self._shapes = {name: value.shape for name, value in module.named_parameters()}
        self._inputs = torch.from_numpy(np.ascontiguousarray(batch.inputs))
        self._targets = torch.from_numpy(np.ascontiguousarray(batch.targets))

    @property
    def size(self) -> int:
        """Return the number of weights."""
        return sum(shape.numel() for shape in self._shapes.values())

    def vector(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return weights by name as one vector [weight]."""
        return torch.cat([weights[name].detach().cpu().double().reshape(-1) for name in self._shapes])

    def losses(self, at: Tensor) -> Tensor:
        """Return the loss of each answer in nats [token], item by item and from left to right."""
        values, end = {}, 0
        for name, shape in self._shapes.items():
            values[name] = at[end : end + shape.numel()].view(shape)
            end += shape.numel()
        logits = functional_call(self.module, values, (self._inputs,))
        targets = self._targets[:, -logits.shape[1] :]
        asked = torch.nonzero(targets.reshape(-1) != IGNORE)[:, 0]
        log_p = F.log_softmax(logits.flatten(0, 1)[asked], dim=-1)
        return -log_p.gather(-1, targets.reshape(-1)[asked][:, None])[:, 0]

    def slopes(self, at: Tensor, directions: Tensor) -> Tensor:
        """Return how fast each answer's loss changes along each direction [direction, token] of [direction, weight]."""

        def along(direction: Tensor) -> Tensor:
            slope: Tensor = jvp(self.losses, (at,), (direction,))[1]
            return slope

        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, when it first loads forward mode
            found: Tensor = vmap(along, chunk_size=_AT_ONCE)(directions)
        return found

    def curvature(self, at: Tensor) -> Product:
        """Return the product of a vector [weight] with the Hessian of the mean loss."""
        here = at.detach().clone().requires_grad_()
        (slope,) = torch.autograd.grad(self.losses(here).mean(), here, create_graph=True)

        def product(vector: Tensor) -> Tensor:
            return torch.autograd.grad(slope, here, vector, retain_graph=True)[0]

        return product


def steepest(
    product: Product, start: Tensor, count: int, without: Tensor, tolerance: float = TOLERANCE
) -> tuple[NDArray[np.float64], Tensor]:
    """Return the largest eigenvalues of a symmetric matrix, descending [count], and their vectors [count, weight].

    product  the matrix times a vector; start: any vector [weight] that no eigenvector is orthogonal to
    without  orthonormal [direction, weight]: the matrix is taken on what is orthogonal to these

    Lanczos (1950) with full reorthogonalisation, until |H b - λ b| of the wanted pairs is at most `tolerance` times
    the largest |λ| that was seen. A vector's largest entry is positive. Fewer come back where the matrix leads `start`
    into no more dimensions.
    """
    basis = _outside(start, without)[None] / _outside(start, without).norm()
    diagonal: list[float] = []
    beside: list[float] = []
    values, inner = np.zeros(0), np.zeros((0, 0))
    for length in range(1, min(_MOST, len(start) - len(without)) + 1):
        new = _outside(product(basis[-1]), without)
        diagonal.append(float(new @ basis[-1]))
        for _ in range(2):  # once more: what the first pass leaves is what it rounds
            new = _outside(new - (basis @ new) @ basis, without)
        rest = float(new.norm())
        values, inner = eigh_tridiagonal(np.array(diagonal), np.array(beside))
        scale = max(float(np.abs(values).max()), 1e-300)
        is_whole = rest <= 1e-12 * scale
        held = length >= count and rest * np.abs(inner[-1, -count:]).max() <= tolerance * scale
        if is_whole or held or length == min(_MOST, len(start) - len(without)):
            break
        beside.append(rest)
        basis = torch.cat([basis, new[None] / rest])
    vectors = torch.from_numpy(inner[:, ::-1][:, :count].T.copy()) @ basis
    top = vectors.abs().argmax(dim=1, keepdim=True)
    return np.ascontiguousarray(values[::-1][:count]), vectors * vectors.gather(1, top).sign()


def _outside(vector: Tensor, directions: Tensor) -> Tensor:
    """Return what of a vector [weight] is orthogonal to orthonormal directions [direction, weight]."""
    return vector - (directions @ vector) @ directions
