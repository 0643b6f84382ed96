"""Do the intervals of variance shares and intraclass correlations cover, and do naive units of replication fail?

500 repetitions in CI with the band [.92, .98], 2,000 with [.93, .97] as `slow`. At a true share of 0 only the upper
bound can miss, so there more coverage than the band is right.
"""

from collections.abc import Callable

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.icc import shrout_fleiss, twins
from orchestrator.estimates.multibootstrap import multi_bootstrap
from orchestrator.estimates.variance import crossed, one_way

pytestmark = pytest.mark.timeout(1800)  # the full repetitions, on a busy machine
COHORT = Cohort.of(["a"], finished=1, diverged=0)
REPEATS = [
    pytest.param(500, (0.92, 0.98), id="reduced"),
    pytest.param(2000, (0.93, 0.97), id="full", marks=pytest.mark.slow),
]
Draw = Callable[[np.random.Generator], Estimate]


def misses(draw: Draw, truth: float, repetitions: int, seed: int = 0) -> tuple[float, float]:
    """Return how often the interval lies above, and below, the truth."""
    rng = np.random.default_rng(seed)
    above = below = 0
    for _ in range(repetitions):
        found = draw(rng)
        above += found.low > truth
        below += found.high < truth
    return above / repetitions, below / repetitions


def table(rng: np.random.Generator, shape: tuple[int, int], shares: tuple[float, float, float]) -> np.ndarray:
    init, data, rest = np.sqrt(shares)
    return np.asarray(
        rng.normal(0, init, (shape[0], 1)) + rng.normal(0, data, (1, shape[1])) + rng.normal(0, rest, shape)
    )


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
@pytest.mark.parametrize("shape", [(5, 5), (8, 8), (4, 16)])
@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.1, 0.3), (0.1, 0.2, 0.7)])
def test_share_of_init(
    shape: tuple[int, int], shares: tuple[float, float, float], repetitions: int, band: tuple[float, float]
) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return crossed(table(rng, shape, shares), COHORT, rng, draws=1000)["init"].share

    above, below = misses(draw, shares[0], repetitions)
    assert band[0] <= 1 - above - below <= max(band[1], 0.99 if shares[0] < 0.2 else 0), (above, below)
    assert max(above, below) < 0.05


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_share_with_missing_cells(repetitions: int, band: tuple[float, float]) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        values = table(rng, (6, 6), (0.4, 0.3, 0.3))
        values[[0, 1, 4, 5], [2, 5, 0, 3]] = np.nan
        return crossed(values, COHORT, rng, draws=300)["init"].share

    above, below = misses(draw, 0.4, repetitions)
    assert band[0] <= 1 - above - below <= band[1], (above, below)


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_exact_ratio_with_missing_cells(repetitions: int, band: tuple[float, float]) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        values = table(rng, (5, 5), (0.4, 0.2, 0.4))
        values[0, :2] = np.nan
        found = crossed(values, COHORT, rng, draws=10)["init"].ratio
        assert found is not None
        return found

    above, below = misses(draw, 1.0, repetitions)
    assert band[0] <= 1 - above - below <= band[1]
    assert min(above, below) >= 0.01
    assert max(above, below) <= 0.04


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_a_share_of_zero_is_in_the_interval_and_the_test_keeps_its_level(
    repetitions: int, band: tuple[float, float]
) -> None:
    rng = np.random.default_rng(1)
    inside = rejected = 0
    for _ in range(repetitions):
        found = crossed(table(rng, (5, 6), (0.6, 0.0, 0.4)), COHORT, rng, draws=500)["data"]
        inside += found.share.low == 0
        assert found.test is not None
        rejected += found.test.p < 0.05
    assert inside / repetitions >= band[0]
    assert 0.03 <= rejected / repetitions <= 0.07


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
@pytest.mark.parametrize("pairs", [10, 50])
def test_twins(pairs: int, repetitions: int, band: tuple[float, float]) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        shared = rng.normal(0, np.sqrt(0.6), (pairs, 1))
        return twins(shared + rng.normal(0, np.sqrt(0.4), (pairs, 2)), COHORT)

    above, below = misses(draw, 0.6, repetitions)
    assert band[0] <= 1 - above - below <= band[1]


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_groups_of_unequal_size(repetitions: int, band: tuple[float, float]) -> None:
    sizes = np.array([2, 3, 5, 5, 2, 4, 3, 6])

    def draw(rng: np.random.Generator) -> Estimate:
        values = rng.normal(0, 1, (8, 1)) + rng.normal(0, 1, (8, 6))
        values[np.arange(6) >= sizes[:, None]] = np.nan
        return one_way(values, COHORT, rng, draws=10)["between"].share

    above, below = misses(draw, 0.5, repetitions)
    assert band[0] <= 1 - above - below <= band[1]


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_icc_of_two_way_tables(repetitions: int, band: tuple[float, float]) -> None:
    rng = np.random.default_rng(2)
    inside = np.zeros(2)
    for _ in range(repetitions):
        found = shrout_fleiss(table(rng, (20, 6), (0.5, 0.2, 0.3)), COHORT)
        inside += [
            found.icc2.low <= 0.5 <= found.icc2.high,
            # Raters as they are: their variance is no disagreement.
            found.icc3.low <= 0.5 / 0.8 <= found.icc3.high,
        ]
    assert ((band[0] <= inside / repetitions) & (inside / repetitions <= band[1])).all(), inside / repetitions


