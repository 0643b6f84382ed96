"""Sequences that are shown a chosen number of times, between those of an order, which all stay shown once an epoch.

Each exposure has a place among the first samples of a run, drawn without replacement from its data seed: which sample
is planted, and how often each planted sequence was shown before any step, are pure functions. Memory holds one place
for each exposure. Carlini et al. 2019 ("The Secret Sharer") plant canaries so.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from jobs.text.order import Order, Places, shuffle


@dataclass(frozen=True, slots=True)
class PlantedOrder:
    """An order with planted sequences, which have the numbers after its own: `order.size + i`.

    counts   how often each planted sequence is shown
    samples  the exposures are among the first so many positions
    """

    order: Order
    counts: tuple[int, ...]
    samples: int

    def span(self, start: int, stop: int) -> Places:
        """Return the sequences at positions `start` up to `stop`, planted ones among them."""
        at, which = _places(self)
        first, last = (int(place) for place in np.searchsorted(at, (start, stop)))
        planted = np.zeros(stop - start, np.bool_)
        planted[at[first:last] - start] = True
        found = np.empty(stop - start, np.int64)
        found[planted] = self.order.size + which[first:last]
        found[~planted] = self.order.span(start - first, stop - last)
        return found

    def exposures(self, sequences: Places, samples: int) -> Places:
        """Return how often each of the order's own sequences is among the first `samples`."""
        return self.order.exposures(sequences, samples - self._before(samples))

    def planted_exposures(self, samples: int) -> Places:
        """Return how often each planted sequence is among the first `samples`, int64 [planted]."""
        return np.bincount(_places(self)[1][: self._before(samples)], minlength=len(self.counts))

    def _before(self, samples: int) -> int:
        return int(np.searchsorted(_places(self)[0], samples))


# A pure function of its arguments, 16 bytes for each exposure: the cache saves a batch from sorting all of them.
@lru_cache(maxsize=64)
def _places(planted: PlantedOrder) -> tuple[Places, Places]:
    """Return the positions of all exposures, ascending, and which planted sequence is at each."""
    total = sum(planted.counts)
    if total > planted.samples:
        raise ValueError(f"{total:,} planted exposures do not fit into {planted.samples:,} samples")
    if not total:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    draw = shuffle(planted.order.data, f"data/{planted.order.purpose}/planted", 0, planted.samples)
    at = draw(np.arange(total))
    ascending = np.argsort(at)
    return at[ascending], np.repeat(np.arange(len(planted.counts)), planted.counts)[ascending]
