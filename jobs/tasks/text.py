"""Language modelling on real text: the next token, in corpora that `seedbed tokenize` made.

Sample `p` of a run is a pure function of its data seed and `p`, whatever the number of workers: an order without a
table over sequences, an epoch at a time (`jobs/text/order.py`), and for several corpora exact shares of each step.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from jobs.errors import Corrupt, TaskError
from jobs.scalar import Curve, NonNegativeScalar
from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens
from jobs.text.corpus import BYTES, Corpus, Place, find_corpus, open_corpus
from jobs.text.mixture import Mixture
from jobs.text.order import Order

_PINNED = "sha256:"
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
Names = Annotated[dict[Name, str], Field(min_length=1)]


class Text(Task):
    """Predict each next token of sequences of `context` tokens.

    Documents follow each other, the end-of-document token between them, and sequences are cut from that row. A
    corpus is named by its folder, by a path from the study's own folder, or by an address such as s3://bucket/prefix;
    the identity of a run holds its digest instead.

    corpora    name → what is trained on; several are mixed
    weights    name → its weight in the mixture, a number or a function of the step; a name left out has 1
    evaluate   name → corpora that are only measured on
    test_size  sequences of each corpus that are measured; those of `corpora` are never trained on
    documents  `apart`: the first token of a document is not asked for after the end of another
    """

    corpora: Names
    context: Annotated[int, Field(ge=1)]
    weights: dict[Name, NonNegativeScalar] = Field(default_factory=dict)
    evaluate: dict[Name, str] = Field(default_factory=dict)
    test_size: Annotated[int, Field(ge=1)] = 64
    documents: Literal["joined", "apart"] = "joined"
    _addresses: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        for name in self.weights:
            if name not in self.corpora:
                raise ValueError(f"weights: {name!r} is none of the corpora {', '.join(self.corpora)}")
        for name in self.evaluate:
            if name in self.corpora:
                raise ValueError(f"evaluate: {name!r} is trained on, and measured on what is held out of it")
        return self

    def pinned(self, folder: Path) -> tuple[Self, tuple[Place, ...]]:
        """Return the task with the digests of its corpora, and where they lie; raises TaskError where they differ.

        They have one tokenizer, and each is longer than what is held out of it.
        """
        found = {named: find_corpus(named, folder) for named in (*self.corpora.values(), *self.evaluate.values())}
        pinned = self.model_copy(
            update={
                "corpora": {name: found[named].digest for name, named in self.corpora.items()},
                "evaluate": {name: found[named].digest for name, named in self.evaluate.items()},
            }
        )
        places = tuple(found.values())
        pinned.bound({place.digest: place.url for place in places}.__getitem__).check()
        return pinned, places

    def bound(self, where: Callable[[str], str]) -> Self:
        """Return the task with the addresses of its corpora."""
        named = (*self.corpora.values(), *self.evaluate.values())
        bound = self.model_copy()
        bound._addresses = {one: where(one) if one.startswith(_PINNED) else one for one in named}  # noqa: SLF001
        return bound

    def check(self) -> None:
        """Raise TaskError where the corpora do not go together, or are too short."""
        first = self._first.info
        for name in (*self.corpora, *self.evaluate):
            corpus = self._corpus(name)
            if (corpus.info.tokenizer, corpus.info.vocabulary) != (first.tokenizer, first.vocabulary):
                raise TaskError("text", "", -1, f"{name} was tokenized otherwise than {next(iter(self.corpora))}")
            least = self.test_size + (1 if name in self.corpora else 0)
            if corpus.count(self.context) < least:
                told = f"{name} has {corpus.count(self.context)} sequences of {self.context} tokens"
                raise TaskError("text", "", -1, f"{told}: not enough for a test_size of {self.test_size}")

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return bytes as hexadecimal digits and the end of a document; other tokens by their ids."""
        return _vocabulary(self._first.info.tokenizer, self._first.info.vocabulary)

    @property
    def length(self) -> int:
        """Return `context`."""
        return self.context

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return the next `size` samples; of several corpora, each step's share, in an order of its own."""
        names, mixture = self._mixture(size)
        before, after = mixture.taken(step), mixture.taken(step + 1)
        parts = [
            self._corpus(name).sequences(self.order(name, streams).span(start, stop), self.context)
            for name, start, stop in zip(names, before, after, strict=True)
        ]
        rows = np.concatenate(parts)
        if len(names) > 1:
            rows = rows[streams.data(step).permutation(size)]
        return self._ask(rows)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `test_size` sequences of each corpus under its name, none of them ever trained on."""
        found = {}
        for name in sorted((*self.corpora, *self.evaluate)):
            places = self.order(name, streams).never_shown(self.test_size)
            found[name] = self._ask(self._corpus(name).sequences(places, self.context))
        return found

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return how many single tokens were predicted; whole sequences never are."""
        asked = batch.targets != IGNORE
        return [Score(f"{name}.token_accuracy", int(((predicted == batch.targets) & asked).sum()), int(asked.sum()))]

    def order(self, name: str, streams: Streams) -> Order:
        """Return the order in which a run shows the sequences of the corpus `name`."""
        digest = self._corpus(name).info.digest
        size = self._corpus(name).count(self.context)
        held_out = self.test_size if name in self.corpora else 0
        return Order(size, held_out, streams.seeds.data, streams.seeds.evaluation, f"text/{digest}")

    def exposures(self, name: str, streams: Streams, sequences: Tokens, step: int, size: int) -> Tokens:
        """Return how often a run has trained on sequences of the corpus `name` before `step`, int64 [sequence].

        Computed, not counted: it costs the same for step 10 and step 10^9, save for the shares of a mixture.
        """
        names, mixture = self._mixture(size)
        return self.order(name, streams).exposures(sequences, int(mixture.taken(step)[names.index(name)]))

    def _mixture(self, size: int) -> tuple[list[str], Mixture]:
        """Return the names of what is mixed, in the mixture's order, and how."""
        names = sorted(self.corpora)
        return names, _mixture(tuple(self.weights.get(name, 1.0) for name in names), size)

    @property
    def _first(self) -> Corpus:
        return self._corpus(min(self.corpora))

    def _corpus(self, name: str) -> Corpus:
        named = self.corpora[name] if name in self.corpora else self.evaluate[name]
        corpus = open_corpus(self._addresses.get(named, named))
        if named.startswith(_PINNED) and corpus.info.digest != named:
            raise Corrupt(self._addresses[named], f"is another corpus than the study was made for ({named[:19]}…)")
        return corpus

    def _ask(self, rows: Tokens) -> Batch:
        inputs, targets = np.ascontiguousarray(rows[:, :-1]), rows[:, 1:].copy()
        if self.documents == "apart":
            targets[inputs == self._first.info.end] = IGNORE
        return Batch(inputs, targets)


# What a mixture has counted so far decides nothing: the cache saves counting again and changes no number.
@lru_cache(maxsize=64)
def _mixture(weights: tuple[float | Curve, ...], size: int) -> Mixture:
    return Mixture(weights, size)


# A pure function of its arguments: every batch is checked against the vocabulary, and 50,000 names take 5 ms to write.
@lru_cache(maxsize=8)
def _vocabulary(tokenizer: str, size: int) -> tuple[str, ...]:
    return (*(f"{byte:02x}" for byte in range(256)), "end") if tokenizer == BYTES else tuple(map(str, range(size)))
