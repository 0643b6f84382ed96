"""Sentences with at most one relative clause in each noun phrase, by type: a grammar, and words that its tasks share.

The grammar is that of McCoy, Frank & Linzen (2020, "Does syntax need to grow on trees?"), written from its
description: a sentence is a subject and a predicate that agrees with it; a noun phrase is a noun alone, with a
prepositional phrase, or with a relative clause, each as likely as the others; a predicate is intransitive or has an
object. A type is a sequence of tags, of which there are 272; words are drawn into its places.

Not here: what is asked of a sentence (`question_formation.py`, `tense_reinflection.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Subject = Literal["plain", "phrase", "intransitive_clause", "object_clause", "transitive_clause"]
CLAUSES: tuple[Subject, ...] = ("intransitive_clause", "object_clause", "transitive_clause")
LONGEST = 16  # words of the longest sentence, without its full stop
WORDS = {
    "D": "the some my your our her",
    "S": "raven newt otter badger heron lizard rabbit turtle beaver falcon gopher magpie weasel",
    "P": "ravens newts otters badgers herons lizards rabbits turtles beavers falcons gophers magpies weasels",
    "O": "near behind above below beside with around by",
    "R": "who that",
}
PRESENT = {
    "A": "does doesn't",
    "B": "do don't",
    "I": "sleep laugh swim wait change sing smile run move",
    "T": "admire follow annoy confuse remember entertain applaud comfort call",
}
_AUXILIARY = {"S": "A", "P": "B"}


@dataclass(frozen=True, slots=True)
class SentenceType:
    """A sequence of tags.

    D is a determiner, S and P a noun (one, many), O a preposition, R a relative pronoun, A and B an auxiliary (of one,
    of many), I and T a verb (without and with an object).

    weight   the probability that the grammar makes a sentence of this type
    subject  what the subject is made of
    main     the place of the main auxiliary; the main verb follows it
    """

    tags: str
    weight: float
    subject: Subject
    main: int

    @property
    def center_embedded(self) -> bool:
        """Return whether a relative clause stands between the subject's noun and its verb."""
        return self.subject in CLAUSES

    @property
    def nearest(self) -> str:
        """Return the tag of the last noun before the main verb."""
        return next(tag for tag in reversed(self.tags[: self.main]) if tag in "SP")


def _noun_phrases(number: str) -> Iterator[tuple[Subject, str, float]]:
    """Yield form, tags and probability of the noun phrases whose noun is of this number."""
    own = _AUXILIARY[number]
    yield "plain", f"D{number}", 1 / 3
    for other in "SP":
        yield "phrase", f"D{number}OD{other}", 1 / 6
    yield "intransitive_clause", f"D{number}R{own}I", 1 / 9
    for other in "SP":
        yield "object_clause", f"D{number}RD{other}{_AUXILIARY[other]}T", 1 / 18
        yield "transitive_clause", f"D{number}R{own}TD{other}", 1 / 18


def _types() -> Iterator[SentenceType]:
    objects = [(f"T{tags}", p / 4) for number in "SP" for _, tags, p in _noun_phrases(number)]
    for number in "SP":
        for form, subject, p in _noun_phrases(number):
            for predicate, q in (("I", 1 / 2), *objects):
                yield SentenceType(f"{subject}{_AUXILIARY[number]}{predicate}", p * q / 2, form, len(subject))


TYPES: tuple[SentenceType, ...] = tuple(_types())


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Where the words of each tag begin among the tokens, and how many they are."""

    first: Mapping[str, int]
    size: Mapping[str, int]

    def draw(self, generator: np.random.Generator, tags: Sequence[str], chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return words [sentence, LONGEST] for the tags of the chosen types; −1 beyond the end of a sentence."""
        letters = sorted(self.first)
        codes = np.full((len(tags), LONGEST), -1, np.int64)
        for row, text in enumerate(tags):
            codes[row, : len(text)] = [letters.index(tag) for tag in text]
        first, size = (np.array([table[tag] for tag in letters]) for table in (self.first, self.size))
        code = codes[chosen]
        words = first[code] + np.floor(generator.random(code.shape) * size[code]).astype(np.int64)
        return np.where(code >= 0, words, -1)


def draw_types(generator: np.random.Generator, weights: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return `count` types, as places in TYPES, drawn in proportion to `weights` [type]."""
    edges = np.cumsum(weights)
    return np.searchsorted(edges / edges[-1], generator.random(count), side="right")
