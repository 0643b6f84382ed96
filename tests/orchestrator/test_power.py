"""Power before spending: exact numbers against other computations and the design's table."""

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from orchestrator.estimates.power import (
    Floats,
    chance_of_half_width,
    chance_of_mode,
    fisher_power,
    half_width_after,
    seeds_for_half_width,
    seeds_for_mode,
    seeds_to_exclude,
    seeds_to_tell_apart,
    w1_power,
)
from orchestrator.estimates.success import wilson


def test_fifty_nine_failures_exclude_one_in_twenty() -> None:
    assert seeds_to_exclude(0.05) == 59
    assert 0.95**59 < 0.05 < 0.95**58


def test_more_seeds_are_expected_to_narrow_an_interval_as_all_their_outcomes_do() -> None:
    found = half_width_after(1, 2, 1)
    halves = [(high - low) / 2 for low, high in (wilson(1, 3), wilson(2, 3))]
    assert found.expected == pytest.approx(0.5 * halves[0] + 0.5 * halves[1]), "(1 + 1/2) / (2 + 1) is one half"
    assert found.now == pytest.approx((wilson(1, 2)[1] - wilson(1, 2)[0]) / 2)
    rng = np.random.default_rng(3)
    drawn = rng.binomial(8, rng.beta(0.5, 20.5, 200_000))
    simulated = np.array([(wilson(int(x), 28)[1] - wilson(int(x), 28)[0]) / 2 for x in range(9)])[drawn]
    none = half_width_after(0, 20, 8)
    assert none.expected == pytest.approx(simulated.mean(), abs=4 * simulated.std() / 200_000**0.5)
    assert none.least < none.expected < none.now, "no success so far: most likely none again"
    assert none.most > none.now, "but some successes would widen it"
    nothing = half_width_after(3, 9, 0)
    assert nothing.expected == nothing.least == nothing.most == nothing.now
    assert half_width_after(0, 0, 8).now == 0.5
    with pytest.raises(ValueError, match="-1 more"):
        half_width_after(0, 4, -1)


def test_seeds_for_a_half_width_have_the_chance_and_one_fewer_has_not() -> None:
    for half_width, p in ((0.2, 0.5), (0.15, 0.1), (0.1, 0.9)):
        n = seeds_for_half_width(half_width, p)
        assert all(chance_of_half_width(m, half_width, p) >= 0.8 for m in range(n, n + 11))
        assert chance_of_half_width(n - 1, half_width, p) < 0.8
    assert seeds_for_half_width(0.15, 0.1) < seeds_for_half_width(0.15, 0.5), "the middle costs most"
    low, high = wilson(19, 39)
    assert seeds_for_half_width(0.15, 0.5, 0.99) == pytest.approx(39, abs=1)
    assert (high - low) / 2 < 0.151


def test_a_mode_is_held_by_a_sample_as_counting_says() -> None:
    n = seeds_for_mode(0.1, 0.8)
    assert chance_of_mode(n, 0.1) >= 0.8 > chance_of_mode(n - 1, 0.1)
    rng = np.random.default_rng(1)
    k = rng.binomial(n, 0.1, 100_000)
    assert ((k >= 2) & (n - k >= 2)).mean() == pytest.approx(chance_of_mode(n, 0.1), abs=0.005)
    assert chance_of_mode(3, 0.5) == 0.0, "three seeds cannot hold two of either"


@pytest.mark.parametrize(("n", "power"), [(10, 0.15), (20, 0.34), (50, 0.81)])
def test_fishers_power_is_the_tables(n: int, power: float) -> None:
    # The table is of 200 simulated pairs; the exact values are .123, .34 and .829.
    assert fisher_power(n, n, 0.3, 0.6) == pytest.approx(power, abs=0.035)


def test_fishers_power_sums_another_implementations_p() -> None:
    n, m = 6, 8
    exact = 0.0
    for k in range(n + 1):
        for j in range(m + 1):
            p = fisher_exact([[k, n - k], [j, m - j]]).pvalue
            exact += binom.pmf(k, n, 0.2) * binom.pmf(j, m, 0.9) * (p <= 0.05)
    assert fisher_power(n, m, 0.2, 0.9) == pytest.approx(exact, abs=1e-9)
    assert fisher_power(20, 20, 0.4, 0.4) <= 0.05, "an exact test keeps its level"


def test_seeds_to_tell_two_conditions_apart() -> None:
    n = seeds_to_tell_apart(0.3, 0.6)
    assert fisher_power(n, n, 0.3, 0.6) >= 0.8
    assert 40 <= n <= 50
    assert seeds_to_tell_apart(0.1, 0.9) < 12


def test_power_of_the_distance_between_distributions() -> None:
    def law(p: float) -> object:
        def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
            return np.where(rng.random(shape) < p, rng.normal(0.9, 0.03, shape), rng.normal(0.1, 0.03, shape))

        return draw

    found = {n: w1_power(law(0.3), law(0.6), n, np.random.default_rng(2)) for n in (10, 50)}  # type: ignore[arg-type]
    assert found[10] == pytest.approx(0.31, abs=0.12)
    assert found[50] == pytest.approx(0.82, abs=0.1)
    assert w1_power(law(0.3), law(0.3), 20, np.random.default_rng(2)) < 0.1  # type: ignore[arg-type]


def test_questions_without_an_answer_are_refused() -> None:
    with pytest.raises(ValueError, match="same P"):
        seeds_to_tell_apart(0.3, 0.3)
    with pytest.raises(ValueError, match="between 0 and 1"):
        seeds_to_exclude(0.0)
    with pytest.raises(ValueError, match="half-width"):
        seeds_for_half_width(0.6, 0.5)
    with pytest.raises(ValueError, match="chance"):
        seeds_for_mode(0.2, 1.0)
