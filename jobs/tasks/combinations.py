"""Combinations: say the colour of one of several things, of combinations that training has shown and has not.

A miniature of attribute diversity and the systematicity gap (Berlot-Attwell et al. 2023, "Attribute diversity
determines the systematicity gap in VQA"): scenes are given as text. With few colours for each shape a model can answer
from the shape; with many it has to look.
"""

from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Task, Tokens


class Combinations(Task):
    """`shape colour shape colour … ? shape`, and then its colour; the loss is on the answer alone.

    values   how many shapes there are, and how many colours
    seen     colours that each shape has in training: `values` × `seen` combinations
    unseen   colours that each shape never has in training, whatever `seen` is; asked for in the set `unseen`
    objects  things in a scene, of different shapes; all but the one that is asked for are combinations of training
    """

    values: Annotated[int, Field(ge=2, le=4096)] = 16
    seen: Annotated[int, Field(ge=1)]
    unseen: Annotated[int, Field(ge=1)] = 4
    objects: Annotated[int, Field(ge=1)] = 3
    test_size: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _values_suffice(self) -> Self:
        if self.seen + self.unseen > self.values or self.objects > self.values:
            raise ValueError(
                f"seen {self.seen} + unseen {self.unseen} ≤ values {self.values} and objects {self.objects} ≤ values "
                "do not both hold"
            )
        return self

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the shapes, the colours, and the mark that asks."""
        return (*(f"shape{n}" for n in range(self.values)), *(f"colour{n}" for n in range(self.values)), "?")

    @property
    def length(self) -> int:
        """Return the things, the mark, and the shape that is asked for."""
        return 2 * self.objects + 2

    @property
    def first_answer(self) -> int:
        """Return the last position."""
        return self.length - 1

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` fresh scenes of combinations of training."""
        return self._draw(streams, streams.data(step), size, asked=(0, self.seen))

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return scenes that ask for combinations of training as `heldout`, and for others as `unseen`."""
        others = self.values - self.unseen, self.values
        return {
            "heldout": self._draw(streams, streams.evaluation("heldout"), self.test_size, asked=(0, self.seen)),
            "unseen": self._draw(streams, streams.evaluation("unseen"), self.test_size, asked=others),
        }

    def colours(self, streams: Streams, shapes: Tokens, places: Tokens) -> Tokens:
        """Return the colour at each place of a shape's own list: the first `seen` of a list are those of training.

        Every colour is at place p of exactly one list, so that all colours are equally frequent.
        """
        generator = streams.evaluation("combinations")
        row, column = generator.permutation(self.values), generator.permutation(self.values)
        found: Tokens = column[(row[shapes] + places) % self.values]
        return found

    def _draw(self, streams: Streams, generator: np.random.Generator, size: int, asked: tuple[int, int]) -> Batch:
        shapes: NDArray[np.int64] = generator.random((size, self.values)).argsort(axis=1)[:, : self.objects]
        places = generator.integers(0, self.seen, size=shapes.shape)
        chosen = generator.integers(0, self.objects, size=size)
        rows = np.arange(size)
        places[rows, chosen] = generator.integers(*asked, size=size)
        colours = self.values + self.colours(streams, shapes, places)
        inputs = np.empty((size, self.length), np.int64)
        inputs[:, : 2 * self.objects : 2], inputs[:, 1 : 2 * self.objects : 2] = shapes, colours
        inputs[:, -2], inputs[:, -1] = 2 * self.values, shapes[rows, chosen]
        targets = np.full_like(inputs, IGNORE)
        targets[:, -1] = colours[rows, chosen]
        return Batch(inputs, targets)
