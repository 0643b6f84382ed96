"""The order of samples: a permutation, another for each seed and epoch, and exposures that are what a count gives."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.text.order import Order, shuffle


@given(size=st.integers(1, 3000), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_every_item_stands_at_one_place(size: int, seed: int) -> None:
    mixed = shuffle(seed, "data/x", 0, size)
    items = mixed(np.arange(size))
    assert sorted(items) == list(range(size))
    assert np.array_equal(mixed.inverse(items), np.arange(size))


def test_a_place_far_out_costs_what_the_first_does() -> None:
    size = 10**12
    mixed = shuffle(3, "data/x", 0, size)
    places = np.array([0, 1, size // 2, size - 1])
    items = mixed(places)
    assert len(set(items.tolist())) == 4
    assert ((items >= 0) & (items < size)).all()
    assert np.array_equal(mixed.inverse(items), places)
    with pytest.raises(IndexError):
        mixed(np.array([size]))


def test_the_order_never_drifts() -> None:
    # A change here changes what every run on text has seen: raise the task's `version`.
    assert shuffle(3, "data/x", 0, 10**12)(np.arange(3)).tolist() == [559833792863, 414181055687, 950097883572]
    assert shuffle(3, "data/x", 1, 10)(np.arange(10)).tolist() == [9, 5, 6, 3, 4, 7, 2, 8, 1, 0]


def test_seeds_and_epochs_are_orders_of_their_own() -> None:
    orders = {
        tuple(shuffle(seed, purpose, epoch, 500)(np.arange(500)).tolist())
        for seed in (0, 1)
        for purpose in ("data/x", "data/y")
        for epoch in (0, 1)
    }
    assert len(orders) == 8


def test_places_are_as_even_as_chance() -> None:
    # Where item 0 of 8 lands, over 8,000 seeds: chi-square with 7 degrees of freedom, 99.99 % is below 29.9.
    places = [int(shuffle(seed, "data/x", 0, 8).inverse(np.array([0]))[0]) for seed in range(8000)]
    counts = np.bincount(places, minlength=8)
    assert ((counts - 1000) ** 2 / 1000).sum() < 29.9
    # And neighbours at the start do not stay neighbours: pairs that follow each other, 1 of 64 by chance.
    items = shuffle(5, "data/x", 0, 64)(np.arange(64))
    assert (np.diff(items) == 1).sum() < 6


def test_what_is_held_out_is_never_shown_and_the_same_for_all_data_seeds() -> None:
    orders = [Order(40, 7, data, 9, "text") for data in (1, 2)]
    shown = [set(order.at(np.arange(33)).tolist()) for order in orders]
    held_out = set(orders[0].never_shown(7).tolist())
    assert shown[0] == shown[1] == set(range(40)) - held_out
    assert orders[0].at(np.arange(33)).tolist() != orders[1].at(np.arange(33)).tolist()
    assert held_out != set(Order(40, 7, 1, 10, "text").never_shown(7).tolist())


@given(start=st.integers(0, 9000), count=st.integers(0, 5000))
@settings(max_examples=30, deadline=None)
def test_a_span_is_its_places(start: int, count: int) -> None:
    order = Order(1000, 7, 1, 9, "text")
    assert np.array_equal(order.span(start, start + count), order.at(np.arange(start, start + count)))


@given(samples=st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_exposures_are_what_counting_gives(samples: int) -> None:
    order = Order(40, 7, 1, 9, "text")
    counted = np.bincount(order.at(np.arange(samples)), minlength=40)
    assert np.array_equal(order.exposures(np.arange(40), samples), counted)
