"""Planted sequences: random strings shown a known number of times in a small synthetic language.

Memorisation as a dose and a response. A string cannot be guessed from the language, so whoever continues its first
half word for word has remembered it: it is `prompt`-extractable (Carlini et al. 2023; with 32 and 32 tokens in
Prashanth et al. 2024, "Recite, reconstruct, recollect").
"""

from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from jobs.seeds import Seeds, Streams, stream
from jobs.tasks.task import IGNORE, Batch, Task, Tokens

Exposures = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False)]
_BRANCHES = 4  # words that may follow a word, with equal probability: ln 4 = 1.39 nats a word at best


class Planted(Task):
    """Sequences of a random language in which each word has four successors, and strings of random words among them.

    symbols    words of the language; it has no other tokens
    prompt     words of a planted string that are given; as many more are to be written
    exposures  how often strings are shown, up to step `span`: one set of `strings` for each number, which is the set
               `seen_N`; 0 is the control. Strings are drawn from the evaluation seed, the places of their exposures,
               each another row of another batch or of the same one, from the data seed
    strings    planted strings for each number of exposures
    span       steps over which exposures are spread: at most those that are trained
    """

    symbols: Annotated[int, Field(ge=8, le=65_536)] = 64
    prompt: Annotated[int, Field(ge=1, le=4096)] = 8
    exposures: Exposures = (0, 1, 2, 5, 10, 50)
    strings: Annotated[int, Field(ge=1)] = 32
    span: Annotated[int, Field(ge=1)]
    test_size: Annotated[int, Field(ge=1)] = 256

    @model_validator(mode="after")
    def _exposures_differ(self) -> Self:
        if len(set(self.exposures)) < len(self.exposures):
            raise ValueError(f"exposures: {self.exposures} names one number twice")
        return self

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the words."""
        return tuple(f"w{word}" for word in range(self.symbols))

    @property
    def length(self) -> int:
        """Return what is read of a sequence of twice `prompt` words: all but the last."""
        return 2 * self.prompt - 1

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` sequences, of which those are planted strings whose exposures fall on this step."""
        rows = self._language(streams, streams.data(step), size)
        if step < self.span:
            slots, strings = _plan(self, streams.seeds.data, size)
            first, last = np.searchsorted(slots, (step * size, (step + 1) * size))
            rows[slots[first:last] - step * size] = self.planted(streams)[strings[first:last]]
        return Batch(np.ascontiguousarray(rows[:, :-1]), rows[:, 1:].copy())

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return new sequences of the language as `heldout`, and strings shown N times as `seen_N`."""
        rows = self._language(streams, streams.evaluation("heldout"), self.test_size)
        sets = {"heldout": Batch(np.ascontiguousarray(rows[:, :-1]), rows[:, 1:].copy())}
        planted = self.planted(streams).reshape(len(self.exposures), self.strings, -1)
        for count, strings in zip(self.exposures, planted, strict=True):
            targets = strings[:, 1:].copy()
            targets[:, : self.prompt - 1] = IGNORE
            sets[f"seen_{count}"] = Batch(np.ascontiguousarray(strings[:, :-1]), targets)
        return sets

    def planted(self, streams: Streams) -> Tokens:
        """Return the strings [number of exposures × string, 2 · prompt], in the order of `exposures`."""
        shape = len(self.exposures) * self.strings, 2 * self.prompt
        return streams.evaluation("planted").integers(0, self.symbols, size=shape)

    def times(self) -> NDArray[np.int64]:
        """Return how often each planted string is shown, [string]."""
        return np.repeat(np.array(self.exposures, np.int64), self.strings)

    def _language(self, streams: Streams, generator: np.random.Generator, size: int) -> Tokens:
        successors = _successors(self.symbols, streams.seeds.evaluation)
        rows = np.empty((size, 2 * self.prompt), np.int64)
        rows[:, 0] = generator.integers(0, self.symbols, size=size)
        branches = generator.integers(0, _BRANCHES, size=(size, 2 * self.prompt - 1))
        for place in range(1, 2 * self.prompt):
            rows[:, place] = successors[rows[:, place - 1], branches[:, place - 1]]
        return rows


# Pure functions of their arguments: the caches save drawing again for every batch and change nothing.
@lru_cache(maxsize=8)
def _successors(symbols: int, evaluation: int) -> Tokens:
    generator = Streams(Seeds(init=0, data=0, dropout=0, evaluation=evaluation)).evaluation("language")
    return np.stack([generator.choice(symbols, _BRANCHES, replace=False) for _ in range(symbols)])


@lru_cache(maxsize=256)
def _plan(task: Planted, data: int, size: int) -> tuple[Tokens, Tokens]:
    """Return the slots (step × size + row) of all exposures, ascending, and which string each of them shows.

    Raises ValueError where there are more exposures than slots.
    """
    shown = np.repeat(np.arange(len(task.times())), task.times())
    generator = stream(data, "planted")
    slots = generator.choice(task.span * size, len(shown), replace=False)
    order = np.argsort(slots)
    return slots[order], shown[order]
