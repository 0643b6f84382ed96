"""Sentences whose trees are known, for language modelling: when does structure come, and when agreement?

The grammar of `sentences.py`, with adjectives before nouns, adverbs before the sentence and one before the main verb,
all of them optional. Without them a fixed distance finds .80 of all heads, and attention that finds heads would show no
syntax; with them it finds .45. After Chen, Shwartz-Ziv, Cho, Leavitt & Saphra (2024, "Sudden drops in the loss").
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jobs.seeds import Streams
from jobs.tasks.masking import masked
from jobs.tasks.sentences import PRESENT, TYPES, WORDS, SentenceType, draw_types
from jobs.tasks.syntax import RELATIONS, ROOT, tree_of
from jobs.tasks.task import IGNORE, Batch, Mean, Score, Task, Tokens, Trees, item_scores

_WORDS = (
    WORDS
    | PRESENT
    | {
        "J": "small old quiet clever lazy brave pale hungry",
        "V": "often today quickly rarely maybe gladly again soon",
    }
)
_TOKENS = ("_", ".", "[hidden]", *(word for words in _WORDS.values() for word in words.split()))
_FILLER, _STOP, _HIDDEN = range(3)
_LETTERS = "".join(sorted(_WORDS))
_FIRST = np.array([_TOKENS.index(_WORDS[tag].split()[0]) for tag in _LETTERS])
_COUNT = np.array([len(_WORDS[tag].split()) for tag in _LETTERS])
_ONE, _MANY = (int(_FIRST[_LETTERS.index(tag)]) for tag in "AB")
HELD_OUT_MASKING = 0.15
_PLAIN = 4  # auxiliary, verb, determiner and noun


class Dependencies(Task):
    """Sentences of which some words are hidden, or each next one is asked for; `heldout` has 15 % of its words hidden.

    objective   what is asked for: hidden words (masked language modelling), or the next word (causal models)
    adjectives  the most before a noun
    adverbs     the most before a sentence
    objects     what the object of a sentence is: a noun alone, or any noun phrase of the grammar
    test_size   sentences of `heldout`, and pairs of `agreement` and of `attractor`
    trees       sentences of `trees`, of which every relation should have 100 words or more
    validation  sentences of `validation`, drawn as `heldout` is, for whatever chooses by a loss; 0: no such set
    items       each pair is a metric of its own, too: `attractor.item.0007`, 1 of 1 or 0 of 1

    The pairs differ in the main auxiliary, in the number that it agrees with; in `attractor` the noun nearest to it has
    the other number than its subject, in `agreement` no noun before it has. `measure: [attention]` looks at `trees`.
    """

    added_later: ClassVar[frozenset[str]] = frozenset({"objective", "validation", "items"})

    objective: Literal["masked", "next"] = "masked"
    adjectives: Annotated[int, Field(ge=0, le=4)] = 2
    adverbs: Annotated[int, Field(ge=0, le=4)] = 3
    objects: Literal["plain", "any"] = "any"
    test_size: Annotated[int, Field(ge=1)] = 256
    trees: Annotated[int, Field(ge=1)] = 512
    validation: Annotated[int, Field(ge=0)] = 0
    items: bool = False

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the filler, the stop, what stands for a hidden word, and the words."""
        return _TOKENS

    @property
    def length(self) -> int:
        """Return the longest sentence and its stop."""
        return int(_layout(self).tags.shape[1]) + 1

    @property
    def mask_token(self) -> int | None:
        """Return what stands for a hidden word, where words are hidden."""
        return _HIDDEN if self.objective == "masked" else None

    @property
    def relations(self) -> tuple[str, ...]:
        """Return the relations between words."""
        return RELATIONS

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` fresh sentences."""
        drawn = self._draw(streams.data(step), size, [one.weight for one in self.types])[0]
        return drawn if self.objective == "masked" else _asking_for_the_next(drawn)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return `heldout`, `trees`, and the pairs `agreement` and `attractor`: good ones first, then bad ones."""
        every = [one.weight for one in self.types]
        chosen_by = {"validation": self._asked(streams, "validation", self.validation)} if self.validation else {}
        whole = self._draw(streams.evaluation("trees"), self.trees, every)[0]
        return {
            "heldout": self._asked(streams, "heldout", self.test_size),
            "trees": Batch(whole.inputs, np.full_like(whole.targets, IGNORE), whole.trees),
            "agreement": self._pairs(streams, "agreement", [one.weight * _is_plain(one) for one in self.types]),
            "attractor": self._pairs(
                streams, "attractor", [one.weight * (one.nearest != one.tags[1]) for one in self.types]
            ),
            **chosen_by,
        }

    def measure(self, name: str, batch: Batch, predicted: Tokens, losses: NDArray[np.float32]) -> list[Score | Mean]:
        """Return how many hidden words were right, or in how many pairs the good word is the likelier one.

        The words of a pair are hidden in one sentence: their pseudo-log-likelihoods are compared, or, where the next
        word is asked for, those of both sentences as wholes. A tie is wrong.
        """
        if name == "trees":
            return []
        if name in ("heldout", "validation"):
            asked = batch.targets != IGNORE
            return [Score(f"{name}.token_accuracy", int((predicted == batch.targets)[asked].sum()), int(asked.sum()))]
        good, bad = np.split(losses.sum(axis=1), 2)
        right = good < bad
        return [
            Score(f"{name}.accuracy", int(right.sum()), len(right)),
            *(item_scores(name, right.tolist()) if self.items else ()),
        ]

    def _asked(self, streams: Streams, name: str, count: int) -> Batch:
        generator = streams.evaluation(name)
        sentences = self._draw(generator, count, [one.weight for one in self.types])[0]
        if self.objective == "masked":
            asked = masked(sentences, HELD_OUT_MASKING, generator, _HIDDEN, len(_TOKENS))
        else:
            asked = _asking_for_the_next(sentences)
        return Batch(asked.inputs, asked.targets)

    @property
    def types(self) -> tuple[SentenceType, ...]:
        """Return the types of its sentences."""
        return tuple(one for one in TYPES if self.objects == "any" or len(one.tags) - one.main <= _PLAIN)

    def _pairs(self, streams: Streams, name: str, weights: list[float]) -> Batch:
        sentences, main = self._draw(streams.evaluation(name), self.test_size, weights)
        rows = np.arange(len(main))
        good = sentences.inputs[rows, main]
        bad = np.where(good < _MANY, good + _MANY - _ONE, good - _MANY + _ONE)
        if self.objective == "next":
            other = sentences.inputs.copy()
            other[rows, main] = bad
            both = np.concatenate([sentences.inputs, other])
            return _asking_for_the_next(Batch(both, np.concatenate([sentences.targets, sentences.targets])))
        hidden = sentences.inputs.copy()
        hidden[rows, main] = _HIDDEN
        targets = np.full((2, *hidden.shape), IGNORE)
        targets[0, rows, main] = good
        targets[1, rows, main] = bad
        return Batch(np.concatenate([hidden, hidden]), targets.reshape(-1, hidden.shape[1]))

    def _draw(self, generator: np.random.Generator, size: int, weights: list[float]) -> tuple[Batch, Tokens]:
        """Return sentences, and the place of the main auxiliary in each."""
        layout = _layout(self)
        chosen = draw_types(generator, np.array(weights), size)
        most = np.array([self.adverbs, 1, *[self.adjectives] * layout.groups])
        wanted = generator.integers(0, most + 1, size=(size, len(most)))
        tags, group = layout.tags[chosen], layout.group[chosen]
        there = (tags >= 0) & (layout.order[chosen] < np.take_along_axis(wanted, np.maximum(group, 0), 1))
        there |= (tags >= 0) & (group < 0)
        word = _FIRST[tags] + np.floor(generator.random(tags.shape) * _COUNT[tags]).astype(np.int64)
        place = np.cumsum(there, axis=1) - 1
        inputs = np.full((size, self.length), _FILLER)
        heads, relations = np.full_like(inputs, -1), np.full_like(inputs, -1)
        rows, slots = np.nonzero(there)
        to = (rows, place[rows, slots])
        inputs[to] = word[rows, slots]
        heads[to] = place[rows, layout.heads[chosen][rows, slots]]
        relations[to] = layout.relations[chosen][rows, slots]
        inputs[np.arange(size), there.sum(axis=1)] = _STOP
        targets = np.where(heads >= 0, inputs, IGNORE)
        return Batch(inputs, targets, Trees(heads, relations)), place[np.arange(size), layout.main[chosen]]


def _asking_for_the_next(batch: Batch) -> Batch:
    """Return a batch that asks for its words with the token after each asked for, the stop after the last."""
    after = np.concatenate([batch.inputs[:, 1:], np.full((len(batch.inputs), 1), _FILLER)], axis=1)
    return replace(batch, targets=np.where(batch.targets != IGNORE, after, IGNORE))


def _is_plain(one: SentenceType) -> bool:
    """Return whether every noun before the main auxiliary has the number of the subject."""
    return {tag for tag in one.tags[: one.main] if tag in "SP"} == {one.tags[1]}


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where words of each type may stand, [type, slot]: those of the type, and between them those that are optional.

    tags       places in _LETTERS; -1 beyond the end
    heads      slots
    relations  places in RELATIONS; -1 for the root
    group      -1: always there; 0: adverbs before the sentence, 1: before the main verb, 2, …: adjectives of each noun
    order      which of its group it is: a group of which k are there has its first k
    main       [type] the slot of the main auxiliary
    """

    tags: Tokens
    heads: Tokens
    relations: Tokens
    group: Tokens
    order: Tokens
    main: Tokens

    @property
    def groups(self) -> int:
        """Return the most nouns of a type."""
        return int(self.group.max()) - 1


# A pure function of its arguments, which every batch asks for again.
@lru_cache(maxsize=32)
def _layout(task: Dependencies) -> _Layout:
    lines = [_slots(one, task.adjectives, task.adverbs) for one in task.types]
    table = np.full((len(lines), max(len(line) for line, _ in lines), 5), -1)
    for row, (line, _) in enumerate(lines):
        table[row, : len(line)] = line
    tags, heads, relations, group, order = np.moveaxis(table, 2, 0)
    return _Layout(tags, heads, relations, group, order, np.array([main for _, main in lines]))


def _slots(one: SentenceType, adjectives: int, adverbs: int) -> tuple[list[tuple[int, ...]], int]:
    """Return (tag, head, relation, group, order) of each slot of a type, and the slot of its main auxiliary."""
    words, verb = tree_of(one), one.main + 1
    nouns = [place for place, word in enumerate(words) if word.tag in "SP"]
    optional = {noun: ("J", noun, "amod", 2 + number, adjectives) for number, noun in enumerate(nouns)}
    optional |= {0: ("V", verb, "advmod", 0, adverbs), verb: ("V", verb, "advmod", 1, 1)}
    named, slot_of = [], {}
    for place, word in enumerate(words):
        tag, head, relation, group, count = optional.get(place, ("", 0, "", 0, 0))
        named += [(tag, head, relation, group, order) for order in range(count)]
        slot_of[place] = len(named)
        named.append((word.tag, word.head, word.relation, -1, 0))
    known = {name: number for number, name in enumerate(RELATIONS)} | {ROOT: -1}
    slots = [(_LETTERS.index(tag), slot_of[head], known[rel], *rest) for tag, head, rel, *rest in named]
    return slots, slot_of[one.main]
