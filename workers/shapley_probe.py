"""How far a model's inputs act together on an answer, as rows: Shapley-Taylor indices of pairs of tokens, in nats.

Of each item one answer is asked, drawn by the evaluation seed: of all that the set asks, or, where it asks nothing (as
sentences with trees do), a word that is hidden or the word that comes next. Features are the tokens from which it
follows: those up to its place, or, of masked language models, all others; of sentences with trees the words. A subset
is the log-probability of the right answer where the other features are another item's tokens, or one token's.

As Singhvi et al. 2025, "Using Shapley interactions to understand how models use structure" (ACL, arXiv 2403.13106) do,
pairs are put together by how far apart they are in the sentence and in its tree. Sizes are root mean squares less the
variance of drawn orders: fewer orders make them less certain, and not larger.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jobs.digests import digest_of
from jobs.measures import ShapleySpec
from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Mean, Task
from workers.engines import Engine
from workers.interdependence import FARTHEST, FEWEST, MOST_EDGES
from workers.shapley import Floats, Integers, interactions, orders_of, pairs_of, subsets_of

_TOGETHER = 256  # sequences of each run that are asked at once: one shape, whatever else the pack holds
_DIGITS = 12  # of the SHA-256 of the questions: 48 bits, which a float64 holds exactly


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked of a set, one answer of each item that has one.

    inputs   [item, length] tokens
    others   [item, length] what stands in the place of a feature that is left out
    feature  [item, length] which feature of its item a token is; -1: none, it stays
    at       [item] the place of the answer
    answers  [item]
    edges    [item, length, length] between words in the tree; 0 where no trees are known
    orders   of each item, [order, feature]
    subsets  of each item, those of which the log-probability has to be known
    """

    inputs: Integers
    others: Integers
    feature: Integers
    at: Integers
    answers: Integers
    edges: Integers
    orders: Sequence[Integers]
    subsets: Sequence[Integers]

    def sequences(self) -> Iterator[tuple[Integers, Integers]]:
        """Yield inputs and targets [256, length] of all subsets, item by item; the last are filled up with zeros."""
        item = np.repeat(np.arange(len(self.at)), [len(of) for of in self.subsets])
        subset = np.concatenate(self.subsets)
        for start in range(0, len(item), _TOGETHER):
            mine, some = item[start : start + _TOGETHER], subset[start : start + _TOGETHER]
            feature = self.feature[mine]
            is_left_out = (feature >= 0) & ((some[:, None] >> np.maximum(feature, 0)) & 1 == 0)
            inputs = np.zeros((_TOGETHER, self.inputs.shape[1]), np.int64)
            targets = np.full_like(inputs, IGNORE)
            inputs[: len(mine)] = np.where(is_left_out, self.others[mine], self.inputs[mine])
            targets[np.arange(len(mine)), self.at[mine]] = self.answers[mine]
            yield inputs, targets

    @property
    def digest(self) -> str:
        """Return the SHA-256 of all of it."""
        named = {"inputs": self.inputs, "others": self.others, "feature": self.feature, "at": self.at}
        named |= {"answers": self.answers}
        return digest_of(named | {f"orders/{number}": one for number, one in enumerate(self.orders)})


