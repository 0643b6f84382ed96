"""One mode or two? A verdict of three values, and the power behind it.

Two modes: two components beat one by ΔBIC > 6, they lie further apart than a gap that was declared before, and the
smaller holds two runs at least. One mode: one component is better, and two modes of 1.5 times the gap, made to have the
mean and variance that were seen, would have been found 8 times in 10 at this n. Anything else is "not distinguishable":
nothing tells overlapping modes apart at 50 runs, and lack of power is not one mode. The dip test stands beside as a
second opinion. For counts k of m use `count_modes`; `value_modes` is for values without floor or ceiling, such as the
final training loss (the free null: modes in accuracy alone may be the metric's doing).
Never: Ashman's D, which exceeds 2 in 65 to 100 % of unimodal samples to which two components were fitted.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from orchestrator.estimates.dip import DipTest, dip_test
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.mixtures import TwoComponents, of_counts, of_values
from orchestrator.estimates.success import success_probability

Floats = NDArray[np.float64]
EVIDENCE = 6.0
FEWEST = 2.0  # runs in the smaller mode
ENOUGH_POWER = 0.8
ALTERNATIVE_GAP = 1.5  # of the declared gap
_WIDEST = 0.6  # of shares: 1.5 times as far apart still lies inside [0, 1]
ALTERNATIVE_WEIGHTS = (0.2, 0.5, 0.8)


class Verdict(StrEnum):
    """How many modes."""

    TWO = "two modes"
    UNCLEAR = "not distinguishable"
    ONE = "one mode"


@dataclass(frozen=True, slots=True)
class Modes:
    """The verdict and what it rests on.

    low, high, weight  means of the two components, and the weight of the upper
    upper              [run], posterior probability that a run belongs to the upper mode
    gap                what the means must be apart, declared before
    power              of finding two modes of 1.5 gap at this n, the least over weights .2, .5, .8 of the upper mode
    power_by_weight    that power for each of them, from `draws` simulated samples
    """

    verdict: Verdict
    delta_bic: float
    low: float
    high: float
    weight: float
    upper: Floats
    gap: float
    power: float
    power_by_weight: dict[float, float]
    draws: int
    dip: DipTest
    cohort: Cohort
    method: str
    unit: str = "run"
    stopping_rule: str = FIXED

    @property
    def says(self) -> str:
        """Return the verdict in words, with the power at this n where two modes were not found."""
        if self.verdict is Verdict.TWO:
            return (
                f"{self.verdict} (ΔBIC {self.delta_bic:.1f}, n = {len(self.upper)}; {self.weight:.0%} of the runs "
                f"about {self.high:.3g}, the others about {self.low:.3g})"
            )
        return (
            f"{self.verdict} (ΔBIC {self.delta_bic:.1f}, n = {len(self.upper)}{self._but}; power to find two modes "
            f"{ALTERNATIVE_GAP * self.gap:g} apart: {self.power:.2f})"
        )

    @property
    def _but(self) -> str:
        """Return why two components that beat one are not two modes; empty where they do not beat it."""
        if self.delta_bic <= EVIDENCE:
            return ""
        if min(self.weight, 1 - self.weight) * len(self.upper) < FEWEST:
            return f", but fewer than {FEWEST:g} runs in the smaller mode"
        return f", but no two modes {self.gap:g} apart"


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What another threshold of success would say.

    disagreements  runs that the threshold and the mixture put on different sides
    verdict        two modes only where the threshold parts them: between their means, and with at most one run in ten
                   on the wrong side
    """

    threshold: float
    success: Estimate
    disagreements: int
    verdict: Verdict


def count_modes(
    correct: ArrayLike, items: ArrayLike, gap: float, cohort: Cohort, rng: np.random.Generator, draws: int = 60
) -> Modes:
    """Return the verdict on correct [run] of items [run], by a beta-binomial mixture; `gap` in accuracy."""
    k, m = np.asarray(correct, np.int64), np.asarray(items, np.int64)
    _check(len(k), gap)
    if k.shape != m.shape or (k < 0).any() or (k > m).any() or (m < 1).any():
        raise ValueError("every run needs at least one item, and no more correct than items")
    if gap > _WIDEST:
        raise ValueError(f"two modes of shares may be asked to be at most {_WIDEST:g} apart, not {gap:g}")
    found = of_counts(k[None], m)
    mean, precision = float(found.mean[0]), float(found.spread[0, 2])
    variance = mean * (1 - mean) / (precision + 1)

    simulated = []
    for weight in ALTERNATIVE_WEIGHTS:
        means, within = _alternative(mean, variance, weight, ALTERNATIVE_GAP * gap, (0.0, 1.0))
        precisions = np.clip(means * (1 - means) / within - 1, np.exp(-1), np.exp(9))
        side = (rng.random((draws, len(k))) < weight).astype(int)
        accuracy = rng.beta((means * precisions)[side], ((1 - means) * precisions)[side])
        simulated.append(rng.binomial(m, accuracy))
    seen = accepted(of_counts(np.concatenate(simulated), m), gap)
    two, dip = bool(accepted(found, gap)[0]), dip_test(k / m, cohort, rng)
    return _verdict(found, two, seen, gap, dip, cohort, "beta-binomial mixture")


