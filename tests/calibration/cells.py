"""The gate: does an interval cover as often as it says, and does it miss on both sides?

A cell is one situation (n, P, how seeds depend, how it was stopped). Simulated cells pass at 2,000 repetitions if
coverage is in [.93, .97]; a method of true coverage .95 passes with .99996, one of .91 with .0007. In CI 500
repetitions and [.92, .98]. Each side misses at most .04 (.055 at 500); a cell may be declared conservative, and then
must not be so by being wide: its median width is looked at.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Record:
    """How often an interval began above the truth, ended below it, and how wide it was."""

    above: float
    below: float
    width: float

    @property
    def coverage(self) -> float:
        return 1 - self.above - self.below

    @classmethod
    def of(cls, low: Floats, high: Floats, truth: Floats | float, weights: Floats | None = None) -> "Record":
        """Return the record of intervals [repetition], each of weight 1/repetitions or of exact probability."""
        low, high = np.asarray(low), np.asarray(high)
        share = np.full(low.shape, 1 / low.size) if weights is None else weights
        width = np.where(np.isfinite(high - low), high - low, np.inf)
        return cls(float((share * (low > truth)).sum()), float((share * (high < truth)).sum()), float(np.median(width)))


@dataclass(frozen=True, slots=True)
class Gate:
    """What a record must show."""

    repetitions: int
    least: float
    most: float
    most_per_side: float

    def refuses(self, record: Record, conservative: bool = False, most_width: float = np.inf) -> list[str]:
        """Return the reasons; none is a pass. `conservative` waives the upper end of the band, and nothing else."""
        reasons = []
        if record.coverage < self.least:
            reasons.append(f"covers {record.coverage:.3f} < {self.least}")
        if record.coverage > self.most and not conservative:
            reasons.append(f"covers {record.coverage:.3f} > {self.most}")
        for side, share in (("above", record.above), ("below", record.below)):
            if share > self.most_per_side:
                reasons.append(f"lies {side} the truth {share:.3f} > {self.most_per_side}")
        if record.width > most_width:
            reasons.append(f"is {record.width:.3g} wide > {most_width}")
        return reasons


FULL = Gate(2000, 0.93, 0.97, 0.04)
REDUCED = Gate(500, 0.92, 0.98, 0.055)
EXACT = Gate(0, 0.93, 0.97, 0.04)  # averages over P that are enumerated, not simulated
