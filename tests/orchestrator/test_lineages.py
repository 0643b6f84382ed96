"""Breakthroughness and linearity by hand, and against random pairings."""

from math import nan, sqrt

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.lineages import lineages, re_pairings


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def test_by_hand() -> None:
    scores = np.array(
        [
            [0.0, 1, 2, 3],  # a line: I = 3, every Δ² = 1
            [0.0, 0.1, 0.2, 3.2],  # a break: median Δ² = .01, mean Δ² = 9.02 / 3
            [3.0, 2, 1, 0],  # down: I is negative
            [0.5, 0.5, 0.5, 0.5],  # never moves
            [0.0, 0, 0, 1],  # the median step is 0
            [0.0, nan, 1, 2],
        ]
    )
    found = lineages(scores, cohort(6), cap=50)
    assert list(found.kept) == [0, 1, 2, 3, 4]
    assert found.breakthroughness == pytest.approx([3, 32, -3, 0, 50])
    assert found.linearity == pytest.approx([3, 3.2 / sqrt(9.02 / 3), -3, 0, 1 / sqrt(1 / 3)])
    assert (found.capped, found.cap) == (1, 50)


def test_lineages_that_mean_nothing_are_as_random_pairings() -> None:
    generator = np.random.default_rng(0)
    ps = []
    for _ in range(200):
        found = re_pairings(generator.normal(size=(8, 5)), cohort(40), generator, pairings=99)
        ps.append(found.p_linearity)
    assert np.mean(np.array(ps) <= 0.05) <= 0.09
    assert 0.4 < np.mean(ps) < 0.6


def test_lineages_that_do_mean_something_are_told() -> None:
    generator = np.random.default_rng(1)
    # Each seed has its own level: paired as named all are straight; re-paired they jump.
    scores = np.linspace(0, 1, 6) + 5 * generator.normal(size=(12, 1)) + generator.normal(0, 1e-3, (12, 6))
    found = re_pairings(scores, cohort(72), np.random.default_rng(2), pairings=500)
    assert found.p_linearity == 1 / 501
    assert found.re_paired_linearity.shape == (500,)
    again = re_pairings(scores, cohort(72), np.random.default_rng(2), pairings=500)
    assert np.array_equal(again.re_paired_breakthroughness, found.re_paired_breakthroughness)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="two scales"):
        lineages(np.zeros((3, 1)), cohort(3))
    with pytest.raises(ValueError, match="every scale"):
        re_pairings(np.full((2, 3), nan), cohort(6), np.random.default_rng(0))
