"""Training that two rules explain, and a test that tells them apart: question formation and tense reinflection.

A line is a sentence, a word that says what to do, and an answer: the sentence itself, or the sentence transformed. All
transformed lines that are trained on follow from a rule of the tree and from a rule of the line alike; the set `gen`
holds sentences on which they differ. After McCoy, Frank & Linzen (2020), with the two factors of Qin, Saphra &
Alvarez-Melis (2025, "Data drives unstable hierarchical generalization"): how many sentences are center-embedded, and
how many types of sentences there are.
"""

from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from jobs.seeds import Seeds, Streams
from jobs.tasks.sentences import LONGEST, TYPES, SentenceType, draw_types
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens

Weights = NDArray[np.float64]
_TRANSFORMED_TYPES = 0.74  # of a restricted set of types: as in the published sets of 50 and of 100 types


@dataclass(frozen=True, slots=True)
class Lines:
    """Lines as text and what is asked of them.

    tokens  [line, length + 1], filled up at the end
    asked   [line, length + 1], True for tokens that are to be predicted when a line is measured on
    """

    tokens: Tokens
    asked: NDArray[np.bool_]


class TwoRules(Task):
    """The parameters of both tasks; the loss is on every token of a line, as in language modelling.

    center_embedded  share of the untransformed sentences whose subject has a relative clause (the grammar's own: 1/3)
    transformed      share of lines that ask for the transformation
    types            how many types of lines there are, transformed or not, 374 being all of question formation; which
                     ones is drawn from the evaluation seed, and fewer are always among more
    lines            different lines that are trained on, drawn from the evaluation seed; the data seed draws batches of
                     them with replacement
    test_size        lines of each held-out set
    """

    center_embedded: Annotated[float, Field(ge=0.0, le=1.0)] = 1 / 3
    transformed: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.4
    types: Annotated[int, Field(ge=8)] = 374
    lines: Annotated[int, Field(ge=1)] = 100_000
    test_size: Annotated[int, Field(ge=1)] = 1000

    @model_validator(mode="after")
    def _there_are_so_many(self) -> Self:
        most = len(TYPES) + sum(map(self.ambiguous, TYPES))
        if self.types > most:
            raise ValueError(f"types: there are {most}, not {self.types}")
        return self

    @abstractmethod
    def ambiguous(self, one: SentenceType) -> bool:
        """Return whether both rules transform sentences of this type alike."""

    @abstractmethod
    def conflict(self, one: SentenceType) -> float:
        """Return the weight of this type in the set `gen`, where the rules differ."""

    @abstractmethod
    def write(self, generator: np.random.Generator, chosen: Tokens, transformed: NDArray[np.bool_]) -> Lines:
        """Return lines of the chosen types (places in TYPES) with words drawn into them."""

    @abstractmethod
    def write_conflict(self, generator: np.random.Generator, chosen: Tokens) -> Lines:
        """Return transformed lines of the chosen types, asked for the one token about which the rules differ."""

    @abstractmethod
    def by_the_line(self, batch: Batch) -> Tokens:
        """Return for each line of `gen` the token that the rule of the line gives, [line]."""

    @property
    def length(self) -> int:
        """Return what a model reads: a sentence and its stop, the word that asks, and the answer without its stop."""
        return 2 * LONGEST + 2

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` of the lines, drawn with replacement."""
        corpus = _corpus(self, _shared(streams))
        return _learn(corpus.tokens[streams.data(step).integers(0, self.lines, size=size)])

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `heldout`: new transformed lines of trained types, asked for their answers; and `gen`."""
        generator = streams.evaluation("heldout")
        types = draw_types(generator, self._weights(streams)[0], self.test_size)
        known = self.write(generator, types, np.ones(self.test_size, np.bool_))
        generator = streams.evaluation("gen")
        types = draw_types(generator, np.array([self.conflict(one) for one in TYPES]), self.test_size)
        return {"heldout": _ask(known), "gen": _ask(self.write_conflict(generator, types))}

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return exact match of whole answers; of `gen` the rates at which the two rules are followed.

        `gen.tree` and `gen.line` add up to 1 for a model that always follows one of them: what is left is neither.
        """
        if name != "gen":
            return super().score(name, batch, predicted)
        rows, places = np.nonzero(batch.targets != IGNORE)
        said = predicted[rows, places]
        by_the_tree = int((said == batch.targets[rows, places]).sum())
        by_the_line = int((said == self.by_the_line(batch)).sum())
        return [Score("gen.tree", by_the_tree, len(rows)), Score("gen.line", by_the_line, len(rows))]

    def corpus(self, streams: Streams) -> Lines:
        """Return the lines that are trained on, drawn anew."""
        generator = streams.evaluation("lines")
        transformed, plain = self._weights(streams)
        asked = generator.random(self.lines) < self.transformed
        types = np.where(
            asked, draw_types(generator, transformed, self.lines), draw_types(generator, plain, self.lines)
        )
        return self.write(generator, types, asked)

    def _weights(self, streams: Streams) -> tuple[Weights, Weights]:
        """Return the weights [type] of transformed and of other lines."""
        order = streams.evaluation("types").permutation(len(TYPES))
        own = np.array([one.weight for one in TYPES])
        ambiguous = np.array([self.ambiguous(one) for one in TYPES])
        embedded = np.array([one.center_embedded for one in TYPES])
        most = int(ambiguous.sum())
        asked = min(most, max(round(_TRANSFORMED_TYPES * self.types), self.types - len(TYPES)))
        left = self.types - asked
        inner = min(int(embedded.sum()), max(1, round(left * embedded.mean())))
        plain = np.zeros(len(TYPES))
        for group, count, share in (
            (embedded, inner, self.center_embedded),
            (~embedded, left - inner, 1 - self.center_embedded),
        ):
            kept = _first(order, group, count)
            plain += share * own * kept / (own * kept).sum()
        return own * _first(order, ambiguous, asked), plain


def _first(order: Tokens, group: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return which types are among the first `count` of a group, in an order of all."""
    kept = np.zeros(len(group), np.bool_)
    kept[order[group[order]][:count]] = True
    return kept


def _shared(streams: Streams) -> Streams:
    return Streams(Seeds(init=0, data=0, dropout=0, evaluation=streams.seeds.evaluation))


# A pure function of its arguments: the cache saves writing all lines again for every batch and changes nothing.
@lru_cache(maxsize=8)
def _corpus(task: TwoRules, streams: Streams) -> Lines:
    return task.corpus(streams)


def _learn(tokens: Tokens) -> Batch:
    """Return lines with every token as a target; the filler, token 0, is none."""
    targets = tokens[:, 1:].copy()
    targets[targets == 0] = IGNORE
    return Batch(np.ascontiguousarray(tokens[:, :-1]), targets)


def _ask(lines: Lines) -> Batch:
    return Batch(np.ascontiguousarray(lines.tokens[:, :-1]), np.where(lines.asked, lines.tokens, IGNORE)[:, 1:])
