"""A task of one's own: read a string of letters and a bar, write the string again."""

from typing import Annotated

import numpy as np
from pydantic import Field

from jobs.seeds import Streams
from jobs.tasks import IGNORE, Batch, Task


class Copy(Task):
    """Copy `letters` letters; the loss is on the copy alone."""

    letters: Annotated[int, Field(ge=1, le=64)] = 4

    @property
    def vocabulary(self) -> tuple[str, ...]:
        return (*"abcdefgh", "|")

    @property
    def length(self) -> int:
        return 2 * self.letters

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        return self._draw(streams.data(step), size)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        return {"heldout": self._draw(streams.evaluation("heldout"), 64)}

    def _draw(self, generator: np.random.Generator, size: int) -> Batch:
        word = generator.integers(0, 8, size=(size, self.letters))
        text = np.concatenate([word, np.full((size, 1), 8), word], axis=1)
        targets = np.where(np.arange(2 * self.letters) < self.letters, IGNORE, text[:, 1:])
        return Batch(text[:, :-1], targets)
