"""Groups of runs and runs unlike the others."""

import numpy as np
import pytest

from orchestrator.estimates.clusters import clusters, medoids, silhouette
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.outliers import outliers, path_distances, path_outliers, robust_z

COHORT = Cohort.of(["a"], finished=1, diverged=0)


def basins(sizes: list[int], gap: float, seed: int = 0) -> np.ndarray:
    """Return barriers [run, run]: .1 inside a basin, .1 + gap between basins, with noise of .03."""
    basin = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(seed).normal(0, 0.03, (len(basin),) * 2)
    matrix = np.abs(0.1 + gap * (basin[:, None] != basin) + (noise + noise.T) / 2)
    return matrix * ~np.eye(len(basin), dtype=bool)


def test_two_basins_are_found_and_named_by_size() -> None:
    found = clusters(basins([3, 8], 0.3), COHORT, np.random.default_rng(0), permutations=199)
    assert found.labels.tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert found.p == 1 / 200
    assert found.medoids[0] >= 3 > found.medoids[1]


def test_three_basins_are_three() -> None:
    found = clusters(basins([5, 5, 5], 0.3), COHORT, np.random.default_rng(0), permutations=99)
    assert found.labels.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert int(np.argmax(found.excess)) == 1
    assert found.silhouette == found.silhouettes[1]


def test_one_basin_is_one_group_whatever_the_best_cut() -> None:
    found = clusters(basins([12], 0.0), COHORT, np.random.default_rng(0), permutations=199)
    assert found.p > 0.05
    assert set(found.labels.tolist()) == {0}
    assert len(set(found.best_labels.tolist())) > 1


def test_the_order_of_runs_does_not_change_the_groups() -> None:
    distances = basins([4, 6], 0.2)
    order = np.random.default_rng(1).permutation(10)
    one = clusters(distances, COHORT, np.random.default_rng(0), permutations=49)
    other = clusters(distances[np.ix_(order, order)], COHORT, np.random.default_rng(0), permutations=49)
    assert other.labels.tolist() == one.labels[order].tolist()
    assert other.silhouette == pytest.approx(one.silhouette)


def test_silhouette_by_hand() -> None:
    points = np.array([0.0, 1.0, 10.0])
    distances = np.abs(points[:, None] - points)
    # Of 0: (10 - 1)/10; of 1: (9 - 1)/9; 10 is alone: 0.
    assert silhouette(distances, np.array([0, 0, 1])) == pytest.approx((0.9 + 8 / 9) / 3)
    assert medoids(np.abs(np.subtract.outer([0.0, 1, 2, 9], [0.0, 1, 2, 9])), np.zeros(4, int)) == (1,)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d[:3, :3], "at least 4 runs"),
        (lambda d: d[:, :3], "square"),
        (lambda d: d + np.triu(np.ones_like(d), 1), "symmetric"),
        (lambda d: np.where(d > 0, np.nan, d), "finite"),
        (lambda d: -d, "negative"),
    ],
)
def test_what_is_no_matrix_of_distances_is_refused(spoil: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clusters(spoil(basins([5], 0.0)), COHORT, np.random.default_rng(0))  # type: ignore[operator]


def test_robust_z_by_hand_and_not_moved_by_what_it_finds() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 100.0])
    assert robust_z(values)[-1] == pytest.approx(0.6744897501960817 * 97)
    assert robust_z(np.array([1.0, 2.0, 3.0, 4.0, 1e6]))[:3] == pytest.approx(robust_z(values)[:3])
    assert robust_z(np.full(5, 2.0)).tolist() == [0] * 5
    # Over half are equal: the MAD is 0, the mean deviation is not.
    assert robust_z(np.array([1.0, 1, 1, 1, 9]))[-1] == pytest.approx(0.7978845608028654 * 8 / 1.6)


def test_outliers_are_named_with_the_worst_first_and_gaps_are_no_outliers() -> None:
    values = np.random.default_rng(0).normal(size=(30, 3))
    values[7, 1], values[20, 0], values[3] = 9, -30, np.nan
    found = outliers(values, COHORT)
    assert found.runs == (20, 7)
    assert found.is_found[20].tolist() == [True, False, False]
    assert np.isnan(found.z[3]).all()


def test_a_run_with_a_path_of_its_own_is_found() -> None:
    draw = np.random.default_rng(0)
    paths = [np.repeat([0, 1, 2], [10 + int(draw.integers(3)), 10, 12]) for _ in range(11)]
    paths.append(np.repeat([0, 3], [10, 22]))
    distances = path_distances(paths)
    assert distances[0, 0] == 0
    assert path_outliers(distances, COHORT).runs == (11,)
    with pytest.raises(ValueError, match="without a step"):
        path_distances([np.array([], int)])
