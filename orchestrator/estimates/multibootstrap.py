"""Two sets of runs on one set of items: the multi-bootstrap over seeds and items (Sellam et al. 2022).

A replicate draws seeds with replacement (paired: one draw from the seeds that both sides have; unpaired: one for each
side) and items with replacement (one draw for both sides). Scores are averaged within a seed first, so that a seed
counts once however often it was fine-tuned. Given numpy's RandomState it makes the draws of the authors' code.

It is a pigeonhole bootstrap: right for the main effects of seeds and items, it counts their interaction up to three
times and is then too wide (variance ratio 1.34 at 5 seeds × 200 items). With 5 seeds or fewer on a side its interval
is too narrow all the same: there `delta` is a t interval over seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
FEW_SEEDS = 5
OVERCOUNTS = "seeds × items are counted up to three times: the interval is conservative"
FEW = f"{FEW_SEEDS} seeds or fewer on a side: the interval of the difference is t over seeds, items held fixed"


@dataclass(frozen=True, slots=True)
class MultiBootstrap:
    """The score of two sides and their difference.

    delta     other - base; with few seeds its interval is t over seeds
    resampled the same difference with the bootstrap's percentile interval
    p         one-sided: how often a replicate has no difference in the observed direction; at least 1 / resamples
    draws     [replicate, side]: the mean scores of base and other
    """

    base: Estimate
    other: Estimate
    delta: Estimate
    resampled: Estimate
    p: float
    is_paired: bool
    resamples: int
    draws: Floats
    cautions: tuple[str, ...]


def average_within_seeds(values: Floats, seeds: Sequence[int]) -> tuple[NDArray[np.int64], Floats]:
    """Return the seeds, sorted, and the mean [seed, item] of the rows [run, item] that each of them has."""
    names, place = np.unique(np.asarray(seeds), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, place, values)
    return names, sums / np.bincount(place)[:, None]


def mean_score(values: Floats) -> Floats:
    """Return [seed]: the mean over items."""
    return np.asarray(values.mean(axis=1), float)


def multi_bootstrap(
    base: Floats,
    other: Floats,
    cohort: Cohort,
    rng: np.random.Generator,
    *,
    paired: bool,
    resamples: int = 10_000,
    level: float = 0.95,
    score: Score = mean_score,
    seeds_too: bool = True,
    items_too: bool = True,
) -> MultiBootstrap:
    """Return the difference between two sides from values [seed, item]; paired: row i of both is the same seed.

    score  values of some items [seed, item] → [seed]; the mean by default. Raises ValueError for values that are
    missing, for other items, for fewer than two seeds, and for pairs that are none.
    """
    _check(base, other, paired)
    draws = np.empty((resamples, 2))
    for index in range(resamples):
        rows, columns, items = np.arange(len(base)), np.arange(len(other)), np.arange(base.shape[1])
        if seeds_too:
            rows = rng.choice(rows, len(rows))
            columns = rows if paired else rng.choice(columns, len(columns))
        if items_too:
            items = rng.choice(items, len(items))
        # The score of a seed depends on the items alone: each seed once, then as often as it was drawn.
        draws[index] = [_scored(side, items, score)[chosen].mean() for side, chosen in ((base, rows), (other, columns))]
    of_base, of_other = score(base), score(other)
    observed = float(of_other.mean() - of_base.mean())
    difference = draws[:, 1] - draws[:, 0]
    method = f"multi-bootstrap, {'paired' if paired else 'unpaired'}, percentile"
    resampled = _percentile(observed, difference, method, cohort, level)
    is_few = min(len(base), len(other)) <= FEW_SEEDS
    # Equal scores on both sides differ by rounding: they are no difference in any direction.
    tiny = 1e-12 * max(float(np.abs(draws).max()), 1e-300)
    against = difference <= tiny if observed >= 0 else difference >= -tiny
    return MultiBootstrap(
        base=_percentile(float(of_base.mean()), draws[:, 0], method, cohort, level),
        other=_percentile(float(of_other.mean()), draws[:, 1], method, cohort, level),
        delta=_over_seeds(of_base, of_other, paired, cohort, level) if is_few else resampled,
        resampled=resampled,
        p=max(float(against.mean()), 1 / resamples),
        is_paired=paired,
        resamples=resamples,
        draws=draws,
        cautions=((FEW,) if is_few else ()) + ((OVERCOUNTS,) if seeds_too and items_too else ()),
    )


def _scored(values: Floats, items: NDArray[np.intp], score: Score) -> Floats:
    """Return [seed]: the score of these items; for the mean by their counts, without copying them."""
    if score is not mean_score:
        return score(values[:, items])
    counts = np.bincount(items, minlength=values.shape[1])
    return np.asarray(values @ counts / len(items), float)


def _check(base: Floats, other: Floats, paired: bool) -> None:
    if base.ndim != 2 or other.ndim != 2 or base.shape[1] != other.shape[1]:
        raise ValueError(f"both sides are [seed, item] over the same items, not {base.shape} and {other.shape}")
    if paired and len(base) != len(other):
        raise ValueError(f"paired sides have the same seeds, not {len(base)} and {len(other)}")
    if min(len(base), len(other)) < 2:
        raise ValueError("one seed has no spread to resample: there must be two on each side")
    if np.isnan(base).any() or np.isnan(other).any():
        raise ValueError("a value is missing: leave out the item on both sides, or the seed")


def _percentile(value: float, draws: Floats, method: str, cohort: Cohort, level: float) -> Estimate:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(value, float(low), float(high), method, level, cohort, unit="run and item")


def _over_seeds(base: Floats, other: Floats, paired: bool, cohort: Cohort, level: float) -> Estimate:
    """Return the difference with Student's interval over pairs of seeds, or Welch's over two sets of them."""
    value = float(other.mean() - base.mean())
    if paired:
        error, df = float(np.std(other - base, ddof=1)) / sqrt(len(base)), float(len(base) - 1)
    else:
        parts = [float(np.var(side, ddof=1)) / len(side) for side in (base, other)]
        error = sqrt(sum(parts))
        below = sum(part**2 / (len(side) - 1) for part, side in zip(parts, (base, other), strict=True))
        df = sum(parts) ** 2 / below if below > 0 else float(len(base) + len(other) - 2)
    half = error * float(student.ppf((1 + level) / 2, df))
    return Estimate(value, value - half, value + half, "t over seeds" if paired else "Welch's t", level, cohort)
