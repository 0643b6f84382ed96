"""The mean over pairs of runs: pairs share runs, and an interval that takes them for replicates is too narrow."""

import numpy as np
import pytest

from orchestrator.estimates.barriers import mean_over_pairs
from orchestrator.estimates.estimate import Estimate
from tests.calibration.cells import COHORT, Judge, Record


def pairs_of(runs: int) -> np.ndarray:
    return np.stack(np.triu_indices(runs, 1), axis=1)


def barriers(rng: np.random.Generator, runs: int, kind: str) -> np.ndarray:
    """Return the barrier of each pair: its mean over all pairs of an endless crowd is 1."""
    ends = pairs_of(runs)
    if kind == "additive":
        each = rng.normal(0.5, 0.2, runs)
        return each[ends].sum(axis=1) + rng.normal(0, 0.1, len(ends))
    shape = SHAPES[kind]
    skewed = rng.gamma(shape, 1 / shape, runs)
    return skewed[ends].prod(axis=1)


SHAPES = {
    "products, a little skewed (gamma of shape 16)": 16.0,
    "products, skewed (gamma of shape 4)": 4.0,
    "products, very unequal (exponential)": 1.0,
}


def record(runs: int, kind: str, judge: Judge) -> Record:
    def draw(rng: np.random.Generator) -> Estimate:
        return mean_over_pairs(barriers(rng, runs, kind), pairs_of(runs), COHORT, "run")

    return Record.drawn(draw, 1.0, judge.repetitions)


LITTLE, SKEWED, UNEQUAL = SHAPES
# Skewed ones cover .92 at 10 and .93 at 20 runs: too little for the gate, and too much to be a failure of it.
CELLS = [*(("additive", runs) for runs in (5, 10, 20, 50)), *((LITTLE, runs) for runs in (10, 20, 50)), (SKEWED, 50)]


@pytest.mark.parametrize(("kind", "runs"), CELLS)
def test_the_mean_over_pairs_of_runs(runs: int, kind: str, judge: Judge) -> None:
    lopsided = 0.08 if kind in SHAPES else 0.0
    found = record(runs, kind, judge)
    judge.passes("mean over pairs, jackknife over runs", kind, runs, found, conservative=True, lopsided=lopsided)


@pytest.mark.parametrize(("kind", "runs"), [(SKEWED, 5), (UNEQUAL, 5), (UNEQUAL, 10)])
def test_few_runs_with_very_unequal_barriers(kind: str, runs: int, judge: Judge) -> None:
    judge.fails("mean over pairs, jackknife over runs", kind, runs, record(runs, kind, judge))


@pytest.mark.parametrize("runs", [10, 50])
def test_pairs_taken_for_replicates(runs: int, judge: Judge) -> None:
    def draw(rng: np.random.Generator) -> Estimate:
        values = barriers(rng, runs, "additive")
        alone = np.arange(len(values))[:, None].repeat(2, axis=1)
        return mean_over_pairs(values, alone, COHORT, "pair")

    judge.fails("mean over pairs, pairs as replicates", "additive", runs, Record.drawn(draw, 1.0, judge.repetitions))
