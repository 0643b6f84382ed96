"""How well attention draws the trees of sentences, as rows of `metrics`, and the slope that pulls it off or onto them.

A head says for each word on which other word it depends: the one to which it attends most, or the one that attends most
to it. For each relation the best head of a model, in the better of both directions, counts; UAS is the share of all
words whose head is then found (Chen, Shwartz-Ziv, Cho, Leavitt & Saphra 2024, and the code beside it, after Clark et
al. 2019). The best is chosen on the sentences on which it is counted, as there. Beside it stands what a fixed distance
finds, chosen in the same way: where that is as good, attention that finds heads shows no syntax.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.tasks.task import Mean, Score, Trees

OFFSETS = range(-3, 3)  # of the head from the word, as in the paper's code
FEWEST = 100  # words of a relation; a rarer one is left out
_TOGETHER = 64  # sentences
Integers = NDArray[np.int64]


def tree_slope(heads: Tensor, weight: float) -> Tensor:
    """Return the gradient [n, 1, from, to] of weight × the sum of the attention between words and their heads.

    heads: [n, length] the place of the head; of the root its own, which does not count; -1: no word
    """
    place = torch.arange(heads.shape[1], device=heads.device)
    counts = (heads >= 0) & (heads != place)
    edges = torch.zeros(*heads.shape, heads.shape[1], device=heads.device)
    edges.scatter_(2, heads.clamp(min=0)[:, :, None], counts[:, :, None].float())
    return (edges + edges.transpose(1, 2)).mul_(weight)[:, None]


def spans(items: int) -> Iterator[slice]:
    """Yield the sentences that are looked at together."""
    for start, end in pairwise([*range(0, items, _TOGETHER), items]):
        yield slice(start, end)


def found_heads(maps: Sequence[NDArray[np.float32]], is_word: NDArray[np.bool_]) -> Integers:
    """Return [candidate, item, length] where each head says that the word here depends, head by head, both directions.

    maps     of each layer [item, head, from, to]
    is_word  [item, length]: nothing else is ever found; nor is a word its own head
    """
    both = np.concatenate(maps, axis=1)
    both = np.concatenate([both, both.swapaxes(2, 3)], axis=1)
    allowed = is_word[:, None, :] & ~np.eye(is_word.shape[1], dtype=bool)
    found: Integers = np.where(allowed[:, None], both, -1.0).argmax(axis=3).swapaxes(0, 1)
    return found


def offset_heads(shape: tuple[int, int]) -> Integers:
    """Return [candidate, item, length] where fixed distances say that the word here depends."""
    place = np.arange(shape[1])
    return np.stack([np.broadcast_to(place + offset, shape) for offset in OFFSETS])


def tree_scores(name: str, found: Integers, trees: Trees, relations: Sequence[str], *, apart: bool) -> list[Score]:
    """Return `name`: of all words whose head is known how many find it, by the best candidate for each relation.

    found: [candidate, item, length]; `apart` adds a score for each relation, such as `name.nsubj`
    """
    right = found == trees.heads
    scores = []
    for number, relation in enumerate(relations):
        mine = trees.relations == number
        if (total := int(mine.sum())) >= FEWEST:
            scores.append(Score(f"{name}.{relation}", int((right & mine).sum(axis=(1, 2)).max()), total))
    whole = Score(name, sum(one.correct for one in scores), sum(one.total for one in scores))
    return [whole, *scores] if apart else [whole]


@dataclass(frozen=True, slots=True)
class Look:
    """What the attention of one run does with some sentences.

    found   [candidate, item, length] the heads that it finds
    weight  sum of the attention between words and their heads, both ways; `count` of how many weights
    """

    found: Integers
    weight: float
    count: int

    @classmethod
    def at(cls, maps: Sequence[NDArray[np.float32]], heads: Integers) -> "Look":
        """Return what maps, of each layer [item, head, from, to], do with sentences of these heads [item, length]."""
        edges = (heads >= 0) & (heads != np.arange(heads.shape[1]))
        items, places = np.nonzero(edges)
        to = heads[items, places]
        weights = np.concatenate(
            [part for one in maps for part in (one[items, :, places, to], one[items, :, to, places])]
        )
        return cls(found_heads(maps, heads >= 0), float(weights.sum(dtype=np.float64)), weights.size)


def tree_measures(name: str, looks: Sequence[Look], trees: Trees, relations: Sequence[str]) -> list[Score | Mean]:
    """Return `NAME.uas`, also by relation, `NAME.offset_uas` of fixed distances, and `NAME.tree_attention`.

    The last is the mean weight of the attention between a word and its head, over words, heads of attention and layers.
    """
    found, shape = np.concatenate([look.found for look in looks], axis=1), trees.heads.shape
    mean = sum(look.weight for look in looks) / max(1, sum(look.count for look in looks))
    return [
        *tree_scores(f"{name}.uas", found, trees, relations, apart=True),
        *tree_scores(f"{name}.offset_uas", offset_heads((shape[0], shape[1])), trees, relations, apart=False),
        Mean(f"{name}.tree_attention", mean),
    ]
