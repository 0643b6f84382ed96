"""Do single seeds break through over scale, or climb in a line? Breakthroughness and linearity of BIG-bench.

A lineage is one seed index through all scales. With y ordered by scale, Δ its steps and
I(y) = sign(argmax - argmin)·(max - min): B = I/√median(Δ²), L = I/√mean(Δ²). A lineage is a name and nothing more: runs
of the same seed at two scales share no weights, so extremes over lineages are to be read beside those over random
re-pairings of the same runs, which this gives.
Sources: Srivastava et al. 2022 (BIG-bench), appendix B; over seeds: arXiv 2502.17356.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lineages:
    """Breakthroughness and linearity of every lineage that has all its scales.

    kept              indices of the lineages with a score at every scale
    breakthroughness  [lineage], within ±cap
    linearity         [lineage]
    capped            lineages whose B was cut to ±cap: their median step is 0, or nearly
    """

    kept: NDArray[np.int64]
    breakthroughness: Floats
    linearity: Floats
    cap: float
    capped: int
    cohort: Cohort
    method: str = "big-bench breakthroughness and linearity"
    unit: str = "run"
    stopping_rule: str = FIXED


@dataclass(frozen=True, slots=True)
class RePairings:
    """The highest B and L of the lineages as they are, beside those when runs are paired over scales at random.

    highest_*            of the lineages as named
    re_paired_*          [pairing], the highest of every random pairing
    p_*                  share of pairings with one at least as high; never 0
    """

    highest_breakthroughness: float
    highest_linearity: float
    re_paired_breakthroughness: Floats
    re_paired_linearity: Floats
    p_breakthroughness: float
    p_linearity: float
    cap: float
    cohort: Cohort
    method: str = "random re-pairings of runs over scales"
    unit: str = "run"
    stopping_rule: str = FIXED


def lineages(scores: Floats, cohort: Cohort, cap: float = 100.0) -> Lineages:
    """Return B and L of lineages; scores: [lineage, scale], scales ascending, NaN where a run has none."""
    kept = _complete(scores)
    breakthroughness, linearity, capped = _both(scores[kept], cap)
    return Lineages(kept, breakthroughness, linearity, cap, int(capped.sum()), cohort)


def re_pairings(
    scores: Floats, cohort: Cohort, generator: np.random.Generator, pairings: int = 1000, cap: float = 100.0
) -> RePairings:
    """Return how the highest B and L compare with those of random pairings; scores: as of `lineages`.

    Lineages that lack a scale are left out of both.
    """
    whole = scores[_complete(scores)]
    if not len(whole):
        raise ValueError("no lineage has a score at every scale")
    named = _both(whole, cap)
    drawn = generator.permuted(np.tile(whole, (pairings, 1, 1)), axis=1)
    breakthroughness, linearity, _ = _both(drawn, cap)
    highest_b, highest_l = float(named[0].max()), float(named[1].max())
    drawn_b, drawn_l = breakthroughness.max(axis=1), linearity.max(axis=1)
    p_b, p_l = (
        (1 + int((drawn >= top - 1e-12).sum())) / (1 + pairings)
        for drawn, top in ((drawn_b, highest_b), (drawn_l, highest_l))
    )
    return RePairings(highest_b, highest_l, drawn_b, drawn_l, p_b, p_l, cap, cohort)


def _complete(scores: Floats) -> NDArray[np.int64]:
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores are [lineage, scale] with at least two scales, but have shape {scores.shape}")
    return np.flatnonzero(np.isfinite(scores).all(axis=1)).astype(np.int64)


def _both(scores: Floats, cap: float) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Return (B, L, whether B was cut), each [...] for scores [..., scale]; 0 for a lineage that never moves."""
    squares = np.diff(scores, axis=-1) ** 2
    sign = np.sign(scores.argmax(axis=-1) - scores.argmin(axis=-1))
    improvement = sign * np.ptp(scores, axis=-1)
    linearity = _ratio(improvement, np.sqrt(squares.mean(axis=-1)))
    raw = _ratio(improvement, np.sqrt(np.median(squares, axis=-1)))
    return np.clip(raw, -cap, cap), linearity, np.abs(raw) > cap


def _ratio(top: Floats, bottom: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(top == 0, 0.0, top / bottom)
