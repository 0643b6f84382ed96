"""How alike two trained models are, as distances that groups of runs can be told from (`clusters.py`).

A barrier is how much higher the loss rises on the straight line between two models than at its ends (Frankle et al.
2020): 0 in one basin. It is for runs that began from one checkpoint; between other initialisations all barriers are
high, and say nothing. Linear CKA compares what two models make of the same inputs, whatever their weights (Kornblith et
al. 2019); with few inputs it is biased towards 1 (.83 for independent noise at 20 inputs × 100 features): use ten
inputs for each feature.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def barrier(losses: Floats) -> Floats:
    """Return the barrier [...] from losses [..., point] along the line, both ends among the points; at least 0."""
    if losses.shape[-1] < 3:
        raise ValueError("a barrier needs both ends of the line and a point between them")
    ends = (losses[..., 0] + losses[..., -1]) / 2
    return np.asarray(np.maximum(losses.max(axis=-1) - ends, 0.0), np.float64)


def linear_cka(one: Floats, other: Floats) -> float:
    """Return linear CKA of two models' features [input, feature] of the same inputs: 1 for equal up to rotation."""
    if one.ndim != 2 or other.ndim != 2 or len(one) != len(other):
        raise ValueError(f"features are [input, feature] of the same inputs, not {one.shape} and {other.shape}")
    x, y = one - one.mean(axis=0), other - other.mean(axis=0)
    own = np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    if not own > 0:
        raise ValueError("features that do not vary over inputs are like nothing")
    return float(np.linalg.norm(x.T @ y) ** 2 / own)
