"""How often one basin is called several, and two are found."""

import numpy as np
import pytest

from orchestrator.estimates.clusters import clusters
from orchestrator.estimates.state_choice import adjusted_rand
from tests.calibration.cells import COHORT, Judge, Record


def barriers(rng: np.random.Generator, basin: np.ndarray, gap: float) -> np.ndarray:
    """Return barriers [run, run]: .2, and `gap` more between basins, with noise of .1 on every pair."""
    noise = np.triu(rng.normal(0.2, 0.1, (len(basin),) * 2), 1)
    matrix = np.abs(noise + noise.T + gap * (basin[:, None] != basin))
    return matrix * ~np.eye(len(basin), dtype=bool)


@pytest.mark.parametrize(("runs", "most"), [(10, 2), (10, 4)])
def test_one_basin_is_called_several_in_5_of_100(runs: int, most: int, judge: Judge) -> None:
    judge = judge.few(150)
    rng = np.random.default_rng(0)
    p = np.array(
        [
            clusters(barriers(rng, np.zeros(runs), 0), COHORT, rng, most, permutations=39).p
            for _ in range(judge.repetitions)
        ]
    )
    judge.passes("groups of runs, permutation p", f"one basin, up to {most} groups", runs, Record.of_test(p))


@pytest.mark.parametrize("sizes", [(8, 8), (12, 4)])
def test_two_basins_are_found(sizes: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    basin = np.repeat([0, 1], sizes)
    found = [clusters(barriers(rng, basin, 0.3), COHORT, rng, permutations=39) for _ in range(30)]
    assert np.mean([one.p <= 0.05 for one in found]) >= 0.95
    assert np.mean([adjusted_rand(one.labels, basin) for one in found]) >= 0.9


def test_the_best_silhouette_without_a_test(judge: Judge) -> None:
    judge = judge.few(50)
    rng = np.random.default_rng(2)
    found = [
        clusters(barriers(rng, np.zeros(12), 0), COHORT, rng, permutations=0).best_labels
        for _ in range(judge.repetitions)
    ]
    several = float(np.mean([len(set(labels.tolist())) > 1 for labels in found]))
    judge.fails("groups of runs, largest silhouette", "one basin", 12, Record(several / 2, several / 2))