def questions_of(spec: ShapleySpec, task: Task, batch: Batch, streams: Streams) -> Questions:
    """Return what is asked of the first items of a set; raises ValueError where no answer follows from two tokens."""
    draw, count = streams.evaluation(f"shapley/{spec.set}"), min(spec.items, len(batch.inputs))
    inputs, targets = batch.inputs[:count].copy(), _asked(task, batch)[:count]
    is_word = np.ones(inputs.shape, bool) if batch.trees is None else batch.trees.heads[:count] >= 0
    feature, at, answers = np.full_like(inputs, -1), np.zeros(count, np.int64), np.zeros(count, np.int64)
    for item in range(count):
        possible = {}
        for place in np.flatnonzero(targets[item] != IGNORE):
            features = _features(task, inputs[item], is_word[item], int(place), spec.window)
            if len(features) > 1:
                possible[int(place)] = features
        if possible:
            at[item] = list(possible)[int(draw.integers(len(possible)))]
            answers[item] = targets[item, at[item]]
            feature[item, possible[int(at[item])]] = np.arange(len(possible[int(at[item])]))
            if batch.targets[item, at[item]] == IGNORE and task.mask_token is not None:
                inputs[item, at[item]] = task.mask_token
    kept = feature.max(axis=1) > 0
    if not kept.any():
        raise ValueError(f"no answer of {spec.set!r} follows from two tokens or more")
    inputs, feature, at, answers = inputs[kept], feature[kept], at[kept], answers[kept]
    edges = np.zeros((len(at), inputs.shape[1], inputs.shape[1]), np.int64)
    if batch.trees is not None:
        edges = batch.trees.distances()[:count][kept]
    orders = [orders_of(int(one.max()) + 1, spec.permutations, draw) for one in feature]
    subsets = [subsets_of(order.shape[1], order) for order in orders]
    others = _others(inputs, feature, draw) if spec.token is None else inputs * 0 + task.vocabulary.index(spec.token)
    return Questions(inputs, others, feature, at, answers, edges, orders, subsets)


def _asked(task: Task, batch: Batch) -> Integers:
    """Return the answers [item, length]: those of the set, or, where it has none, its words or the ones after them."""
    if (batch.targets != IGNORE).any():
        return batch.targets
    if batch.trees is None:
        return batch.targets
    words = np.where(batch.trees.heads >= 0, batch.inputs, IGNORE)
    if task.mask_token is not None:
        return words
    return np.concatenate([words[:, 1:], np.full((len(words), 1), IGNORE)], axis=1)


def _features(task: Task, tokens: Integers, is_word: NDArray[np.bool_], at: int, window: int) -> Integers:
    """Return the places of the features of an answer, ascending."""
    places = np.flatnonzero(is_word)
    if task.mask_token is None:
        places = places[places <= at]
    else:
        places = places[(places != at) & (tokens[places] != task.mask_token)]
    nearest = np.argsort(np.abs(places - at), kind="stable")[:window]
    return np.sort(places[nearest])


def _others(inputs: Integers, feature: Integers, draw: np.random.Generator) -> Integers:
    """Return for each feature the token at its place in another item that has a feature there, else its own."""
    others = inputs.copy()
    for item, place in zip(*np.nonzero(feature >= 0), strict=True):
        there = np.flatnonzero((feature[:, place] >= 0) & (np.arange(len(inputs)) != item))
        if len(there):
            others[item, place] = inputs[there[int(draw.integers(len(there)))], place]
    return others


def asked_of(engine: Engine, questions: Sequence[Questions], begin: Callable[[str], None]) -> list[Floats]:
    """Return the log-probability of the right answer of every subset, item by item, in nats [subset], for each run.

    questions  of each run of the engine; `begin` is told of each pass. A run's values do not depend on the others'.
    """
    streams, found = [one.sequences() for one in questions], [[] for _ in questions]  # type: ignore[var-annotated]
    blank = np.zeros((_TOGETHER, questions[0].inputs.shape[1]), np.int64)
    while True:
        parts = [next(stream, None) for stream in streams]
        if not any(parts):
            break
        begin("subsets of inputs")
        inputs, targets = (np.stack([part[which] if part else blank for part in parts]) for which in (0, 1))
        losses = engine.evaluate(inputs, targets)[1].sum(axis=2, dtype=np.float64)
        for run, part in enumerate(parts):
            if part:
                found[run].append(-losses[run])
    sizes = [sum(len(of) for of in one.subsets) for one in questions]
    return [np.concatenate(parts)[:size] for parts, size in zip(found, sizes, strict=True)]


