"""How far two features act together on a number: Shapley-Taylor interaction indices of pairs, exact or from orders.

A game gives a number f(S) for each subset S of its features. Of order 2 the indices (Dhamdhere, Agarwal & Sundararajan
2020, "The Shapley Taylor interaction index", arXiv 1902.05622) are f({i}) - f({}) for a feature alone, and for a pair
the mean of f(T+ij) - f(T+i) - f(T+j) + f(T) over the orders in which features may come, T being those before both. All
of them add up to f(all) - f({}), in each order by itself, so an estimate from some orders keeps that sum exactly.

Subsets are numbers: bit i of one says whether feature i is in it. All is float64, item by item.

Not here: what the features of a model are, and who asks it (`shapley_probe.py`).
"""

from dataclasses import dataclass
from functools import lru_cache
from math import comb

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
EXACT = 8  # features of which all subsets are asked: 256, where one order of 16 features asks 137


@dataclass(frozen=True, slots=True)
class Interactions:
    """What is found of one game.

    alone      [feature]: f({i}) - f({})
    pairs      [pair] as `pairs_of` names them
    variances  [pair] of the estimates over drawn orders; 0 where all subsets were asked
    """

    alone: Floats
    pairs: Floats
    variances: Floats


def pairs_of(features: int) -> tuple[Integers, Integers]:
    """Return the first and the second feature of each pair, [pair] each."""
    first, second = np.triu_indices(features, 1)
    return first.astype(np.int64), second.astype(np.int64)


def orders_of(features: int, count: int, generator: np.random.Generator) -> Integers:
    """Return orders of the features [order, feature] in which pairs are looked at; none where all subsets are."""
    if features <= EXACT:
        return np.zeros((0, features), np.int64)
    return np.stack([generator.permutation(features) for _ in range(count)])


def subsets_of(features: int, orders: Integers) -> Integers:
    """Return the subsets of which the number has to be known, ascending."""
    if not len(orders):
        return np.arange(2**features, dtype=np.int64)
    parts = [part.reshape(-1) for part in _sides(orders)]
    return np.unique(np.concatenate([*parts, 1 << np.arange(features)]))


def interactions(features: int, orders: Integers, values: Floats) -> Interactions:
    """Return the indices of a game; values: of the subsets that `subsets_of` names, in their order."""
    subsets = subsets_of(features, orders)
    alone = values[np.searchsorted(subsets, 1 << np.arange(features))] - values[0]
    if not len(orders):
        found = (_weights(features) * values).sum(axis=1)
        return Interactions(alone, found, np.zeros_like(found))
    whole, one, other, neither = (values[np.searchsorted(subsets, part)] for part in _sides(orders))
    changes = np.empty(whole.shape)
    earlier, later = (orders[:, place] for place in pairs_of(features))
    number = np.zeros((features, features), np.int64)
    number[pairs_of(features)] = np.arange(whole.shape[1])
    of_pair = number[np.minimum(earlier, later), np.maximum(earlier, later)]
    np.put_along_axis(changes, of_pair, whole - one - other + neither, axis=1)
    return Interactions(alone, changes.mean(axis=0), changes.var(axis=0, ddof=1) / len(orders))


def _sides(orders: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Return, for each order and pair of places in it, T with both features, with either, and T itself."""
    bits = 1 << orders
    before = np.cumsum(bits, axis=1) - bits
    earlier, later = pairs_of(orders.shape[1])
    neither = before[:, earlier]
    one, other = neither | bits[:, earlier], neither | bits[:, later]
    return one | other, one, other, neither


# A pure function of its argument, which every item asks for again.
@lru_cache(maxsize=EXACT + 1)
def _weights(features: int) -> Floats:
    """Return what each subset's number counts in each pair's index [pair, subset] (the theorem 2 of the paper)."""
    subsets = np.arange(2**features, dtype=np.int64)
    sizes = np.bitwise_count(subsets)
    shares = np.array([2 / features / comb(features - 1, size) for size in range(features - 1)])
    found = np.zeros((features * (features - 1) // 2, len(subsets)))
    for number, (first, second) in enumerate(zip(*pairs_of(features), strict=True)):
        one, other = 1 << int(first), 1 << int(second)
        rest = subsets[(subsets & (one | other)) == 0]
        share = shares[sizes[rest]]
        for taken, sign in ((one | other, 1), (one, -1), (other, -1), (0, 1)):
            found[number, rest | taken] = sign * share
    return found
