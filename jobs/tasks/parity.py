"""Parity: read n random bits and a separator, answer the parity of k of them; also string by string.

The task of sparse-parity studies (Barak et al. 2022), as a sequence: which k bits count is fixed, nothing but
the answer tells, and a model has either found them or guesses.
"""

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens, item_scores

_SEPARATOR = 2


class Parity(Task):
    """The parity of the first `subset` of `bits` random bits; the loss is on the answer alone.

    Held-out strings are drawn from the same 2^bits strings as training: with few bits a model sees most of
    them in training, as in the literature; chance is 1/2 either way.
    """

    bits: Annotated[int, Field(ge=1, le=4096)]
    subset: Annotated[int, Field(ge=1)]
    test_size: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _subset_fits(self) -> "Parity":
        if self.subset > self.bits:
            raise ValueError(f"subset {self.subset} is more than the {self.bits} bits there are")
        return self

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the two bits and the separator."""
        return ("0", "1", "=")

    @property
    def length(self) -> int:
        """Return the bits and the separator."""
        return self.bits + 1

    @property
    def first_answer(self) -> int:
        """Return the position of the separator."""
        return self.bits

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` fresh strings."""
        return self._draw(streams.data(step), size)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `test_size` strings as `heldout`."""
        return {"heldout": self._draw(streams.evaluation("heldout"), self.test_size)}

    def _draw(self, generator: np.random.Generator, size: int) -> Batch:
        inputs = np.full((size, self.bits + 1), _SEPARATOR, np.int64)
        inputs[:, :-1] = generator.integers(0, 2, size=(size, self.bits), dtype=np.int8)
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = inputs[:, : self.subset].sum(axis=1) % 2
        return Batch(inputs, targets)


class ParityItems(Parity):
    """The same strings, each of the held-out ones a metric of its own, too: `heldout.item.0007`, 1 of 1 or 0 of 1.

    For questions about items that all runs have answered (`agreement`, `compare`); that is `test_size` rows a probe.
    """

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return exact match over all strings, then of each of them."""
        right = (predicted == batch.targets)[:, -1].tolist()
        return super().score(name, batch, predicted) + item_scores(name, right)
