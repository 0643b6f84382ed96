"""Counting: given two numbers, write every number from the first to the second.

The task of Zhou et al. 2023 ("What algorithms can transformers learn?"): trained on short spans, asked for
longer ones, a model has either found the rule or not.
"""

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens


class Counting(Task):
    """`a b >` and then a, a + 1, …, b and an end; the loss is on what follows the `>`.

    Training spans have 1 to `train_span` numbers; the set `heldout` has such spans, the set `longer` spans of
    `train_span` + 1 to `test_span`. Numbers are single tokens, 0 to `numbers` − 1. Few spans exist
    (about numbers × span), so held-out ones of trained lengths have mostly been seen; `longer` ones never.
    """

    numbers: Annotated[int, Field(ge=2, le=10_000)]
    train_span: Annotated[int, Field(ge=1)]
    test_span: Annotated[int, Field(ge=2)]
    test_size: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _spans_fit(self) -> "Counting":
        if not self.train_span < self.test_span <= self.numbers:
            raise ValueError(
                f"train_span {self.train_span} < test_span {self.test_span} ≤ numbers {self.numbers} does not hold"
            )
        return self

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the numbers, the arrow, the end, and the filler behind the end."""
        return (*map(str, range(self.numbers)), ">", "end", "_")

    @property
    def length(self) -> int:
        """Return both numbers, the arrow, and the longest span; the end is only ever predicted."""
        return 3 + self.test_span

    @property
    def first_answer(self) -> int:
        """Return the position of the arrow."""
        return 2

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` spans of 1 to `train_span` numbers, filled up to `length`."""
        return self._draw(streams.data(step), size, 1, self.train_span)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return spans of trained lengths as `heldout` and of greater ones as `longer`."""
        return {
            "heldout": self._draw(streams.evaluation("heldout"), self.test_size, 1, self.train_span),
            "longer": self._draw(streams.evaluation("longer"), self.test_size, self.train_span + 1, self.test_span),
        }

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return exact match (the end included) and single tokens, and exact match for each span apart."""
        scores = super().score(name, batch, predicted)
        asked = batch.targets != IGNORE
        right = ((predicted == batch.targets) | ~asked).all(axis=1)
        spans = asked.sum(axis=1) - 1
        for span in np.unique(spans):
            chosen = spans == span
            scores.append(Score(f"{name}.span_{span}.accuracy", int(right[chosen].sum()), int(chosen.sum())))
        return scores

    def _draw(self, generator: np.random.Generator, size: int, shortest: int, longest: int) -> Batch:
        arrow, end, filler = self.numbers, self.numbers + 1, self.numbers + 2
        spans = generator.integers(shortest, longest + 1, size=size)[:, None]
        # Every start is equally likely for its span, so that long spans do not pile up at low numbers.
        starts = np.floor(generator.random((size, 1)) * (self.numbers - spans + 1)).astype(np.int64)
        places = np.arange(self.test_span + 1)[None, :]
        answer = np.where(places < spans, starts + places, np.where(places == spans, end, filler))
        inputs = np.empty((size, self.length), np.int64)
        inputs[:, 0], inputs[:, 1], inputs[:, 2] = starts[:, 0], (starts + spans - 1)[:, 0], arrow
        inputs[:, 3:] = np.where(answer == end, filler, answer)[:, :-1]
        targets = np.full((size, self.length), IGNORE, np.int64)
        targets[:, 2:] = np.where(places <= spans, answer, IGNORE)
        return Batch(inputs, targets)
