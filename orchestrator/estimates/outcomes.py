"""Scores of runs by scale: what laws over scale are fitted to, and how whole runs are drawn again.

Plain percentiles of resampled runs are too narrow where runs are few: a resample has (n - 1)/n of the variance, and a
normal's tails stand where Student's belong. `percentile_ends` takes percentiles further out by both (Hesterberg 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from orchestrator.estimates.estimate import Cohort

Floats = NDArray[np.float64]


def percentile_ends(runs: int, level: float) -> tuple[float, float]:
    """Return which percentiles of the resamples bound an interval at `level`, `runs` being drawn from the fewest."""
    if runs < 2:
        return 0.0, 1.0
    tail = float(ndtr(-np.sqrt(runs / (runs - 1)) * stdtrit(runs - 1, (1 + level) / 2)))
    return tail, 1 - tail


@dataclass(frozen=True, slots=True)
class Outcomes:
    """One score per finished run, by scale.

    scale   [scale], positive, ascending
    scores  for each scale [run], sorted, so that no order of rows moves a bound
    cohort  the runs of all scales
    """

    scale: Floats
    scores: tuple[Floats, ...]
    cohort: Cohort

    @classmethod
    def of(cls, scale: Sequence[float] | Floats, scores: Sequence[Floats], cohort: Cohort) -> "Outcomes":
        """Return the outcomes in ascending order of scale; raises ValueError for what no law can be fitted to."""
        place = np.asarray(scale, np.float64)
        if len(place) != len(scores):
            raise ValueError(f"{len(place)} scales, but scores of {len(scores)}")
        if not (np.isfinite(place).all() and (place > 0).all() and len(np.unique(place)) == len(place)):
            raise ValueError("scales are positive, finite and distinct")
        for at, values in zip(place, scores, strict=True):
            if not len(values) or not np.isfinite(values).all():
                raise ValueError(f"at scale {at:g} a score is missing or not finite: leave that scale or run out")
        order = np.argsort(place)
        return cls(place[order], tuple(np.sort(np.asarray(scores[i], np.float64)) for i in order), cohort)

    @property
    def runs(self) -> NDArray[np.int64]:
        """Return [scale]: how many runs have a score."""
        return np.array([len(values) for values in self.scores], np.int64)

    @property
    def means(self) -> Floats:
        """Return [scale]: the mean over runs."""
        return np.array([values.mean() for values in self.scores])

    def up_to(self, count: int) -> "Outcomes":
        """Return the outcomes of the `count` smallest scales (the cohort stays that of all)."""
        return Outcomes(self.scale[:count], self.scores[:count], self.cohort)

    def drawn(self, rng: np.random.Generator, resamples: int) -> list[Floats]:
        """Return for each scale [resample, run]: runs drawn again within their scale."""
        return [values[rng.integers(len(values), size=(resamples, len(values)))] for values in self.scores]

    def groups(self, rng: np.random.Generator, most: int) -> list[Floats]:
        """Return for each scale [group]: means of runs, dealt into `most` groups or as many as there are runs.

        Groups are independent of each other and have every scale: a fit per group is a fit per seed. Each scale is
        shuffled by itself: groups of equal rank would move up and down together, and their slopes hardly differ.
        """
        count = min(int(self.runs.min()), most)
        shuffled = [rng.permutation(values) for values in self.scores]
        return [np.array([values[group::count].mean() for group in range(count)]) for values in shuffled]
