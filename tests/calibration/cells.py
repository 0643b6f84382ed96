"""The gate: does an interval cover as often as it says, and does it miss on both sides?

A cell is one situation (n, P, how seeds depend, how it was stopped). It passes at 2,000 repetitions if coverage is in
[.93, .97] and each side misses in 1 to 4 %; a method of true coverage .95 passes with .99996, one of .91 with .0007.
CI makes do with 500 repetitions or fewer, and a band that is wider by the noise. A cell may be declared
conservative (it may cover more, and must then not do so by being wide) or lopsided (misses lie on one side); both are
said where the estimator is described. A naive method must be refused by the same gate, at the same repetitions.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator], Estimate]
COHORT = Cohort.of(["a"], finished=1, diverged=0)


@dataclass(frozen=True, slots=True)
class Record:
    """How often an interval began above the truth, ended below it, and how wide it was."""

    above: float
    below: float
    width: float = 0.0

    @property
    def coverage(self) -> float:
        return 1 - self.above - self.below

    @classmethod
    def of(cls, low: Floats, high: Floats, truth: Floats | float, weights: Floats | None = None) -> "Record":
        """Return the record of intervals [repetition], each of weight 1/repetitions or of exact probability."""
        low, high = np.asarray(low), np.asarray(high)
        share = np.full(low.shape, 1 / low.size) if weights is None else weights
        width = np.full(low.shape, np.inf)
        np.subtract(high, low, out=width, where=np.isfinite(low) & np.isfinite(high))
        return cls(float((share * (low > truth)).sum()), float((share * (high < truth)).sum()), float(np.median(width)))

    @classmethod
    def drawn(cls, draw: Draw, truth: float, repetitions: int, seed: int = 0) -> "Record":
        """Return the record of an estimator over so many data sets."""
        generator = np.random.default_rng(seed)
        found = [draw(generator) for _ in range(repetitions)]
        return cls.of(np.array([one.low for one in found]), np.array([one.high for one in found]), truth)

    @classmethod
    def of_test(cls, p: Floats, level: float = 0.05) -> "Record":
        """Return the record of p-values where nothing is to be found: a rejection is a miss, half on either side."""
        rejected = float((np.asarray(p) <= level).mean())
        return cls(rejected / 2, rejected / 2)


@dataclass(frozen=True, slots=True)
class Gate:
    """What a record must show at so many repetitions."""

    repetitions: int
    least: float
    most: float
    least_per_side: float
    most_per_side: float

    @classmethod
    def reduced(cls, repetitions: int) -> "Gate":
        """Return the gate of few repetitions: [.92, .98] and .4 to 5.5 % at 500, wider by the root of the rest."""
        noise = sqrt(500 / repetitions)
        most = min(0.95 + 0.03 * noise, 1.0)
        return cls(repetitions, 0.95 - 0.03 * noise, most, max(0.01 - 0.006 * noise, 0.0), 0.04 + 0.015 * noise)

    def refuses(self, record: Record, conservative: bool = False, lopsided: float = 0.0) -> list[str]:
        """Return the reasons; none is a pass.

        conservative  it may cover more than the band, and miss less than the least
        lopsided      so much may lie on one side in the full form, and nothing on the other
        """
        most = max(self.most_per_side, lopsided + self.most_per_side - FULL.most_per_side)
        least = 0.0 if conservative or lopsided else self.least_per_side
        reasons = []
        if record.coverage < self.least:
            reasons.append(f"covers {record.coverage:.3f} < {self.least:.3f}")
        if record.coverage > self.most and not conservative:
            reasons.append(f"covers {record.coverage:.3f} > {self.most:.3f}")
        for side, share in (("above", record.above), ("below", record.below)):
            if not least <= share <= most:
                reasons.append(f"lies {side} the truth in {share:.4f}, not in {least:.3f} to {most:.3f}")
        return reasons

    def verdict(self, record: Record) -> str:
        """Return what is said of a record that passes, by itself or because more was allowed to it."""
        if not self.refuses(record):
            return "covers"
        return "lopsided" if max(record.above, record.below) > self.most_per_side else "conservative"


FULL = Gate(2000, 0.93, 0.97, 0.01, 0.04)
EXACT = replace(FULL, repetitions=0)  # enumerated, not simulated


@dataclass(frozen=True, slots=True)
class Judge:
    """Holds records against the gate of this session, and keeps what they showed for docs/statistics.md."""

    gate: Gate
    tell: Callable[[str, object], None]

    @property
    def repetitions(self) -> int:
        return self.gate.repetitions

    @property
    def is_full(self) -> bool:
        return self.gate == FULL

    def few(self, repetitions: int) -> "Judge":
        """Return the judge of cells that are dear: so many repetitions in CI, all of them in the full form."""
        return self if self.is_full else Judge(Gate.reduced(repetitions), self.tell)

    def exactly(self) -> "Judge":
        """Return the judge of cells that are enumerated."""
        return Judge(EXACT, self.tell)

    def passes(
        self,
        estimator: str,
        design: str,
        n: object,
        record: Record,
        conservative: bool = False,
        lopsided: float = 0.0,
        most_width: float = np.inf,
    ) -> None:
        """Assert that the gate lets the record through, and that it does not cover by being wide."""
        self.keep(estimator, design, n, record, self.gate.verdict(record))
        refused = self.gate.refuses(record, conservative, lopsided)
        assert not refused, (estimator, design, n, refused)
        assert record.width <= most_width, (estimator, design, n, f"is {record.width:.3g} wide")

    def fails(self, estimator: str, design: str, n: object, record: Record) -> None:
        """Assert that the gate refuses the record: an expected failure, which proves that the gate has teeth."""
        self.keep(estimator, design, n, record, "fails, as expected")
        assert self.gate.refuses(record), (estimator, design, n, record)

    def keep(self, estimator: str, design: str, n: object, record: Record, verdict: str) -> None:
        """Put a record into the table, whatever it shows."""
        shares = [record.coverage, record.above, record.below]
        self.tell("cell", json.dumps([estimator, design, str(n), *shares, self.repetitions, verdict]))
