"""Do the intervals of variance shares and intraclass correlations cover, and do naive units of replication fail?

At a small or no true share only the upper bound can miss, so there more coverage than the band is right.
"""

import numpy as np
import pytest

from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.icc import shrout_fleiss, twins
from orchestrator.estimates.means import mean_t
from orchestrator.estimates.multibootstrap import multi_bootstrap
from orchestrator.estimates.variance import crossed, one_way
from tests.calibration.cells import COHORT, Judge, Record


def table(rng: np.random.Generator, shape: tuple[int, int], shares: tuple[float, float, float]) -> np.ndarray:
    init, data, rest = np.sqrt(shares)
    return np.asarray(
        rng.normal(0, init, (shape[0], 1)) + rng.normal(0, data, (1, shape[1])) + rng.normal(0, rest, shape)
    )


@pytest.mark.parametrize("shape", [(5, 5), (8, 8), (4, 16)])
@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.6, 0.1, 0.3), (0.1, 0.2, 0.7)])
def test_share_of_init(shape: tuple[int, int], shares: tuple[float, float, float], judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return crossed(table(rng, shape, shares), COHORT, rng, draws=1000)["init"].share

    record = Record.drawn(draw, shares[0], judge.repetitions)
    design = f"crossed {shape[0]} x {shape[1]}, true share {shares[0]:.2f}"
    judge.passes("share of init", design, shape[0] * shape[1], record, shares[0] < 0.2, lopsided=0.05)


def test_share_with_missing_cells(judge: Judge) -> None:
    judge = judge.few(250)

    def draw(rng: np.random.Generator) -> Estimate:
        values = table(rng, (6, 6), (0.4, 0.3, 0.3))
        values[[0, 1, 4, 5], [2, 5, 0, 3]] = np.nan
        return crossed(values, COHORT, rng, draws=300)["init"].share

    record = Record.drawn(draw, 0.4, judge.repetitions)
    judge.passes("share of init", "crossed 6 x 6, 4 cells missing", 32, record, lopsided=0.05)


def test_exact_ratio_with_missing_cells(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        values = table(rng, (5, 5), (0.4, 0.2, 0.4))
        values[0, :2] = np.nan
        found = crossed(values, COHORT, rng, draws=10)["init"].ratio
        assert found is not None
        return found

    record = Record.drawn(draw, 1.0, judge.repetitions)
    judge.passes("ratio of init to rest", "crossed 5 x 5, 2 cells missing", 23, record)


def test_a_share_of_zero_is_in_the_interval_and_the_test_keeps_its_level(judge: Judge) -> None:
    rng = np.random.default_rng(1)
    low, p = [], []
    for _ in range(judge.repetitions):
        found = crossed(table(rng, (5, 6), (0.6, 0.0, 0.4)), COHORT, rng, draws=500)["data"]
        assert found.test is not None
        low.append(found.share.low)
        p.append(found.test.p)
    record = Record.of(np.array(low), np.ones(len(low)), 0.0)
    judge.passes("share of data", "crossed 5 x 6, true share 0", 30, record, conservative=True)
    judge.passes("F test of data", "crossed 5 x 6, true share 0", 30, Record.of_test(np.array(p)))


@pytest.mark.parametrize("pairs", [5, 10, 20, 50])
def test_twins(pairs: int, judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        shared = rng.normal(0, np.sqrt(0.6), (pairs, 1))
        return twins(shared + rng.normal(0, np.sqrt(0.4), (pairs, 2)), COHORT)

    judge.passes("ICC(1) of twins", "pairs, true 0.6", 2 * pairs, Record.drawn(draw, 0.6, judge.repetitions))


def test_groups_of_unequal_size(judge: Judge) -> None:
    sizes = np.array([2, 3, 5, 5, 2, 4, 3, 6])

    def draw(rng: np.random.Generator) -> Estimate:
        values = rng.normal(0, 1, (8, 1)) + rng.normal(0, 1, (8, 6))
        values[np.arange(6) >= sizes[:, None]] = np.nan
        return one_way(values, COHORT, rng, draws=10)["between"].share

    record = Record.drawn(draw, 0.5, judge.repetitions)
    judge.passes("share between groups", "8 groups of 2 to 6", int(sizes.sum()), record)


def test_icc_of_two_way_tables(judge: Judge) -> None:
    rng = np.random.default_rng(2)
    both = [shrout_fleiss(table(rng, (20, 6), (0.5, 0.2, 0.3)), COHORT) for _ in range(judge.repetitions)]
    # Raters as they are: for ICC(3,1) their variance is no disagreement.
    for name, truth in (("icc2", 0.5), ("icc3", 0.5 / 0.8)):
        found = [getattr(one, name) for one in both]
        record = Record.of(np.array([one.low for one in found]), np.array([one.high for one in found]), truth)
        judge.passes(f"ICC({name[-1]},1)", "20 x 6", 120, record, lopsided=0.05)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_the_mean_of_two_modes(n: int, judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return mean_t(np.where(rng.random(n) < 0.4, 0.9, 0.3) + rng.normal(0, 0.05, n), COHORT)

    record = Record.drawn(draw, 0.54, judge.repetitions)
    if n == 5:
        # All five runs are of one mode in 9 of 100 studies, and nothing in them tells that there is another.
        judge.fails("mean, Student's t", "two modes, P = 0.4", n, record)
        return
    judge.passes("mean, Student's t", "two modes, P = 0.4", n, record, lopsided=0.05)


def run_curves(rng: np.random.Generator, pairs: int, checkpoints: int) -> np.ndarray:
    """Return [pair, member, checkpoint]: twins whose checkpoints are alike, as those of one run are."""
    shared, own = rng.normal(0, 1, (pairs, 1, 1)), rng.normal(0, 1, (pairs, 2, 1))
    return np.asarray(shared + own + rng.normal(0, 0.3, (pairs, 2, checkpoints)))


def test_checkpoints_as_replicates(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return twins(run_curves(rng, 10, 20).transpose(0, 2, 1).reshape(-1, 2), COHORT)

    record = Record.drawn(draw, 1 / 2.09, judge.repetitions)
    judge.fails("ICC(1) of twins, checkpoints as replicates", "10 pairs x 20 checkpoints", 20, record)


def sides(rng: np.random.Generator, seeds: int, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Return two sides without a difference: seeds and items vary, and a little of both."""
    item = rng.normal(0, 1, (1, items))
    one, other = (item + rng.normal(0, 0.3, (seeds, 1)) + rng.normal(0, 0.5, (seeds, items)) for _ in range(2))
    return one, other


def test_multi_bootstrap(judge: Judge) -> None:
    judge = judge.few(60)

    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 20, 50), COHORT, rng, paired=False, resamples=400).delta

    record = Record.drawn(draw, 0.0, judge.repetitions)
    # By design: it counts the interaction more than once.
    judge.passes("multi-bootstrap", "20 seeds x 50 items a side", 20, record, conservative=True)


def test_few_seeds_by_t(judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 4, 50), COHORT, rng, paired=True, resamples=5).delta

    judge.passes("t over seeds", "4 pairs x 50 items", 4, Record.drawn(draw, 0.0, judge.repetitions))


def test_items_as_replicates(judge: Judge) -> None:
    judge = judge.few(100)

    def draw(rng: np.random.Generator) -> Estimate:
        return multi_bootstrap(*sides(rng, 20, 50), COHORT, rng, paired=False, resamples=100, seeds_too=False).delta

    judge.fails("items as replicates", "20 seeds x 50 items a side", 20, Record.drawn(draw, 0.0, judge.repetitions))


def test_few_seeds_resampled(judge: Judge) -> None:
    judge = judge.few(100)

    def draw(rng: np.random.Generator) -> Estimate:
        one, other = sides(rng, 4, 50)
        return multi_bootstrap(one, other, COHORT, rng, paired=True, resamples=100, items_too=False).resampled

    judge.fails("4 seeds drawn again", "4 pairs x 50 items", 4, Record.drawn(draw, 0.0, judge.repetitions))
