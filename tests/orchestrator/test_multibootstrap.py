"""The multi-bootstrap against its authors' code, draw by draw, and what it refuses."""

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.multibootstrap import average_within_seeds, multi_bootstrap

COHORT = Cohort.of(["a"], finished=1, diverged=0)


def sides() -> list[np.ndarray]:
    """Return base and other [seed, item] of the reference: 16 runs, 2 per seed and side, 12 items."""
    correct = np.array(
        [[(7 * r + 3 * j + r * j) % 5 < (3 if r >= 8 else 2) for j in range(12)] for r in range(16)], float
    )
    assert correct.sum(axis=1).tolist() == [5, 5, 0, 5, 5, 5, 5, 0, 8, 7, 7, 8, 0, 8, 7, 7]
    seeds = [r // 2 for r in range(8)]
    return [average_within_seeds(correct[half], seeds)[1] for half in (slice(0, 8), slice(8, 16))]


@pytest.mark.parametrize(
    ("options", "first", "delta", "p"),
    [
        (
            {"paired": True},
            [(0.395833, 0.510417), (0.3125, 0.614583), (0.375, 0.645833)],
            (0.233542, -0.020833, 0.458333),
            0.035,
        ),
        (
            {"paired": False},
            [(0.447917, 0.5625), (0.28125, 0.645833), (0.291667, 0.375)],
            (0.23199, 0.020833, 0.4375),
            0.016,
        ),
        (
            {"paired": True, "seeds_too": False},
            [(0.354167, 0.59375), (0.364583, 0.59375), (0.3125, 0.604167)],
            (0.230052, 0.145833, 0.322917),
            0.001,
        ),
        (
            {"paired": True, "items_too": False},
            [(0.364583, 0.46875), (0.364583, 0.541667), (0.364583, 0.40625)],
            (0.232687, 0.03125, 0.395833),
            0.012,
        ),
    ],
)
def test_the_reference_draw_by_draw(
    options: dict[str, bool], first: list[tuple[float, float]], delta: tuple[float, float, float], p: float
) -> None:
    """The reference ran its authors' code with RandomState(42): the order of the draws is part of it."""
    base, other = sides()
    found = multi_bootstrap(base, other, COHORT, np.random.RandomState(42), resamples=1000, **options)  # type: ignore[arg-type]
    assert found.draws[:3] == pytest.approx(np.array(first), abs=1e-6)
    assert (found.draws[:, 1] - found.draws[:, 0]).mean() == pytest.approx(delta[0], abs=1e-6)
    assert (found.resampled.low, found.resampled.high) == pytest.approx(delta[1:], abs=1e-6)
    # The authors' code counts replicates without any difference by how their sums are rounded; here all count.
    assert p <= found.p <= p + 0.005
    assert found.delta.value == pytest.approx(22 / 96)


def test_the_p_value_is_never_zero() -> None:
    base, other = np.zeros((6, 20)), np.ones((6, 20))
    assert multi_bootstrap(base, other, COHORT, np.random.default_rng(0), paired=True, resamples=500).p == 1 / 500


def test_few_seeds_take_t_over_seeds() -> None:
    base, other = sides()
    found = multi_bootstrap(base, other, COHORT, np.random.default_rng(0), paired=True, resamples=200)
    assert found.delta.method == "t over seeds"
    assert any("seeds or fewer" in text for text in found.cautions)
    difference = (other - base).mean(axis=1)
    half = 3.182446305 * difference.std(ddof=1) / 2
    assert found.delta.high - found.delta.value == pytest.approx(half, rel=1e-8)
    assert found.delta.high - found.delta.low > found.resampled.high - found.resampled.low


def test_many_seeds_keep_the_bootstrap_and_its_caution() -> None:
    draw = np.random.default_rng(1)
    found = multi_bootstrap(
        draw.random((8, 30)), draw.random((9, 30)), COHORT, np.random.default_rng(0), paired=False, resamples=200
    )
    assert found.delta == found.resampled
    assert any("conservative" in text for text in found.cautions)


def test_it_counts_the_interaction_more_than_once() -> None:
    """With nothing but interaction the true variance of a mean is σ²/(seeds · items); the bootstrap has up to three."""
    draw = np.random.default_rng(2)
    ratios = []
    for _ in range(30):
        noise = draw.normal(size=(2, 20, 50))
        found = multi_bootstrap(noise[0], noise[1], COHORT, draw, paired=True, resamples=300)
        ratios.append(found.draws[:, 0].var() * 20 * 50)
    assert 2.3 < np.mean(ratios) < 3.2


def test_a_score_of_ones_own_equals_the_fast_mean() -> None:
    base, other = sides()

    def own(values: np.ndarray) -> np.ndarray:
        return np.array([row.sum() / len(row) for row in values])

    fast = multi_bootstrap(base, other, COHORT, np.random.default_rng(0), paired=False, resamples=50)
    slow = multi_bootstrap(base, other, COHORT, np.random.default_rng(0), paired=False, resamples=50, score=own)
    assert slow.draws == pytest.approx(fast.draws, abs=1e-12)


@pytest.mark.parametrize(
    ("base", "other", "paired", "message"),
    [
        ((4, 10), (4, 11), True, "same items"),
        ((4, 10), (5, 10), True, "same seeds"),
        ((1, 10), (4, 10), False, "no spread"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    base: tuple[int, int], other: tuple[int, int], paired: bool, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        multi_bootstrap(np.zeros(base), np.zeros(other), COHORT, np.random.default_rng(0), paired=paired, resamples=9)


def test_missing_values_are_refused() -> None:
    with pytest.raises(ValueError, match="missing"):
        multi_bootstrap(
            np.full((3, 4), np.nan), np.zeros((3, 4)), COHORT, np.random.default_rng(0), paired=True, resamples=9
        )
