"""Planted sequences: each is shown exactly so often, and all others as often as if none were planted."""

import numpy as np
import pytest

from jobs.text.order import Order
from jobs.text.planted import PlantedOrder

COUNTS = (0, 1, 1, 5, 40)


def planted(samples: int = 300, data: int = 3) -> PlantedOrder:
    return PlantedOrder(Order(61, 7, data, 0, "text/x"), COUNTS, samples)


def test_each_is_shown_exactly_as_often_as_it_should() -> None:
    shown = planted().span(0, 300)
    assert tuple(int((shown == 61 + number).sum()) for number in range(5)) == COUNTS
    assert not (planted().span(300, 900) >= 61).any()


def test_the_others_keep_their_order_and_their_epochs() -> None:
    one = planted()
    shown = one.span(0, 500)
    assert np.array_equal(shown[shown < 61], one.order.span(0, 500 - sum(COUNTS)))


@pytest.mark.parametrize("samples", [0, 1, 137, 300, 301, 450])
def test_what_is_computed_is_what_is_counted(samples: int) -> None:
    one, shown = planted(), planted().span(0, samples)
    assert np.array_equal(one.planted_exposures(samples), [(shown == 61 + number).sum() for number in range(5)])
    everything = np.arange(61)
    assert np.array_equal(one.exposures(everything, samples), [(shown == number).sum() for number in everything])


def test_any_split_gives_the_same_samples() -> None:
    one, whole = planted(), planted().span(0, 320)
    assert np.array_equal(np.concatenate([one.span(start, start + 16) for start in range(0, 320, 16)]), whole)


def test_places_follow_the_data_seed() -> None:
    first, second = (planted(data=seed).span(0, 300) >= 61 for seed in (1, 2))
    assert first.sum() == second.sum() == sum(COUNTS)
    assert not np.array_equal(first, second)


def test_more_exposures_than_samples_are_refused() -> None:
    assert (planted(samples=47).span(0, 47) >= 61).all()
    with pytest.raises(ValueError, match="47 planted exposures do not fit into 46 samples"):
        planted(samples=46).span(0, 1)
