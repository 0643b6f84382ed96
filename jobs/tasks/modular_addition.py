"""Modular addition: a + b mod p, trained on a fraction of all pairs.

The task of grokking (Power et al. 2022; Nanda et al. 2023): the held-out pairs are those that training never
shows, so a model that only remembers stays at chance there.
"""

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from jobs.seeds import Seeds, Streams
from jobs.tasks.task import IGNORE, Batch, Task

Pairs = NDArray[np.int64]


class ModularAddition(Task):
    """`a b =` and then a + b mod `modulus`; the loss is on the answer alone.

    The split into trained and held-out pairs is drawn from the evaluation seed, so all runs of a study share
    it; the data seed draws the batches, with replacement, from the trained pairs. `test_size` pairs of each
    side are measured: the set `heldout`, and `train` for what was only remembered.
    """

    modulus: Annotated[int, Field(ge=2, le=2048)]
    train_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.3
    test_size: Annotated[int, Field(ge=1)] = 1024

    @model_validator(mode="after")
    def _both_sides_hold_pairs(self) -> "ModularAddition":
        if not 0 < self._trained() < self.modulus**2:
            raise ValueError(f"train_fraction {self.train_fraction} of {self.modulus**2} pairs leaves one side empty")
        return self

    def _trained(self) -> int:
        return round(self.train_fraction * self.modulus**2)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the residues and the separator."""
        return (*map(str, range(self.modulus)), "=")

    @property
    def length(self) -> int:
        """Return both numbers and the separator."""
        return 3

    @property
    def first_answer(self) -> int:
        """Return the position of the separator."""
        return 2

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` of the trained pairs."""
        trained, _ = self._split(streams)
        return self._ask(trained[streams.data(step).integers(0, len(trained), size=size)])

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return pairs that training never shows as `heldout`, and trained ones as `train`."""
        trained, held_out = self._split(streams)
        return {"heldout": self._ask(held_out[: self.test_size]), "train": self._ask(trained[: self.test_size])}

    def _split(self, streams: Streams) -> tuple[Pairs, Pairs]:
        seeds = Seeds(init=0, data=0, dropout=0, evaluation=streams.seeds.evaluation)
        return _split(self.modulus, self._trained(), Streams(seeds))

    def _ask(self, pairs: Pairs) -> Batch:
        inputs = np.full((len(pairs), 3), self.modulus, np.int64)
        inputs[:, 0], inputs[:, 1] = pairs // self.modulus, pairs % self.modulus
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = inputs[:, :2].sum(axis=1) % self.modulus
        return Batch(inputs, targets)


# A pure function of its arguments: the cache saves drawing p² numbers for every batch and changes nothing.
@lru_cache(maxsize=8)
def _split(modulus: int, trained: int, streams: Streams) -> tuple[Pairs, Pairs]:
    order = streams.evaluation("split").permutation(modulus**2)
    return order[:trained], order[trained:]
