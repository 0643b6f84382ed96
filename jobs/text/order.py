"""The order of samples as a pure function: a permutation that is computed where it is asked for.

A Feistel network over the next power of four, walked until it lands inside (Black & Rogaway 2002, "Ciphers with
arbitrary finite domains"): no table, no state, and an inverse that tells when a sequence is shown.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from jobs.seeds import stream

Places = NDArray[np.int64]
_ROUNDS = 8
_BLOCK = 4096  # positions that are computed together: 64 alone would cost a third of 4,096
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, slots=True)
class Shuffle:
    """A permutation of range(size).

    keys  one 64-bit key a round
    """

    size: int
    keys: tuple[int, ...]

    def __call__(self, places: Places) -> Places:
        """Return what stands at these places, int64 of the same shape."""
        return self._walk(places, self.keys, forward=True)

    def inverse(self, items: Places) -> Places:
        """Return the places at which these items stand."""
        return self._walk(items, self.keys[::-1], forward=False)

    def _walk(self, values: Places, keys: tuple[int, ...], *, forward: bool) -> Places:
        if values.size and not (values.min() >= 0 and values.max() < self.size):
            raise IndexError(f"a place outside of 0 to {self.size - 1}")
        found = values.astype(np.uint64).ravel()
        outside = np.ones(found.shape, np.bool_)
        while outside.any():
            found[outside] = self._network(found[outside], keys, forward=forward)
            outside = found >= np.uint64(self.size)
        return found.astype(np.int64).reshape(values.shape)

    def _network(self, values: NDArray[np.uint64], keys: tuple[int, ...], *, forward: bool) -> NDArray[np.uint64]:
        half = np.uint64(max(1, ((self.size - 1).bit_length() + 1) // 2))
        mask = (np.uint64(1) << half) - np.uint64(1)
        left, right = values >> half, values & mask
        for key in keys:
            if forward:
                left, right = right, left ^ (_mixed(right, key) & mask)
            else:
                left, right = right ^ (_mixed(left, key) & mask), left
        return (left << half) | right


def _mixed(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Return 64 well mixed bits for each value (the finaliser of splitmix64, Steele et al. 2014)."""
    mixed = values + np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return mixed ^ (mixed >> np.uint64(31))


# A pure function of its arguments: the cache saves drawing eight numbers for every batch and changes nothing.
@lru_cache(maxsize=256)
def shuffle(seed: int, purpose: str, epoch: int, size: int) -> Shuffle:
    """Return the permutation of range(size) that `seed` draws for `purpose` in this epoch."""
    drawn = stream(seed, purpose, epoch).integers(0, 2**64, size=_ROUNDS, dtype=np.uint64)
    return Shuffle(size, tuple(int(key) for key in drawn))


@dataclass(frozen=True, slots=True)
class Order:
    """Epoch after epoch, each in an order of its own; the first `held_out` of range(size) are never shown.

    Which those are is drawn from the evaluation seed: they are the same for all runs of a study.
    """

    size: int
    held_out: int
    data: int
    evaluation: int
    purpose: str

    @property
    def shown(self) -> int:
        """Return how many sequences an epoch has."""
        return self.size - self.held_out

    def at(self, positions: Places) -> Places:
        """Return the sequences at these positions (samples since step 0), int64 of the same shape."""
        epochs, places = np.divmod(positions, self.shown)
        found = np.empty_like(places)
        for epoch in np.unique(epochs):
            there = epochs == epoch
            found[there] = self._epoch(int(epoch))(places[there])
        return self._split()(found + self.held_out)

    def span(self, start: int, stop: int) -> Places:
        """Return the sequences at positions `start` up to `stop`, which batch after batch asks for."""
        blocks = [_block(self, number) for number in range(start // _BLOCK, -(-stop // _BLOCK))]
        first = start // _BLOCK * _BLOCK
        return np.concatenate(blocks)[start - first : stop - first] if blocks else np.empty(0, np.int64)

    def never_shown(self, count: int) -> Places:
        """Return the first `count` of the sequences that are held out."""
        return self._split()(np.arange(count))

    def always_shown(self, count: int) -> Places:
        """Return the first `count` of the sequences that every epoch shows; the same for all runs of a study."""
        return self._split()(np.arange(self.held_out, self.held_out + count))

    def exposures(self, sequences: Places, samples: int) -> Places:
        """Return how often each sequence is among the first `samples` of this order."""
        epochs, rest = divmod(samples, self.shown)
        places = self._split().inverse(sequences) - self.held_out
        shown = places >= 0
        found = np.zeros(sequences.shape, np.int64)
        found[shown] = epochs + (self._epoch(epochs).inverse(places[shown]) < rest)
        return found

    def _epoch(self, epoch: int) -> Shuffle:
        return shuffle(self.data, f"data/{self.purpose}", epoch, self.shown)

    def _split(self) -> Shuffle:
        return shuffle(self.evaluation, f"evaluation/{self.purpose}", 0, self.size)


# A pure function of its arguments, 32 KB each: the cache saves a batch from paying for its neighbours.
@lru_cache(maxsize=1024)
def _block(order: Order, number: int) -> Places:
    return order.at(np.arange(number * _BLOCK, (number + 1) * _BLOCK))