def shapley_measures(name: str, questions: Questions, values: Floats) -> list[Mean]:
    """Return what is found of one run; values [subset] as `asked_of` gives them.

    `NAME.shapley.D` is the size of the index of pairs D places apart, `NAME.shapley.D.E` of those with E edges of the
    tree between them (4: four or more), where there are 50 such pairs; `NAME.shapley_closeness` is the size at one edge
    less that of the others, for the same D, averaged over those D from 2 on at which there are 50 of both, and
    `NAME.shapley_closeness_placed` the same where each place of the answer, counted from a pair's first token, weighs
    among the others what it does at one edge: tokens near an answer act together more, whatever the tree.
    `NAME.shapley_alone` and `NAME.shapley_together` are the means over items of the sums of the features' and of the
    pairs' indices, which add up to what all features change; `NAME.shapley_share` is the part of the pairs in the sum
    of all squares, `NAME.shapley_error` the size of the error of drawn orders, `NAME.shapley_set` the first 12 digits
    of the questions' SHA-256.
    """
    pairs, squares, variances, apart, edges, beside, alone = [], [], [], [], [], [], []
    start = 0
    for item, (orders, subsets) in enumerate(zip(questions.orders, questions.subsets, strict=True)):
        game = interactions(orders.shape[1], orders, values[start : start + len(subsets)])
        start += len(subsets)
        places = np.flatnonzero(questions.feature[item] >= 0)
        first, second = (places[of] for of in pairs_of(len(places)))
        pairs.append(game.pairs.sum())
        alone.append(game.alone)
        squares.append(game.pairs**2 - game.variances)
        variances.append(game.variances)
        apart.append(second - first)
        edges.append(questions.edges[item, first, second])
        beside.append(questions.at[item] - first)
    of_pairs, of_alone = np.concatenate(squares), np.concatenate(alone)
    whole = max(0.0, float(of_pairs.sum())) + float((of_alone**2).sum())
    found = [
        Mean(f"{name}.shapley_alone", float(np.mean([one.sum() for one in alone]))),
        Mean(f"{name}.shapley_together", float(np.mean(pairs))),
        Mean(f"{name}.shapley_error", float(np.sqrt(np.concatenate(variances).mean()))),
        Mean(f"{name}.shapley_set", float(int(questions.digest[:_DIGITS], 16))),
    ]
    if whole > 0:
        found.append(Mean(f"{name}.shapley_share", max(0.0, float(of_pairs.sum())) / whole))
    return found + list(_by_distance(name, of_pairs, *(np.concatenate(part) for part in (apart, edges, beside))))


def _by_distance(name: str, squares: Floats, apart: Integers, edges: Integers, beside: Integers) -> Iterator[Mean]:
    gains, edges = [], np.minimum(edges, MOST_EDGES)
    placed: list[float] = []
    for distance in range(1, FARTHEST + 1):
        here = apart == distance
        if here.sum() >= FEWEST:
            yield Mean(f"{name}.shapley.{distance}", _size(squares[here]))
        for count in range(1, MOST_EDGES + 1):
            mine = here & (edges == count)
            if mine.sum() >= FEWEST:
                yield Mean(f"{name}.shapley.{distance}.{count}", _size(squares[mine]))
        close, far = here & (edges == 1), here & (edges > 1)
        if distance > 1 and min(close.sum(), far.sum()) >= FEWEST:
            gains.append(_size(squares[close]) - _size(squares[far]))
            placed.extend(_placed(squares, close, far, beside))
    if gains:
        yield Mean(f"{name}.shapley_closeness", float(np.mean(gains)))
    if placed:
        yield Mean(f"{name}.shapley_closeness_placed", float(np.mean(placed)))


def _placed(squares: Floats, close: NDArray[np.bool_], far: NDArray[np.bool_], beside: Integers) -> Iterator[float]:
    """Yield the size of close pairs less that of far ones whose answers stand beside them as those of close ones do."""
    places, place = np.unique(beside, return_inverse=True)
    near, other = (np.bincount(place[these], minlength=len(places)) for these in (close, far))
    kept = close & (other[place] > 0)
    if kept.sum() >= FEWEST:
        yield _size(squares[kept]) - _size(squares[far], near[place[far]] / other[place[far]])


def _size(squares: Floats, weights: Floats | None = None) -> float:
    return float(np.sqrt(max(0.0, np.average(squares, weights=weights))))
