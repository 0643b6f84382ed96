"""Addition of two numbers digit by digit, in reverse order or plain, with the carries labelled.

In reverse order (Lee et al. 2023, "Teaching arithmetic to small transformers") each digit of the answer needs
only what was read and the carry so far; in plain order the first digit needs all of them.
"""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens

_PLUS, _EQUALS = 10, 11


class Addition(Task):
    """`a + b =` and then the sum in `digits` + 1 places; the loss is on the sum alone.

    All numbers are written with leading zeros and in the same order. Held-out pairs are drawn from the same
    10^(2·digits) pairs as training: from 3 digits on, one of 256 held-out pairs meets a given training batch
    of 64 with probability below 2 %.
    """

    digits: Annotated[int, Field(ge=1, le=15)]
    order: Literal["reverse", "plain"] = "reverse"
    test_size: Annotated[int, Field(ge=1)] = 256

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the ten digits and the two signs."""
        return (*"0123456789", "+", "=")

    @property
    def length(self) -> int:
        """Return what a model reads: both numbers, both signs, and the sum but for its last digit."""
        return 3 * self.digits + 2

    @property
    def first_answer(self) -> int:
        """Return the position of the `=`."""
        return 2 * self.digits + 1

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` fresh sums."""
        return self._draw(streams.data(step), size)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `test_size` sums as `heldout`."""
        return {"heldout": self._draw(streams.evaluation("heldout"), self.test_size)}

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return exact match and single digits, and each place apart for sums with and without a carry into it.

        `<name>.place_J.carry` counts the digits of weight 10^J for which the lower places sum past the place.
        """
        scores = super().score(name, batch, predicted)
        right = (predicted == batch.targets)[:, -(self.digits + 1) :]
        carries = self.carries(batch)
        for place in range(self.digits + 1):
            column = place if self.order == "reverse" else self.digits - place
            for label, chosen in (("carry", carries[:, place]), ("no_carry", ~carries[:, place])):
                hits = int(right[chosen, column].sum())
                scores.append(Score(f"{name}.place_{place}.{label}", hits, int(chosen.sum())))
        return scores

    @property
    def token_groups(self) -> tuple[str, ...]:
        """Return the places of the sum, each without and with a carry into it."""
        return tuple(f"place_{p}.{kind}" for p in range(self.digits + 1) for kind in ("no_carry", "carry"))

    def groups(self, batch: Batch) -> Tokens:
        """Return the place of each digit of the sum, and whether a carry comes into it (POLCA, arXiv 2506.15872)."""
        found = np.full(batch.targets.shape, -1, np.int64)
        of_places = 2 * np.arange(self.digits + 1) + self.carries(batch)
        found[:, -(self.digits + 1) :] = of_places if self.order == "reverse" else of_places[:, ::-1]
        return found

    def carries(self, batch: Batch) -> NDArray[np.bool_]:
        """Return [batch, digits + 1]: whether a carry comes into the place of weight 10^J from the lower ones."""
        first, second = batch.inputs[:, : self.digits], batch.inputs[:, self.digits + 1 : 2 * self.digits + 1]
        if self.order == "plain":
            first, second = first[:, ::-1], second[:, ::-1]
        carry = np.zeros((len(first), self.digits + 1), np.bool_)
        for place in range(self.digits):
            carry[:, place + 1] = first[:, place] + second[:, place] + carry[:, place] > 9
        return carry

    def _draw(self, generator: np.random.Generator, size: int) -> Batch:
        numbers = generator.integers(0, 10**self.digits, size=(2, size))
        n = self.digits
        text = np.empty((size, 3 * n + 3), np.int64)
        text[:, :n] = self._write(numbers[0], n)
        text[:, n] = _PLUS
        text[:, n + 1 : 2 * n + 1] = self._write(numbers[1], n)
        text[:, 2 * n + 1] = _EQUALS
        text[:, 2 * n + 2 :] = self._write(numbers.sum(axis=0), n + 1)
        targets = text[:, 1:].copy()
        targets[:, : 2 * n + 1] = IGNORE
        return Batch(np.ascontiguousarray(text[:, :-1]), targets)

    def _write(self, numbers: NDArray[np.int64], places: int) -> NDArray[np.int64]:
        digits = numbers[:, None] // 10 ** np.arange(places) % 10
        return digits if self.order == "reverse" else digits[:, ::-1]