def value_modes(values: ArrayLike, gap: float, cohort: Cohort, rng: np.random.Generator, draws: int = 200) -> Modes:
    """Return the verdict on values [run], by a normal mixture; `gap` in their unit.

    A skewed sample draws a second wide component; it counts as a mode only if the fitted density has two peaks.
    """
    x = np.asarray(values, float)
    _check(len(x), gap)
    if not np.isfinite(x).all():
        raise ValueError("modes are of finite values; a run that diverged has none")
    found = of_values(x[None])
    mean, variance = float(found.mean[0]), float(found.spread[0, 2]) ** 2

    simulated = []
    for weight in ALTERNATIVE_WEIGHTS:
        means, within = _alternative(mean, variance, weight, ALTERNATIVE_GAP * gap, (-np.inf, np.inf))
        side = (rng.random((draws, len(x))) < weight).astype(int)
        simulated.append(rng.normal(means[side], np.sqrt(within)))
    others = of_values(np.concatenate(simulated))
    two, seen = bool((accepted(found, gap) & two_peaks(found))[0]), accepted(others, gap) & two_peaks(others)
    return _verdict(found, two, seen, gap, dip_test(x, cohort, rng), cohort, "normal mixture")


def threshold_sweep(scores: Floats, thresholds: Floats, modes: Modes, cohort: Cohort) -> list[ThresholdRow]:
    """Return what each threshold would say, from scores [run] in the order of `modes.upper`."""
    if len(scores) != len(modes.upper):
        raise ValueError(f"{len(scores)} scores, but the verdict is on {len(modes.upper)} runs")
    rows = []
    for threshold in np.asarray(thresholds, float).tolist():
        above = scores >= threshold
        wrong = int((above != (modes.upper > 0.5)).sum())
        parts = modes.low < threshold <= modes.high and wrong <= len(scores) / 10
        verdict = modes.verdict if parts or modes.verdict is not Verdict.TWO else Verdict.UNCLEAR
        rows.append(ThresholdRow(threshold, success_probability(int(above.sum()), cohort), wrong, verdict))
    return rows


def two_peaks(found: TwoComponents) -> NDArray[np.bool_]:
    """Return [sample]: whether the density of two normal components has two peaks."""
    low, high = found.low[:, None], found.high[:, None]
    places = low + (high - low) * np.linspace(-0.2, 1.2, 281)
    parts = [
        share[:, None] * np.exp(-0.5 * ((places - mean) / spread[:, None]) ** 2) / spread[:, None]
        for share, mean, spread in (
            (1 - found.weight, low, found.spread[:, 0]),
            (found.weight, high, found.spread[:, 1]),
        )
    ]
    rising = np.diff(parts[0] + parts[1], axis=1) > 0
    return np.asarray((rising[:, :-1] & ~rising[:, 1:]).sum(axis=1) >= 2)


def _verdict(
    found: TwoComponents, two: bool, seen: NDArray[np.bool_], gap: float, dip: DipTest, cohort: Cohort, method: str
) -> Modes:
    """Return the verdict; `seen` [alternative × draw] says where two modes that were there were found."""
    by_weight = seen.reshape(len(ALTERNATIVE_WEIGHTS), -1).mean(axis=1)
    least = float(by_weight.min())
    one = found.delta_bic[0] < 0 and least >= ENOUGH_POWER
    return Modes(
        verdict=Verdict.TWO if two else Verdict.ONE if one else Verdict.UNCLEAR,
        delta_bic=float(found.delta_bic[0]),
        low=float(found.low[0]),
        high=float(found.high[0]),
        weight=float(found.weight[0]),
        upper=found.upper[0],
        gap=gap,
        power=least,
        power_by_weight=dict(zip(ALTERNATIVE_WEIGHTS, by_weight.tolist(), strict=True)),
        draws=len(seen) // len(ALTERNATIVE_WEIGHTS),
        dip=dip,
        cohort=cohort,
        method=method,
    )


def accepted(found: TwoComponents, gap: float) -> NDArray[np.bool_]:
    """Return [sample]: whether two components beat one, lie apart, and both hold runs."""
    smaller = np.minimum(found.weight, 1 - found.weight) * found.upper.shape[1]
    return np.asarray((found.delta_bic > EVIDENCE) & (found.high - found.low > gap) & (smaller >= FEWEST))


def _alternative(
    mean: float, variance: float, weight: float, gap: float, within: tuple[float, float]
) -> tuple[Floats, float]:
    """Return (means of two modes, their variance) of this gap and weight, with the mean and variance seen."""
    low = mean - weight * gap
    edge = 0.02 if np.isfinite(within).all() else 0.0
    low = max(within[0] + edge, min(low, within[1] - edge - gap))
    rest = variance - weight * (1 - weight) * gap**2
    return np.array([low, low + gap]), max(rest, (gap / 20) ** 2)


def _check(runs: int, gap: float) -> None:
    if runs < 4:
        raise ValueError(f"modes of {runs} runs: at least 4 are needed, and about 20 to see a second mode of weight .2")
    if not gap > 0:
        raise ValueError(f"the gap between modes that matters is positive and declared before, not {gap}")
