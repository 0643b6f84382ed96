"""Tense reinflection: a sentence in the past, and the same sentence in the present.

In the present a verb agrees in number: by the rule of the tree with its subject, by the rule of the line with the
nearest noun before it. They differ where another noun of another number stands between the two, and no line of
training that asks for the present has such a sentence (McCoy, Frank & Linzen 2020).
"""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jobs.tasks.sentences import LONGEST, TYPES, WORDS, Lexicon, SentenceType
from jobs.tasks.task import IGNORE, Batch, Tokens
from jobs.tasks.two_rules import Lines, TwoRules

_WORDS = WORDS | {
    "I": "slept laughed swam waited changed sang smiled ran moved",
    "T": "admired followed annoyed confused remembered entertained applauded comforted called",
}
_OF_ONE = "sleeps laughs swims waits changes sings smiles runs moves "
_OF_ONE += "admires follows annoys confuses remembers entertains applauds comforts calls"
_OF_MANY = "sleep laugh swim wait change sing smile run move "
_OF_MANY += "admire follow annoy confuse remember entertain applaud comfort call"
_WRITTEN = " ".join((*_WORDS.values(), _OF_ONE, _OF_MANY)).split()
_TOKENS = ("_", ".", "PAST", "PRESENT", *_WRITTEN)
_FILLER, _STOP, _PAST, _PRESENT = range(4)
_LEXICON = Lexicon(
    {tag: _TOKENS.index(words.split()[0]) for tag, words in _WORDS.items()},
    {tag: len(words.split()) for tag, words in _WORDS.items()},
)
_VERBS = 18
_SINGULAR, _PLURAL = len(_TOKENS) - 2 * _VERBS, len(_TOKENS) - _VERBS  # where the verbs of the present begin


def _without_auxiliaries(one: SentenceType) -> str:
    return one.tags.replace("A", "").replace("B", "")


_TAGS = [_without_auxiliaries(one) for one in TYPES]
_LENGTHS = np.array([len(tags) for tags in _TAGS])
# The main verb stands where the main auxiliary stood, less the auxiliaries of a clause before it.
_MAIN = np.array([one.main - sum(tag in "AB" for tag in one.tags[: one.main]) for one in TYPES])


def _shifts() -> NDArray[np.int64]:
    """Return [type, place] what a verb's number adds to its past form to make the present one; 0 elsewhere."""
    shifts = np.zeros((len(TYPES), LONGEST), np.int64)
    for row, (one, tags) in enumerate(zip(TYPES, _TAGS, strict=True)):
        numbers = [_SINGULAR if tag == "A" else _PLURAL for tag in one.tags if tag in "AB"]
        verbs = [place for place, tag in enumerate(tags) if tag in "IT"]
        for place, first in zip(verbs, numbers, strict=True):
            shifts[row, place] = first - _LEXICON.first["I"]
    return shifts


_SHIFTS = _shifts()


class TenseReinflection(TwoRules):
    """After `PAST` a sentence is written again, after `PRESENT` in the present tense.

    In `gen` the subject and the nearest noun before the main verb differ in number; asked for is the main verb alone.
    """

    types: Annotated[int, Field(ge=8)] = 442

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the filler, the stop, and the words."""
        return _TOKENS

    def ambiguous(self, one: SentenceType) -> bool:
        """Return whether the nearest noun before the main verb has the number of its subject."""
        return one.nearest == one.tags[1]

    def conflict(self, one: SentenceType) -> float:
        """Return the weight in `gen`: the grammar's own, where the rules differ."""
        return 0.0 if self.ambiguous(one) else one.weight

    def write(self, generator: np.random.Generator, chosen: Tokens, transformed: NDArray[np.bool_]) -> Lines:
        """Return lines of the chosen types."""
        words = _LEXICON.draw(generator, _TAGS, chosen)
        lengths = _LENGTHS[chosen][:, None]
        place = np.arange(2 * LONGEST + 3)[None, :]
        answer = place - lengths - 2
        present = words + np.where(transformed[:, None], _SHIFTS[chosen], 0)
        line = np.take_along_axis(words, np.clip(place, 0, LONGEST - 1) + 0 * lengths, axis=1)
        said = np.take_along_axis(present, np.clip(answer, 0, LONGEST - 1), axis=1)
        line = np.where(place < lengths, line, said)
        line = np.where((place == lengths) | (answer == lengths), _STOP, line)
        line = np.where(place == lengths + 1, np.where(transformed, _PRESENT, _PAST)[:, None], line)
        return Lines(np.where(answer > lengths, _FILLER, line), (answer >= 0) & (answer <= lengths))

    def write_conflict(self, generator: np.random.Generator, chosen: Tokens) -> Lines:
        """Return lines in the present, asked for the main verb."""
        lines = self.write(generator, chosen, np.ones(len(chosen), np.bool_))
        asked = np.zeros_like(lines.asked)
        asked[np.arange(len(chosen)), _LENGTHS[chosen] + 2 + _MAIN[chosen]] = True
        return Lines(lines.tokens, asked)

    def by_the_line(self, batch: Batch) -> Tokens:
        """Return the main verb in the number that its subject does not have."""
        verb: Tokens = batch.targets[batch.targets != IGNORE]
        other: Tokens = np.where(verb < _PLURAL, verb + _VERBS, verb - _VERBS)
        return other