def run_curves(rng: np.random.Generator, pairs: int, checkpoints: int) -> np.ndarray:
    """Return [pair, member, checkpoint]: twins whose checkpoints are alike, as those of one run are."""
    shared, own = rng.normal(0, 1, (pairs, 1, 1)), rng.normal(0, 1, (pairs, 2, 1))
    return np.asarray(shared + own + rng.normal(0, 0.3, (pairs, 2, checkpoints)))


@pytest.mark.xfail(strict=True, reason="checkpoints are no replicates: 20 of them make 10 pairs look like 200")
def test_checkpoints_as_replicates() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return twins(run_curves(rng, 10, 20).transpose(0, 2, 1).reshape(-1, 2), COHORT)

    above, below = misses(draw, 1 / 2.09, 300)
    assert 1 - above - below >= 0.92


def sides(rng: np.random.Generator, seeds: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sides without a difference: seeds and items vary, and a little of both."""
    item = rng.normal(0, 1, (1, items))
    one, other = (item + rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, (seeds, items)) for _ in range(2))
    return one, other


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_multi_bootstrap(repetitions: int, band: tuple[float, float]) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 20, 50), COHORT, rng, paired=False, resamples=100).delta

    above, below = misses(draw, 0.0, repetitions)
    # Conservative by design: it counts the interaction more than once.
    assert band[0] <= 1 - above - below


@pytest.mark.parametrize(("repetitions", "band"), REPEATS)
def test_few_seeds_by_t(repetitions: int, band: tuple[float, float]) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 4, 50), COHORT, rng, paired=True, resamples=5).delta

    above, below = misses(draw, 0.0, repetitions)
    assert band[0] <= 1 - above - below <= band[1]


@pytest.mark.xfail(strict=True, reason="items are no replicates: resampling them alone forgets that seeds differ")
def test_items_as_replicates() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 20, 50), COHORT, rng, paired=False, resamples=100, seeds_too=False).delta

    above, below = misses(draw, 0.0, 300)
    assert 1 - above - below >= 0.92


@pytest.mark.xfail(strict=True, reason="resampling 4 seeds is too narrow: there t over seeds is taken")
def test_few_seeds_resampled() -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        one, other = sides(rng, 4, 50)
        return multi_bootstrap(one, other, COHORT, rng, paired=True, resamples=100, items_too=False).resampled

    above, below = misses(draw, 0.0, 300)
    assert 1 - above - below >= 0.92
