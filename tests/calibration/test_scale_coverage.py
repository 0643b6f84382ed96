"""Do intervals over scale cover? Steep, flat and falling curves, floors, plateaus, and a design that the data chose."""

import numpy as np
import pytest
from scipy.special import expit

from orchestrator.estimates.firth import Counts
from orchestrator.estimates.item_noise import success_from_items
from orchestrator.estimates.prediction import rivals_at
from orchestrator.estimates.success_over_scale import eta_interval, midpoint_interval, slope_interval
from tests.calibration.cells import COHORT, Judge, Record

STEP = np.log10(2)
DESIGNS = [
    (6, 5, 10.0), (6, 10, 10.0), (5, 20, 4.0), (5, 50, 6.0), (6, 5, -8.0), (6, 10, -8.0), (6, 20, -8.0), (6, 50, -8.0),
]  # fmt: skip


def simulated(p: np.ndarray, n: int, repetitions: int, seed: int = 1) -> Counts:
    rng = np.random.default_rng(seed)
    shape = (repetitions, len(p))
    return Counts(np.arange(len(p)) * STEP, rng.binomial(n, p, shape).astype(float), np.full(shape, float(n)))


@pytest.mark.parametrize(("scales", "n", "slope"), DESIGNS)
def test_curve_midpoint_and_slope(scales: int, n: int, slope: float, judge: Judge) -> None:
    x = np.arange(scales) * STEP
    middle = x.mean() + 0.05
    counts = simulated(expit(slope * (x - middle)), n, judge.repetitions)
    design = f"{scales} scales, slope {slope:g}"
    _, low, high = midpoint_interval(counts)
    judge.passes("midpoint", design, n, Record.of(low, high, middle), conservative=True, most_width=0.8)
    # The penalty pulls steep curves in: where seeds are few, misses lie on one side.
    for name, place in (("second", x[1]), ("largest", x[-1])):
        _, low, high = eta_interval(counts, np.full(judge.repetitions, place))
        record = Record.of(low, high, slope * (place - middle))
        judge.passes(f"curve at the {name} scale", design, n, record, conservative=True, lopsided=0.06)
    low, high = slope_interval(counts)
    record = Record.of(low, high, slope)
    judge.passes("slope", design, n, record, conservative=True, lopsided=0.06, most_width=40)


@pytest.mark.parametrize("doublings", [1, 2])
def test_two_parameters_beyond_a_plateau(doublings: int, judge: Judge) -> None:
    x = np.arange(6) * STEP
    counts = simulated(0.8 * expit(10 * (x - 0.5)), 20, judge.repetitions)
    _, low, high = eta_interval(counts, np.full(judge.repetitions, x[-1] + doublings * STEP))
    record = Record.of(expit(low), expit(high), 0.8)
    judge.fails("two parameters, extrapolated", f"plateau at .8, {2**doublings} x the largest scale", 20, record)
    assert record.coverage < 0.35


SHAPES = {
    "plateau at .8": (0.0, 0.8, 10.0),
    "no plateau": (0.0, 1.0, 6.0),
    "falling from .9": (0.0, 0.9, -8.0),
    "floor .1, plateau at .9": (0.1, 0.9, 10.0),
}


@pytest.mark.parametrize("n", [5, 10, 20, 50])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_union_of_rivals_covers_one_doubling_on(shape: str, n: int, judge: Judge) -> None:
    judge = judge.few(60 if n == 20 else 25)
    floor, ceiling, slope = SHAPES[shape]
    x = np.arange(6) * STEP
    at = float(x[-1] + STEP)
    truth = floor + (ceiling - floor) * expit(slope * (np.append(x, at) - 0.6))
    counts = simulated(truth[:-1], n, judge.repetitions, seed=3)
    bounds = []
    for i in range(judge.repetitions):
        rivals = rivals_at(Counts(counts.x, counts.k[i : i + 1], counts.n[i : i + 1]), at, 0.95)
        bounds.append((min(r[1] for r in rivals), max(r[2] for r in rivals)))
    record = Record.of(*np.array(bounds).T, float(truth[-1]))
    # With five runs a scale the record of held-out scales says little, and the union nearly nothing.
    most = {5: 1.0, 10: 0.8, 20: 0.6, 50: 0.45}[n]
    judge.passes("union of rivals", f"{shape}, 2 x the largest scale", n, record, True, most_width=most)


@pytest.mark.parametrize("runs", [10, 20])
def test_few_items_a_run(runs: int, judge: Judge) -> None:
    """True accuracies Beta(1, 3), a skewed floor, or .9; 30 items, threshold .5: P is .3 + .7 P(Beta > .5)."""
    judge = judge.few(25)
    rng = np.random.default_rng(9)
    truth = 0.3 + 0.7 * 0.5**3
    found = []
    for _ in range(judge.repetitions):
        accuracy = np.where(rng.random(runs) < 0.3, 0.9, rng.beta(1, 3, runs))
        found.append(success_from_items(rng.binomial(30, accuracy), np.full(runs, 30), 0.5, COHORT))
    record = Record.of(np.array([one.low for one in found]), np.array([one.high for one in found]), truth)
    judge.passes("P from items", "30 items, a skewed floor", runs, record, conservative=True, most_width=0.7)
