"""What weights look like, as rows of `metrics`: the 14 statistics over which training has latent states.

Hu, Chen, Saphra & Cho 2023 (Latent State Models of Training Dynamics, TMLR), section 3: eight statistics averaged over
the weight matrices, three over all weights, three over all biases. A matrix is a parameter with two axes, embeddings
among them; theirs splits attention into heads, which the names of parameters here do not tell. Singular values below
1e-5 count as 0, and variances have n - 1, as in their code.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from workers.determinism import one_thread

_NO_VALUE = 1e-5  # singular values below are 0


def weight_statistics(weights: Mapping[str, Tensor], slot: int, begin: Callable[[str], None]) -> dict[str, float]:
    """Return metric → value of the run in `slot` of parameters [run, …]; without biases, nothing is said of them.

    `begin` is told of each matrix by its shape, and of all: the singular values of a large model take minutes.

    `weights.l1`, `.l2`, `.trace`, `.spectral`, `.code_sparsity` (l1 / l2), `.computational_sparsity` (trace over
    spectral), `.mean_lambda`, `.variance_lambda` (of singular values), `.mean_w`, `.median_w`, `.var_w`, `.mean_b`,
    `.median_b`, `.var_b`.
    """
    mine = {name: weights[name][slot].detach() for name in sorted(weights)}
    matrices = [values for values in mine.values() if values.dim() == 2]
    biases = [values for name, values in mine.items() if name.endswith("bias")]
    found: dict[str, float] = {}
    with one_thread():
        if matrices:
            rows = []
            for matrix in matrices:
                begin("a matrix of {} by {}".format(*matrix.shape))
                rows.append(_of_matrix(matrix.cpu().double()))
            begin("all weights")
            found |= {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
            found |= _of_all("w", _end_to_end(matrices))
        if biases:
            found |= _of_all("b", _end_to_end(biases))
    return {f"weights.{name}": value for name, value in found.items()}


def _of_matrix(matrix: Tensor) -> dict[str, float]:
    singular = torch.linalg.svdvals(matrix)
    singular = torch.where(singular < _NO_VALUE, torch.zeros_like(singular), singular)
    l1, l2 = float(matrix.abs().sum()), float(matrix.square().sum().sqrt())
    trace, spectral = float(matrix.diagonal().sum()), float(singular.max())
    return {
        "l1": l1,
        "l2": l2,
        "trace": trace,
        "spectral": spectral,
        "code_sparsity": l1 / l2 if l2 else 0.0,
        "computational_sparsity": trace / spectral if spectral else 0.0,
        "mean_lambda": float(singular.mean()),
        "variance_lambda": float(singular.var()) if len(singular) > 1 else 0.0,
    }


def _end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    """Return all values as float64 in one new tensor: the only copy there is of them, 8 bytes a parameter."""
    sizes = [values.numel() for values in tensors]
    joined = torch.empty(sum(sizes), dtype=torch.float64)
    for place, values in zip(torch.split(joined, sizes), tensors, strict=True):
        place.copy_(values.reshape(-1))
    return joined


def _of_all(letter: str, values: Tensor) -> dict[str, float]:
    """Return mean, median, and variance of values whose order is lost by that."""
    spread = float(values.var()) if len(values) > 1 else 0.0
    mean = float(values.mean())
    # In place, where a copy is 8 bytes a value; of an even number of them the mean of the middle two.
    median = float(np.median(values.numpy(), overwrite_input=True))
    return {f"mean_{letter}": mean, f"median_{letter}": median, f"var_{letter}": spread}
