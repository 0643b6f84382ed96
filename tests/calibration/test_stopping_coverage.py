"""Do intervals cover after seeds were given by rule? Exact walks, and the whole policy batch by batch.

The policy that runs is the real one (`adaptive.decide`, from looks alone); only training is replaced by draws from a
known P, and runs may be lost on the way.
"""

import numpy as np
import pytest
from scipy.special import expit

from jobs.stop import MidpointStop, WidthStop
from orchestrator.adaptive import Look, decide
from orchestrator.estimates.allocation import ADAPTIVE_LEVEL
from orchestrator.estimates.firth import Counts
from orchestrator.estimates.stopping import WidthRule, characteristics, confidence_sequence
from orchestrator.estimates.success import METHODS, wilson
from orchestrator.estimates.success_over_scale import midpoint_interval
from orchestrator.stop_rules import published, width_rule
from tests.calibration.cells import Judge, Record

CELLS = (0.02, 0.1, 0.3, 0.5, 0.9)
WIDTH = WidthStop(rule="width", half_width=0.15, every=4, most=200)
SCALES = 2.0 ** np.arange(2, 9)
MIDPOINT = MidpointStop(rule="midpoint", factor=1.4, every=28, budget=700)
FIRST = {"width": 12, "midpoint": 4}


@pytest.mark.parametrize("half_width", [0.2, 0.15, 0.1])
@pytest.mark.parametrize("every", [4, 8])
def test_stopping_by_width_exactly(half_width: float, every: int, judge: Judge) -> None:
    over_p = np.arange(5, 996, 2) / 1000
    found = characteristics(WidthRule(half_width, every=every), over_p)
    assert found.coverage.min() >= 0.929, "at every P"
    record = Record(float(found.misses_below.mean()), float(found.misses_above.mean()))
    design = f"stopped at ±{half_width:g}, every {every}, mean over P"
    judge.exactly().passes("Agresti–Coull, nominal .96", design, "adaptive", record, conservative=True)
    naive = characteristics(WidthRule(half_width, "wilson", 0.95, every=every), over_p)
    worst = int(naive.coverage.argmin())
    at_worst = Record(float(naive.misses_below[worst]), float(naive.misses_above[worst]))
    judge.exactly().fails("Wilson", f"stopped at ±{half_width:g}, every {every}, worst P", "adaptive", at_worst)


def by_width(p: float, lost: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return (successes, known outcomes) of one condition when the policy has stopped."""
    launched = more = FIRST["width"]
    known = k = 0
    while more:
        outcome = rng.random(more) < p
        kept = rng.random(more) >= lost
        known, k = known + int(kept.sum()), k + int((outcome & kept).sum())
        counts = decide(WIDTH, "s", FIRST["width"], [Look("c", 1.0, launched, known, k)], 1).counts
        more, launched = counts["c"] - launched, counts["c"]
    return k, known


@pytest.mark.parametrize("lost", [0.0, 0.2])
@pytest.mark.parametrize("p", CELLS)
def test_the_interval_after_the_width_policy_covers(p: float, lost: float, judge: Judge) -> None:
    rng = np.random.default_rng(3)
    method, level = published(WIDTH, FIRST["width"])
    ended = [by_width(p, lost, rng) for _ in range(judge.repetitions)]
    low, high = np.array([METHODS[method](k, n, level) for k, n in ended]).T
    record = Record.of(low, high, p)
    design = f"real width policy, P = {p:g}" + (", a fifth lost at random" if lost else "")
    judge.passes("Agresti–Coull, nominal .96", design, "adaptive", record, conservative=True, lopsided=0.06)
    if not lost:
        walk = characteristics(width_rule(WIDTH, FIRST["width"]), np.array([p]))
        noise = np.sqrt(walk.coverage[0] * (1 - walk.coverage[0]) / judge.repetitions)
        assert record.coverage == pytest.approx(walk.coverage[0], abs=4 * noise + 1e-9), "the exact walk"
        seeds = np.array([n for _, n in ended])
        assert seeds.mean() == pytest.approx(walk.expected_n[0], abs=4 * seeds.std() / np.sqrt(len(seeds)) + 1e-9)


def ever_excluded(low: np.ndarray, high: np.ndarray, p: float, every: int) -> float:
    """Return the exact probability that an interval [n, k] excludes the true p at some look."""
    going, wrong = np.ones(1), 0.0
    for n in range(1, len(low)):
        going = np.convolve(going, [1 - p, p])
        if n % every == 0:
            out = (low[n, : n + 1] > p) | (high[n, : n + 1] < p)
            wrong += float(going[out].sum())
            going = np.where(out, 0.0, going)
    return wrong


def all_looks(interval: object, every: int, most: int) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.zeros((most + 1, most + 1)), np.ones((most + 1, most + 1))
    for n in range(every, most + 1, every):
        low[n, : n + 1], high[n, : n + 1] = np.array([interval(k, n) for k in range(n + 1)]).T  # type: ignore[operator]
    return low, high


def test_free_peeking_is_for_confidence_sequences(judge: Judge) -> None:
    always, wilsons = all_looks(confidence_sequence, 5, 100), all_looks(wilson, 5, 100)
    for p in CELLS:
        design = f"looked at every 5 up to 100, P = {p:g}"
        for name, looks in (("confidence sequence", always), ("Wilson", wilsons)):
            missed = ever_excluded(*looks, p, 5) / 2
            ask = judge.exactly()
            if looks is always:
                ask.passes(name, design, "peeking", Record(missed, missed), conservative=True)
            else:
                ask.fails(name, design, "peeking", Record(missed, missed))


def by_midpoint(rng: np.random.Generator, middle: float, slope: float, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ([scale] successes, [scale] runs) when the policy has stopped."""
    p = expit(slope * (np.log10(SCALES) - middle))
    counts = np.full(len(SCALES), FIRST["midpoint"])
    k, number = rng.binomial(counts, p), 0
    while True:
        number += 1
        cells = zip(SCALES.tolist(), counts.tolist(), k.tolist(), strict=True)
        looks = [Look(f"c{i}", scale, n, n, one) for i, (scale, n, one) in enumerate(cells)]
        decision = decide(MIDPOINT, name, FIRST["midpoint"], looks, number)
        if decision.is_last:
            return k, counts
        more = np.array(list(decision.counts.values())) - counts
        k, counts = k + rng.binomial(more, p), counts + more


@pytest.mark.parametrize("slope", [5.0, 10.0, -8.0])
def test_the_interval_after_the_midpoint_policy_covers(slope: float, judge: Judge) -> None:
    judge = judge.few(60)
    rng = np.random.default_rng(11)
    x = np.log10(SCALES)
    middles = rng.uniform(x[2], x[4], judge.repetitions)
    ended = [by_midpoint(rng, float(middle), slope, f"{slope}.{i}") for i, middle in enumerate(middles)]
    k, n = (np.array([one[i] for one in ended], float) for i in (0, 1))
    _, low, high = midpoint_interval(Counts(x, k, n), ADAPTIVE_LEVEL)
    design = f"real midpoint policy, slope {slope:g}"
    judge.passes("midpoint, nominal .97", design, "adaptive", Record.of(low, high, middles), True, most_width=0.31)
    spent = n.sum(axis=1)
    assert FIRST["midpoint"] * len(SCALES) < spent.mean() < MIDPOINT.budget, spent.mean()
