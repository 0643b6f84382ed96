"""Breakthroughs of clusters of tokens that a mean loss does not show, run by run; and are the clusters of one kind?

The mean loss is flat from the first step on from which it stays within a twentieth of its whole fall of its end. A
cluster's curve has a hidden breakthrough where its break (`breaks.py`, falling) lies after that step and there is a
breakthrough at all. In POLCA (arXiv 2506.15872, eq. 10) the first alone decides, with the mean over tokens of their
breaks, which lies in the middle of training for curves of pure noise. Projected losses are running sums, and a sigmoid
fits most running sums of noise better than a line does (`breakthrough` is made for other curves); so there is one where
the largest acceleration is larger than with the curve's own changes in another order, at 5 % over all clusters.

How pure clusters are is the largest share that tokens of one kind have in any cluster. It is large by chance where
clusters are small and many, so beside it stands what it is when kinds are dealt anew among the tokens of each place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.breaks import break_of, resampled

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]
Counts = NDArray[np.int64]
FLAT = 0.05  # of the whole fall of the mean loss
_LEVEL = 0.05
_ORDERS, _ORDERS_EACH = 999, 40  # at least so many orders of changes, and so many for each cluster of the run
_TRIVIAL = 0.15  # of a cluster's tokens of the kind, from the last place: more, and the cluster is left out


@dataclass(frozen=True, slots=True)
class Found:
    """Clusters of tokens by the curves of one kind: along one direction, or of the loss itself.

    curves  [cluster, step], mean over the tokens of each
    kind    [cluster, place] how many of its tokens are of the kind; others: how many are not
    kept    [place] how many of the kind were clustered at all, noise among them; kept_others: of the others
    """

    curves: Floats
    kind: Counts
    others: Counts
    kept: Counts
    kept_others: Counts


@dataclass(frozen=True, slots=True)
class Late:
    """Clusters of one run with their breaks.

    flat_from   the step from which the mean loss is flat
    breaks      [cluster] the step of the break of each, in the order in which they were given
    p           [cluster] how often a curve with the same changes in another order accelerates as much
    """

    flat_from: int
    breaks: Steps
    p: Floats

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """Return [cluster]: whether its breakthrough is hidden in the mean loss; Bonferroni over the clusters."""
        return (self.p * len(self.p) <= _LEVEL) & self.late

    @property
    def late(self) -> NDArray[np.bool_]:
        """Return [cluster]: whether its break lies where the mean loss is flat, a breakthrough or not."""
        return self.breaks > self.flat_from


def flat_from(steps: Steps, loss: Floats) -> int:
    """Return the first step from which a falling curve stays within a twentieth of its whole fall of its end."""
    near = np.abs(loss - loss[-1]) <= FLAT * max(float(loss.max() - loss[-1]), 0.0)
    return int(steps[len(near) - int(np.logical_and.accumulate(near[::-1]).sum())])


def late_breaks(steps: Steps, loss: Floats, found: Sequence[Found], window: int, rng: np.random.Generator) -> Late:
    """Return where clusters break beside a mean loss [step]; window: D of the break statistic, in steps."""
    every = int(np.diff(steps).min())
    curves = [resampled(steps, curve, every) for one in found for curve in one.curves]
    breaks = [break_of(*curve, window, 1, "down") for curve in curves]
    orders = max(_ORDERS, _ORDERS_EACH * len(curves))
    p = [
        _as_steep(one.acceleration, np.diff(curve), window // every, rng, orders)
        if curve[-1] < curve[grid == one.step][0]
        else 1.0  # what ends a rise accelerates downwards, too
        for one, (grid, curve) in zip(breaks, curves, strict=True)
    ]
    return Late(flat_from(steps, loss), np.array([one.step for one in breaks], np.int64), np.array(p))


def _as_steep(found: float, changes: Floats, probes: int, rng: np.random.Generator, orders: int) -> float:
    """Return the permutation p of an acceleration downwards over a window of so many probes."""
    mixed = rng.permuted(np.tile(-changes, (orders, 1)), axis=1)
    curves = np.concatenate([np.zeros((orders, 1)), np.cumsum(mixed, axis=1)], axis=1)
    most = (curves[:, 2 * probes :] - 2 * curves[:, probes:-probes] + curves[:, : -2 * probes]).max(axis=1)
    return (1 + int((most >= found - 1e-12 * np.abs(changes).sum()).sum())) / (1 + orders)


def purity(found: Sequence[Found]) -> float:
    """Return the largest share that the kind has in a cluster; 0 without one that counts.

    A cluster counts whose tokens of the kind are not trivially so: at most 15 % of them stand at the last place.
    """
    return max((float(_shares(one.kind, one.others)[0].max(initial=0.0)) for one in found), default=0.0)


def purity_by_chance(found: Sequence[Found], rng: np.random.Generator, draws: int) -> Floats:
    """Return `purity` [draw] where the kind is dealt anew among the clustered tokens of each place.

    Directions are dealt one by one, although they have tokens in common.
    """
    most = np.zeros(draws)
    for one in found:
        if not len(one.curves):
            continue
        kind = np.stack([_dealt(one, place, rng, draws) for place in range(len(one.kept))], axis=-1)
        others = (one.kind + one.others) - kind
        most = np.maximum(most, _shares(kind, others).max(axis=-1))
    return most


def _dealt(one: Found, place: int, rng: np.random.Generator, draws: int) -> Counts:
    """Return how many of the kind each cluster is dealt at a place [draw, cluster]."""
    sizes = one.kind[:, place] + one.others[:, place]
    rest = one.kept[place] + one.kept_others[place] - sizes.sum()
    dealt = rng.multivariate_hypergeometric([*sizes.tolist(), int(rest)], int(one.kept[place]), size=draws)
    return np.asarray(dealt[:, :-1], np.int64)


def _shares(kind: Counts, others: Counts) -> Floats:
    """Return the share of the kind in clusters [draw, cluster] of counts [(draw,) cluster, place]; 0 if none counts."""
    if not kind.shape[-1]:  # tokens of this task are of no kind
        return np.zeros((1, len(kind)))
    kind, others = (counts if counts.ndim == 3 else counts[None] for counts in (kind, others))
    total = kind.sum(axis=2)
    share = total / np.maximum(total + others.sum(axis=2), 1)
    return np.asarray(np.where(kind[:, :, -1] <= _TRIVIAL * total, share, 0.0), np.float64)


def places_and_kinds(groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the places and the kinds in groups named PLACE.KIND, each sorted."""
    parted = [group.rpartition(".") for group in groups]
    return sorted({place for place, _, _ in parted}), sorted({kind for _, _, kind in parted})


def table_of(counts: Mapping[str, int], places: Sequence[str], kinds: Sequence[str]) -> Counts:
    """Return [place]: how many tokens of a group PLACE.KIND there are, summed over the kinds."""
    return np.array([sum(counts.get(f"{place}.{kind}", 0) for kind in kinds) for place in places], np.int64)
