"""Does the midpoint's interval cover after the real policy has chosen scales and seeds? 40 studies in CI, else 1,000.

The whole policy is run (`adaptive.decide`, batch by batch, from looks alone); only training is replaced by draws from a
known curve. Published is the profile interval at a nominal 97 %, which is meant to cover 95 %.
"""

import numpy as np
import pytest
from scipy.special import expit

from jobs.stop import MidpointStop
from orchestrator.adaptive import Look, decide, midpoint

pytestmark = pytest.mark.timeout(3600)  # the full repetitions, on a busy machine
SCALES = 2.0 ** np.arange(2, 9)
STOP = MidpointStop(rule="midpoint", factor=1.4, every=28, budget=700)
FIRST = 4
STUDIES = [
    pytest.param(40, (0.85, 1.0), id="reduced"),
    pytest.param(1000, (0.93, 0.98), id="full", marks=pytest.mark.slow),
]


def studied(rng: np.random.Generator, middle: float, slope: float, name: str) -> tuple[bool, int]:
    """Return whether the interval holds the true midpoint (log10 scale), and how many runs the policy spent."""
    p = expit(slope * (np.log10(SCALES) - middle))
    counts = np.full(len(SCALES), FIRST)
    k = rng.binomial(counts, p)
    number = 0
    while True:
        number += 1
        cells = zip(SCALES.tolist(), counts.tolist(), k.tolist(), strict=True)
        looks = [Look(f"c{i}", scale, n, n, one) for i, (scale, n, one) in enumerate(cells)]
        decision = decide(STOP, name, FIRST, looks, number)
        if decision.is_last:
            found = midpoint(STOP, FIRST, looks)
            return found.low <= middle <= found.high, int(counts.sum())
        more = np.array(list(decision.counts.values())) - counts
        k, counts = k + rng.binomial(more, p), counts + more


@pytest.mark.parametrize("slope", [5.0, 10.0])
@pytest.mark.parametrize(("studies", "band"), STUDIES)
def test_the_interval_after_the_policy_covers(studies: int, band: tuple[float, float], slope: float) -> None:
    rng = np.random.Generator(np.random.PCG64(11))
    x = np.log10(SCALES)
    middles = rng.uniform(x[2], x[4], studies)
    found = [studied(rng, float(middle), slope, f"{slope}.{i}") for i, middle in enumerate(middles)]
    covered, spent = np.mean([holds for holds, _ in found]), np.mean([runs for _, runs in found])
    assert band[0] <= covered <= band[1], covered
    assert FIRST * len(SCALES) < spent < STOP.budget, spent
