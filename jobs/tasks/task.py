"""What a task is: a vocabulary, batches, held-out sets and probes; numpy only.

A task is a pydantic model whose fields are its parameters, so that a study file is checked against it.
Batch `t` is a pure function of the run's streams and `t`: resuming needs no cursor, and two runs with the
same data seed see the same samples whatever else differs.

Not here: models, losses, devices (`workers`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from jobs.seeds import Streams
from jobs.text.corpus import Place

IGNORE = -100  # a target that carries no loss; the number that torch's cross-entropy ignores

Tokens = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Trees:
    """On which word each word of a sentence depends.

    heads      [batch, length] the place of the word on which the one here depends; the root's is its own; -1: no word
    relations  [batch, length] what it is to that word, as a place in the task's `relations`; -1: none, as of the root
    """

    heads: Tokens
    relations: Tokens

    def distances(self) -> Tokens:
        """Return [batch, length, length]: the edges between two words; `length` where there is no way."""
        count, length = self.heads.shape
        apart = np.full((count, length, length), length)
        places = np.arange(length)
        apart[:, places, places] = 0
        items, words = np.nonzero((self.heads >= 0) & (self.heads != places))
        to = self.heads[items, words]
        apart[items, words, to] = apart[items, to, words] = 1
        for middle in range(length):  # Floyd & Warshall
            apart = np.minimum(apart, apart[:, :, middle, None] + apart[:, None, middle, :])
        return apart


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences and what should follow each position.

    inputs   [batch, length] token ids
    targets  [batch, length] the token that should be predicted at each position, or IGNORE
    trees    of sentences whose trees are known
    """

    inputs: Tokens
    targets: Tokens
    trees: Trees | None = None


@dataclass(frozen=True, slots=True)
class Score:
    """One accuracy-like measurement: `correct` of `total`, under a metric's name."""

    metric: str
    correct: int
    total: int


@dataclass(frozen=True, slots=True)
class Mean:
    """One measurement that counts nothing, such as a mean loss in nats, under a metric's name."""

    metric: str
    value: float


def item_scores(name: str, right: list[bool]) -> list[Score]:
    """Return each item of the set `name` as a metric of its own, `NAME.item.0007`, 1 of 1 or 0 of 1."""
    return [Score(f"{name}.item.{number:04}", int(one), 1) for number, one in enumerate(right)]


class Task(BaseModel, ABC):
    """A task; subclass it with parameters as fields and the four methods below.

    `version` is part of the identity of every run: raise it when a change alters what the task draws
    or scores. (For a task in a user's own file the digest of the source stands in its place.)
    `added_later` are fields that came after the first ids: they are part of an identity only where they
    are not at their default, so that older ids stay.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: ClassVar[int] = 1
    added_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unused = {n for n in self.added_later if getattr(self, n) == fields[n].get_default(call_default_factory=True)}
        return {name: value for name, value in dump(self).items() if name not in unused}

    def pinned(self, folder: Path) -> tuple[Self, tuple[Place, ...]]:  # noqa: ARG002
        """Return the task with its corpora by their digests instead of where they lie, and where that is.

        Paths are relative to `folder`. Raises StoreError where one is not there. Most tasks have none.
        """
        return self, ()

    def bound(self, where: Callable[[str], str]) -> Self:  # noqa: ARG002
        """Return the task able to read its corpora; `where` gives the address for a digest."""
        return self

    @property
    @abstractmethod
    def vocabulary(self) -> tuple[str, ...]:
        """Return the tokens, in the order of their ids."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Return the longest sequence that a model must read, in tokens."""

    @property
    def first_answer(self) -> int:
        """Return the first position that ever has a target; models skip what only earlier ones need."""
        return 0

    @property
    def mask_token(self) -> int | None:
        """Return the token that stands for a hidden one, of a task for masked language modelling; None for others.

        Such a task's batches ask for the sequences themselves: a target is the token at its own place, or IGNORE where
        nothing is ever hidden. Training hides some of them (`masking.py`); held-out sets come with theirs hidden.
        """
        return None

    @property
    def relations(self) -> tuple[str, ...]:
        """Return the relations of words in the trees of its sentences; of most tasks none."""
        return ()

    @property
    def token_groups(self) -> tuple[str, ...]:
        """Return the kinds of answers that curves of tokens are compared with, as PLACE.KIND; of most tasks none."""
        return ()

    def groups(self, batch: Batch) -> Tokens:
        """Return of which kind each answer is [batch, length], as a place in `token_groups`; -1: of none."""
        return np.full(batch.targets.shape, -1, np.int64)

    def labels(self, batch: Batch) -> dict[str, Tokens]:
        """Return what linear probes look for: name → [batch, length] a class at each position, or IGNORE.

        By default `target`, the answer that is asked for there, and of sentences with trees `relation`, what the word
        there is to the one on which it depends.
        """
        found = {"target": batch.targets}
        if batch.trees is not None:
            found["relation"] = np.where(batch.trees.relations < 0, IGNORE, batch.trees.relations)
        return found

    @abstractmethod
    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return training batch number `step`: `size` sequences, drawn from `streams.data(step)` alone."""

    @abstractmethod
    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return the fixed evaluation sets by name, drawn from `streams.evaluation(name)`."""

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return what the predictions got right on the set `name`; exact match and single tokens by default.

        predicted: [batch, length] the likeliest token at each position, given the true ones before it. For a
        deterministic answer a sequence is right here exactly when greedy decoding would produce it.
        """
        asked = batch.targets != IGNORE
        right = (predicted == batch.targets) | ~asked
        return [
            Score(f"{name}.accuracy", int(right.all(axis=1).sum()), len(right)),
            Score(f"{name}.token_accuracy", int((right & asked).sum()), int(asked.sum())),
        ]

    def measure(self, name: str, batch: Batch, predicted: Tokens, losses: NDArray[np.float32]) -> list[Score | Mean]:  # noqa: ARG002
        """Return all that is measured on the set `name`, beside its mean loss: by default its scores.

        losses: [batch, length] nats at each target, 0 where there is none
        """
        return [*self.score(name, batch, predicted)]
