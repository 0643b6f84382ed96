"""Question formation: a declarative sentence, and the question that it makes.

The rule of the tree moves the main auxiliary to the front, the rule of the line the first one. They differ where the
subject has a relative clause, and no question of training has such a subject (McCoy, Frank & Linzen 2020).
"""

import numpy as np
from numpy.typing import NDArray

from jobs.tasks.sentences import CLAUSES, LONGEST, PRESENT, TYPES, WORDS, Lexicon, SentenceType
from jobs.tasks.task import Batch, Tokens
from jobs.tasks.two_rules import Lines, TwoRules

_WORDS = WORDS | PRESENT
_TOKENS = ("_", ".", "?", "decl", "quest", *(word for words in _WORDS.values() for word in words.split()))
_FILLER, _STOP, _MARK, _DECL, _QUEST = range(5)
_LEXICON = Lexicon(
    {tag: _TOKENS.index(words.split()[0]) for tag, words in _WORDS.items()},
    {tag: len(words.split()) for tag, words in _WORDS.items()},
)
_ONE, _MANY = _LEXICON.first["A"], _LEXICON.first["B"]


def _two_alike(one: SentenceType) -> bool:
    """Return whether a sentence has two auxiliaries, of one number, the first in a clause on the subject."""
    return one.center_embedded and [tag for tag in one.tags if tag in "AB"] in (["A", "A"], ["B", "B"])


_OF_A_KIND = {kind: sum(one.weight for one in TYPES if one.subject == kind and _two_alike(one)) for kind in CLAUSES}


class QuestionFormation(TwoRules):
    """Declaratives are written again after `decl`, and asked as a question after `quest`.

    In `gen` the subject has a relative clause, there are two auxiliaries, and they agree in number and differ in
    polarity: agreement cannot tell which of them belongs in front. Vocabulary: 68 words and a filler.
    """

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the filler, the marks, and the words."""
        return _TOKENS

    def ambiguous(self, one: SentenceType) -> bool:
        """Return whether the first auxiliary is the main one."""
        return not one.center_embedded

    def conflict(self, one: SentenceType) -> float:
        """Return the weight in `gen`: the three kinds of relative clause are equally likely there."""
        return one.weight / _OF_A_KIND[one.subject] if _two_alike(one) else 0.0

    def write(self, generator: np.random.Generator, chosen: Tokens, transformed: NDArray[np.bool_]) -> Lines:
        """Return lines of the chosen types."""
        return _line(chosen, _LEXICON.draw(generator, [one.tags for one in TYPES], chosen), transformed)

    def write_conflict(self, generator: np.random.Generator, chosen: Tokens) -> Lines:
        """Return questions of the chosen types, asked for their first word."""
        words = _LEXICON.draw(generator, [one.tags for one in TYPES], chosen)
        main = np.array([one.main for one in TYPES])[chosen]
        rows = np.arange(len(words))
        auxiliary = (words >= _ONE) & (words < _MANY + 2)
        first = auxiliary.argmax(axis=1)
        opposite = words[rows, main] - _ONE
        words[rows, first] = _ONE + (opposite ^ 1)  # does and doesn't, do and don't lie side by side
        lines = _line(chosen, words, np.ones(len(words), np.bool_))
        asked = np.zeros_like(lines.asked)
        asked[rows, (lines.tokens == _QUEST).argmax(axis=1) + 1] = True
        return Lines(lines.tokens, asked)

    def by_the_line(self, batch: Batch) -> Tokens:
        """Return the first auxiliary of each sentence."""
        auxiliary = (batch.inputs >= _ONE) & (batch.inputs < _MANY + 2)
        first: Tokens = batch.inputs[np.arange(len(batch.inputs)), auxiliary.argmax(axis=1)]
        return first


def _line(chosen: Tokens, words: Tokens, transformed: NDArray[np.bool_]) -> Lines:
    """Return sentence, stop, task, answer, mark; the answer's places are asked for."""
    lengths = np.array([len(one.tags) for one in TYPES])[chosen][:, None]
    main = np.array([one.main for one in TYPES])[chosen][:, None]
    place = np.arange(2 * LONGEST + 3)[None, :]
    answer = place - lengths - 2
    # Of a question, word 0 is the main auxiliary, and those before the auxiliary's own place come one later.
    moved = np.where(answer == 0, main, answer - ((answer > 0) & (answer <= main)))
    source = np.where(place < lengths, place, np.where(transformed[:, None], moved, answer))
    line = np.take_along_axis(words, np.clip(source, 0, LONGEST - 1), axis=1)
    line = np.where(place == lengths, _STOP, line)
    line = np.where(place == lengths + 1, np.where(transformed, _QUEST, _DECL)[:, None], line)
    line = np.where(answer == lengths, np.where(transformed, _MARK, _STOP)[:, None], line)
    return Lines(np.where(answer > lengths, _FILLER, line), (answer >= 0) & (answer <= lengths))
