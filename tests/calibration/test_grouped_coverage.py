"""Seeds in groups, exactly: outcomes of exchangeable groups are multisets, and there are few enough of them."""

from functools import lru_cache
from itertools import combinations_with_replacement

import numpy as np
import pytest
from scipy.special import gammaln
from scipy.stats import betabinom

from orchestrator.estimates.grouped import grouped_bootstrap, grouped_success
from orchestrator.estimates.success import wilson
from tests.calibration.cells import COHORT, Judge, Record

CELLS = (0.02, 0.1, 0.3, 0.5, 0.9)
DESIGNS = [(3, 2), (5, 2), (10, 2), (5, 4), (10, 5), (5, 10)]
ALIKE, APART = 20.0, 4.0  # a + b of the groups' Beta: correlations .05 and .2 within a group
METHODS = ("beta-binomial profile", "groups drawn again", "pooled Wilson")


@lru_cache
def outcomes(groups: int, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every multiset [outcome, group] of successes, and in how many orders each comes."""
    found = np.array(list(combinations_with_replacement(range(runs + 1), groups)))
    counts = (found[:, :, None] == np.arange(runs + 1)).sum(axis=1)
    return found, np.exp(gammaln(groups + 1) - gammaln(counts + 1).sum(axis=1))


@lru_cache
def bounds(method: str, groups: int, runs: int) -> np.ndarray:
    """Return [outcome, 2]: the interval of every outcome."""
    rng, n = np.random.default_rng(0), np.full(groups, runs)
    found = []
    for k in outcomes(groups, runs)[0]:
        if method == METHODS[2]:
            found.append(wilson(int(k.sum()), groups * runs))
            continue
        one = grouped_success(k, n, COHORT).mean if method == METHODS[0] else None
        one = one or grouped_bootstrap(k, n, COHORT, rng, resamples=1000)
        found.append((one.low, one.high))
    return np.array(found)


def record(method: str, groups: int, runs: int, p: float, precision: float) -> Record:
    k, orders = outcomes(groups, runs)
    weights = orders * betabinom.pmf(k, runs, p * precision, (1 - p) * precision).prod(axis=1)
    return Record.of(*bounds(method, groups, runs).T, p, weights)


@pytest.mark.parametrize("p", CELLS)
@pytest.mark.parametrize(("groups", "runs"), DESIGNS)
def test_the_profile_covers_at_every_p(groups: int, runs: int, p: float, judge: Judge) -> None:
    for precision in (ALIKE, APART):
        name = f"{groups} groups of {runs}, correlation {1 / (1 + precision):.2f}, P = {p:g}"
        judge.exactly().passes(METHODS[0], name, groups * runs, record(METHODS[0], groups, runs, p, precision), True)


@pytest.mark.parametrize("p", CELLS)
@pytest.mark.parametrize(("groups", "runs"), [(10, 2), (10, 5)])
def test_ten_groups_may_be_drawn_again(groups: int, runs: int, p: float, judge: Judge) -> None:
    found = record(METHODS[1], groups, runs, p, APART)
    judge.exactly().passes(
        METHODS[1], f"{groups} groups of {runs}, correlation 0.20, P = {p:g}", groups * runs, found, True
    )


def test_five_groups_are_few_to_be_drawn_again(judge: Judge) -> None:
    judge.exactly().fails(
        METHODS[1], "5 groups of 10, correlation 0.20, P = 0.3", 50, record(METHODS[1], 5, 10, 0.3, APART)
    )


@pytest.mark.parametrize("p", CELLS)
def test_pooling_fails(p: float, judge: Judge) -> None:
    judge.exactly().fails(
        METHODS[2], f"5 groups of 10, correlation 0.20, P = {p:g}", 50, record(METHODS[2], 5, 10, p, APART)
    )


def test_few_large_and_different_groups(judge: Judge) -> None:
    """The groups of the reference: P varies as Beta(2, 2), .9 and .1 are as usual as not."""
    for groups, runs in ((5, 10), (10, 5)):
        found = record(METHODS[0], groups, runs, 0.5, 4.0)
        assert found.coverage >= 0.95
        assert found.width <= 0.65
