"""Interactions of pairs: games of which they are known, all orders written out, and the sums that they must keep."""

from collections.abc import Callable
from itertools import permutations
from math import factorial, prod

import numpy as np
import pytest

from workers.shapley import EXACT, Interactions, interactions, orders_of, pairs_of, subsets_of

Game = Callable[[frozenset[int]], float]
DRAW = np.random.default_rng(5)
NUMBERS = {
    frozenset(np.flatnonzero([subset >> i & 1 for i in range(12)]).tolist()): DRAW.normal() for subset in range(4096)
}


def members(subset: int) -> frozenset[int]:
    return frozenset(i for i in range(subset.bit_length()) if subset >> i & 1)


def found_of(game: Game, features: int, orders: np.ndarray | None = None) -> Interactions:
    drawn = orders_of(features, 0, DRAW) if orders is None else orders
    values = np.array([game(members(int(subset))) for subset in subsets_of(features, drawn)])
    return interactions(features, drawn, values)


def between(found: Interactions, features: int) -> dict[tuple[int, int], float]:
    first, second = pairs_of(features)
    return dict(zip(zip(first.tolist(), second.tolist(), strict=True), found.pairs.tolist(), strict=True))


def by_all_orders(game: Game, features: int) -> dict[tuple[int, int], float]:
    """Return each pair's index as the paper defines it, with every order written out."""
    total = dict.fromkeys(zip(*(part.tolist() for part in pairs_of(features)), strict=True), 0.0)
    for order in permutations(range(features)):
        for one, other in total:
            before = frozenset(order[: min(order.index(one), order.index(other))])
            total[one, other] += (
                game(before | {one, other}) - game(before | {one}) - game(before | {other}) + game(before)
            )
    return {pair: value / factorial(features) for pair, value in total.items()}


def anything(subset: frozenset[int]) -> float:
    return NUMBERS[subset]


@pytest.mark.parametrize("features", [2, 3, 4, 6])
def test_all_subsets_give_what_all_orders_give(features: int) -> None:
    assert between(found_of(anything, features), features) == pytest.approx(
        by_all_orders(anything, features), abs=1e-12
    )


def test_all_orders_as_a_sample_give_what_all_subsets_give() -> None:
    every = np.array(list(permutations(range(5))))
    assert found_of(anything, 5, every).pairs == pytest.approx(found_of(anything, 5).pairs, abs=1e-12)


@pytest.mark.parametrize("features", [5, 12])
def test_features_that_add_up_do_not_interact(features: int) -> None:
    game: Game = lambda subset: 3.0 + sum((-2.0) ** i for i in subset)  # noqa: E731
    found = found_of(game, features, orders_of(features, 3, np.random.default_rng(1)))
    assert found.pairs == pytest.approx(np.zeros(len(found.pairs)), abs=1e-10)
    assert found.variances == pytest.approx(np.zeros(len(found.pairs)), abs=1e-10)
    assert found.alone == pytest.approx([(-2.0) ** i for i in range(features)])


def test_a_product_of_two_is_theirs_alone_and_of_three_is_shared() -> None:
    two = between(found_of(lambda subset: 5.0 * ({1, 3} <= subset), 4), 4)
    assert two == pytest.approx({pair: 5.0 * (pair == (1, 3)) for pair in two})
    three = between(found_of(lambda subset: 6.0 * ({0, 1, 3} <= subset), 4), 4)
    assert three == pytest.approx({pair: 2.0 * (2 not in pair) for pair in three})


def test_exclusive_or_of_two_bits() -> None:
    # With one bit it is 1, with none and with both 0: alone each is worth 1, together 2 less.
    found = found_of(lambda subset: float(len(subset) == 1), 2)
    assert (found.alone.tolist(), found.pairs.tolist()) == ([1.0, 1.0], [-2.0])
    signs = found_of(lambda subset: float(prod(-1 if i in subset else 1 for i in range(2))), 2)
    assert (signs.alone.tolist(), signs.pairs.tolist()) == ([-2.0, -2.0], [4.0])


@pytest.mark.parametrize("features", [6, 11])
def test_a_dummy_has_no_part_in_anything(features: int) -> None:
    game: Game = lambda subset: anything(subset - {2}) + 1.5 * (2 in subset)  # noqa: E731
    found = found_of(game, features, orders_of(features, 4, np.random.default_rng(2)))
    mine = [value for pair, value in between(found, features).items() if 2 in pair]
    assert mine == pytest.approx([0.0] * (features - 1), abs=1e-12)
    assert found.alone[2] == pytest.approx(1.5)
    assert np.abs(found.pairs).max() > 0.1


def test_features_that_are_alike_have_equal_parts() -> None:
    # 0 and 1 may be exchanged: only how many of them there are counts.
    game: Game = lambda subset: anything((subset - {0, 1}) | set(range(len(subset & {0, 1}))))  # noqa: E731
    found = between(found_of(game, 5), 5)
    assert [found[0, i] for i in (2, 3, 4)] == pytest.approx([found[1, i] for i in (2, 3, 4)], abs=1e-12)
    assert abs(found[0, 2]) > 0.01


@pytest.mark.parametrize(("features", "count"), [(3, 0), (EXACT, 0), (EXACT + 1, 2), (12, 5)])
def test_all_of_them_add_up_to_what_all_features_change(features: int, count: int) -> None:
    found = found_of(anything, features, orders_of(features, count, np.random.default_rng(3)))
    changed = anything(frozenset(range(features))) - anything(frozenset())
    assert found.alone.sum() + found.pairs.sum() == pytest.approx(changed, abs=1e-12)
    assert (found.variances == 0).all() == (features <= EXACT)


def test_drawn_orders_come_near_and_say_how_near() -> None:
    exact = found_of(anything, 6).pairs
    generator, off, told = np.random.default_rng(4), [], []
    for _ in range(200):
        some = found_of(anything, 6, np.stack([generator.permutation(6) for _ in range(8)]))
        off.append(some.pairs - exact)
        told.append(some.variances)
    spread = np.square(off).mean(axis=0)
    assert np.abs(np.mean(off, axis=0)) == pytest.approx(np.zeros(15), abs=0.3)
    assert np.mean(told, axis=0) == pytest.approx(spread, rel=0.35)
    assert np.mean(np.abs(off)) > 0.1


def test_an_order_of_16_features_asks_137_subsets() -> None:
    order = orders_of(16, 1, np.random.default_rng(6))
    assert len(subsets_of(16, order)) == 137
    assert subsets_of(EXACT, orders_of(EXACT, 9, DRAW)).tolist() == list(range(256))
