"""One seed per factor becomes one independent stream per purpose.

A stream is keyed by (seed, purpose, index), never by the order of calls: adding a purpose, drawing
more numbers for one, or resuming at step 10,000 shifts no other stream. There is no state to save.

Not here: the design that says which seeds a study uses (`study.py`).
"""

import hashlib
from dataclasses import asdict, dataclass

import numpy as np

PURPOSES = ("init", "data", "dropout", "evaluation")


@dataclass(frozen=True, slots=True, order=True)
class Seeds:
    """The seeds of one run: four separate numbers, because chance has four sources.

    init        initial weights
    data        which samples, in which order
    dropout     which units are dropped
    evaluation  the held-out sets (and what is held out of training); the same for all runs of a study
    """

    init: int
    data: int
    dropout: int
    evaluation: int

    def as_dict(self) -> dict[str, int]:
        """Return the seeds by name."""
        return asdict(self)


def purpose_key(purpose: str) -> int:
    """Return the 64-bit key of a purpose: a hash of its name, so that no purpose shifts another."""
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """Return the generator for `purpose` of `seed`, at `index` (a step, a layer; 0 where there is one).

    Source: `numpy.random.SeedSequence` with a spawn key (M. O'Neill's seed_seq mixing).
    """
    sequence = np.random.SeedSequence(entropy=seed, spawn_key=(purpose_key(purpose), index))
    return np.random.Generator(np.random.PCG64(sequence))


@dataclass(frozen=True, slots=True)
class Streams:
    """Every stream of randomness that one run may draw from."""

    seeds: Seeds

    def init(self, name: str) -> np.random.Generator:
        """Return the stream that draws the initial values of the parameter called `name`."""
        return stream(self.seeds.init, f"init/{name}")

    def data(self, step: int) -> np.random.Generator:
        """Return the stream that draws training batch number `step`."""
        return stream(self.seeds.data, "data", step)

    def masking(self, step: int) -> np.random.Generator:
        """Return the stream that says which tokens of training batch number `step` are hidden."""
        return stream(self.seeds.data, "masking", step)

    def dropout(self, step: int, first: int = 0) -> np.random.Generator:
        """Return the stream that draws the dropout masks of `step` for the part of the batch from row `first` on."""
        return stream(self.seeds.dropout, f"dropout/{first}" if first else "dropout", step)

    def noise(self, step: int) -> np.random.Generator:
        """Return the stream that draws the noise on the embeddings by which a trust region is measured at `step`."""
        return stream(self.seeds.dropout, "noise", step)

    def evaluation(self, name: str = "") -> np.random.Generator:
        """Return the stream that draws the held-out set called `name`."""
        return stream(self.seeds.evaluation, f"evaluation/{name}")
