"""What is measured of a language model beside the loss: minimal pairs, extraction of 32 + 32 tokens, classes of tokens.

All of it follows from the likeliest token and the loss at each position, given the true tokens before it. Where every
one of the tokens that are asked for is the likeliest, greedy decoding writes exactly them, so extraction needs none.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.errors import Fault, TextRefused
from jobs.tasks.task import IGNORE, Batch, Mean, Score, Tokens
from jobs.text.classes import Classes, find_classes
from jobs.text.corpus import BYTES, Corpus
from jobs.text.pairs import Pair, read_pairs
from jobs.text.tokenizer import tokenizer_of

Losses = NDArray[np.float32]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]


class Part(BaseModel):
    """The manners of every part of a task: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Memorised(Part):
    """How much of a sequence a model must say, given how much (32 and 32: Biderman et al. 2023).

    sequences  of each corpus that is trained on, of which as many are measured that are held out
    """

    prompt: Annotated[int, Field(ge=1)] = 32
    continuation: Annotated[int, Field(ge=1)] = 32
    sequences: Annotated[int, Field(ge=1)] = 64

    @property
    def length(self) -> int:
        """Return how many tokens of a sequence are read or asked for."""
        return self.prompt + self.continuation


class TextProbes(Part):
    """What is measured beside loss and single tokens; nothing here changes what is trained on.

    pairs      name → JSON lines of minimal pairs, by a path from the study's own folder
    memorised  k-extraction; None: not measured
    classes    `bytes`, or a JSON file of classes of tokens; empty: not measured
    """

    pairs: dict[Name, str] = Field(default_factory=dict)
    memorised: Memorised | None = None
    classes: str = ""

    def files(self) -> tuple[str, ...]:
        """Return the files that are named."""
        return (*self.pairs.values(), *({self.classes} - {"", BYTES}))

    def pinned(self, digests: Mapping[str, str]) -> Self:
        """Return the same with the digests of files in the place of their names."""
        pairs = {name: digests[named] for name, named in self.pairs.items()}
        return self.model_copy(update={"pairs": pairs, "classes": digests.get(self.classes, self.classes)})


class Planted(Part):
    """Sequences that are shown exactly so often, instead of once an epoch.

    corpus  the one whose samples they are among
    counts  exposures; 0 plants nothing and measures what is said without any
    each    sequences for each of the counts
    steps   the exposures are drawn from the samples of so many first steps; training has no fewer
    of      `text`: sequences of the corpus that are otherwise held out; `random`: tokens drawn evenly
    """

    corpus: Name
    counts: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    steps: Annotated[int, Field(ge=1)]
    each: Annotated[int, Field(ge=1)] = 16
    of: str = Field(default="text", pattern="^(text|random)$")

    @model_validator(mode="after")
    def _counts_are_distinct(self) -> Self:
        if len(set(self.counts)) < len(self.counts):
            raise ValueError("counts are exposures, each of them once; how many sequences have it says `each`")
        return self

    @property
    def per_sequence(self) -> tuple[int, ...]:
        """Return how often each planted sequence is shown."""
        return tuple(count for count in self.counts for _ in range(self.each))


# Pure functions of their arguments, which every probe of every run asks for again.
@lru_cache(maxsize=32)
def pairs_in(text: str, name: str) -> tuple[Pair, ...]:
    """Return the minimal pairs of the set `name`; raises TextRefused."""
    return read_pairs(text, f"probes.pairs.{name}")


@lru_cache(maxsize=8)
def classes_in(named: str, text: str, corpus: Corpus) -> Classes:
    """Return the classes of tokens that are `named`, or in this text of a file; raises TextRefused."""
    return find_classes(named, text, tokenizer_of(corpus))


@lru_cache(maxsize=32)
def pair_set(text: str, name: str, corpus: Corpus, longest: int) -> Batch:
    """Return the good sentences, then the bad ones, each after the end of a document; raises TextRefused.

    longest  tokens of a sentence that a model may read
    """
    pairs, tokenizer = pairs_in(text, name), tokenizer_of(corpus)
    ids = tokenizer.ids([pair.good for pair in pairs] + [pair.bad for pair in pairs])
    over = [index % len(pairs) for index, sentence in enumerate(ids) if not 0 < len(sentence) <= longest]
    if over:
        told = f"{pairs[over[0]].good!r} has not 1 to {longest} tokens, the context of the model"
        raise TextRefused((Fault(f"probes.pairs.{name}", 0, "", f"{len(over)} sentences do not fit: {told}"),))
    shape = (len(ids), max(len(sentence) for sentence in ids))
    inputs, targets = np.full(shape, tokenizer.end, np.int64), np.full(shape, IGNORE, np.int64)
    for row, sentence in enumerate(ids):
        inputs[row, 1 : len(sentence)] = sentence[:-1]
        targets[row, : len(sentence)] = sentence
    return Batch(inputs, targets)


def pair_scores(name: str, pairs: Sequence[Pair], losses: Losses) -> list[Score]:
    """Return of how many pairs the good sentence is the likelier one, of all and by phenomenon; a tie is not right.

    losses: as for `pair_set`; the log-likelihood of a sentence is the sum over all of its tokens
    """
    nats = losses.sum(axis=1, dtype=np.float64)
    right = nats[: len(pairs)] < nats[len(pairs) :]
    found = [Score(f"{name}.accuracy", int(right.sum()), len(right))]
    for phenomenon in sorted({pair.phenomenon for pair in pairs if pair.phenomenon}):
        mine = np.array([pair.phenomenon == phenomenon for pair in pairs])
        found.append(Score(f"{name}.{phenomenon}.accuracy", int(right[mine].sum()), int(mine.sum())))
    return found


def extraction_set(rows: Tokens, rule: Memorised) -> Batch:
    """Return sequences of which the tokens after the prompt are asked for.

    rows: [sequence, at least prompt + continuation]
    """
    inputs = np.ascontiguousarray(rows[:, : rule.length - 1])
    targets = rows[:, 1 : rule.length].copy()
    targets[:, : rule.prompt - 1] = IGNORE
    return Batch(inputs, targets)


def extraction_scores(name: str, batch: Batch, predicted: Tokens) -> list[Score]:
    """Return how many sequences are said whole, how many tokens until the first wrong one, and how many of all."""
    asked = batch.targets != IGNORE
    right = (predicted == batch.targets)[asked].reshape(len(asked), -1)
    return [
        Score(f"{name}.extractable", int(right.all(axis=1).sum()), len(right)),
        Score(f"{name}.prefix", int(np.logical_and.accumulate(right, axis=1).sum()), right.size),
        Score(f"{name}.token_match", int(right.sum()), right.size),
    ]


def class_measures(name: str, batch: Batch, predicted: Tokens, losses: Losses, classes: Classes) -> list[Score | Mean]:
    """Return of each class of target tokens that is there the mean loss in nats, and how many were predicted."""
    found: list[Score | Mean] = []
    for kind, ids in classes.items():
        there = np.isin(batch.targets, ids)
        if count := int(there.sum()):
            right = int((predicted == batch.targets)[there].sum())
            found.append(Mean(f"{name}.{kind}.loss", float(losses[there].sum(dtype=np.float64)) / count))
            found.append(Score(f"{name}.{kind}.token_accuracy", right, count))
    return found
