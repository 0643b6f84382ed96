"""How many samples of each corpus a step takes, so that shares that change with the step are kept exactly.

Each step rounds what has been owed so far: after any step no corpus is a whole sample away from its share. Counts in
whole numbers of 2^-32 samples are the same on every machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from jobs.scalar import Curve, at

_UNIT = 1 << 32


@dataclass(slots=True)
class Mixture:
    """Weights of corpora, numbers or functions of the step, for batches of `size` samples."""

    weights: Sequence[float | Curve]
    size: int
    _owed: list[int] = field(init=False)  # in units, after the last known step
    _taken: list[tuple[int, ...]] = field(init=False)  # before step t

    def __post_init__(self) -> None:
        self._owed = [0] * len(self.weights)
        self._taken = [(0,) * len(self.weights)]

    def taken(self, step: int) -> NDArray[np.int64]:
        """Return how many samples of each corpus the steps before `step` take, int64 [corpus].

        One corpus costs nothing; of several, each step is counted once in a process. Raises ValueError where all
        weights of a step are 0.
        """
        if len(self.weights) == 1:
            return np.array([step * self.size])
        while len(self._taken) <= step:
            self._taken.append(self._after(len(self._taken) - 1))
        return np.array(self._taken[step])

    def _after(self, step: int) -> tuple[int, ...]:
        weights = [at(weight, step) for weight in self.weights]
        whole = sum(weights)
        if whole <= 0:
            raise ValueError(f"all weights are 0 at step {step}: there is nothing to show")
        shares = [round(weight / whole * self.size * _UNIT) for weight in weights]
        heaviest = max(range(len(shares)), key=lambda index: shares[index])
        shares[heaviest] += self.size * _UNIT - sum(shares)
        self._owed = [owed + share for owed, share in zip(self._owed, shares, strict=True)]
        counts = [max(owed // _UNIT, 0) for owed in self._owed]
        left = self.size - sum(counts)
        rests = [owed - count * _UNIT for owed, count in zip(self._owed, counts, strict=True)]
        for index in sorted(range(len(counts)), key=lambda index: -rests[index])[: max(left, 0)]:
            counts[index] += 1
        for _ in range(-left):  # where one owes: the count that is furthest above what it is owed
            index = min((i for i, count in enumerate(counts) if count), key=lambda i: rests[i])
            counts[index] -= 1
            rests[index] += _UNIT
        self._owed = [owed - count * _UNIT for owed, count in zip(self._owed, counts, strict=True)]
        before = self._taken[step]
        return tuple(taken + count for taken, count in zip(before, counts, strict=True))
