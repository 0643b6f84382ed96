"""Do the runs fall into groups? From any matrix of distances between runs: average linkage, and a test.

Every number of groups has a mean silhouette (Rousseeuw 1987), which is large by chance alone where groups are many: so
each is compared with matrices whose entries were exchanged between pairs, as z. The largest z says how many groups,
and its rank among the largest z of those matrices whether there are any. Some cut is always the best: without a small
p there is one group. (The largest raw silhouette in place of z finds two basins of 8 at a gap of 1.5 deviations in 13
of 100 tries, z in 97.) Distances may be error barriers, 1 - kappa, or between vectors of behaviour; runs from other
initialisations are not linearly connected, and barriers between them say nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import squareform

from orchestrator.estimates.estimate import FIXED, Cohort

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """The groups of a cohort.

    labels       [run], 0 for the largest group, in equal sizes for that of the earlier run
    silhouette   of the best cut; `silhouettes` of 2, 3, … groups, `excess` their z
    p            of "the distances have no groups"; above 1 - level `labels` are all 0
    best_labels  the best cut, whatever p says
    medoids      of the groups in `labels`: the run with the smallest sum of distances to its group
    """

    labels: Labels
    best_labels: Labels
    medoids: tuple[int, ...]
    silhouette: float
    silhouettes: tuple[float, ...]
    excess: tuple[float, ...]
    p: float
    permutations: int
    cohort: Cohort
    method: str = "average linkage, silhouette, permuted pairs"
    level: float = 0.95
    unit: str = "run"
    stopping_rule: str = FIXED


def clusters(
    distances: Floats,
    cohort: Cohort,
    rng: np.random.Generator,
    most: int = 6,
    permutations: int = 999,
    level: float = 0.95,
) -> Clusters:
    """Return the groups of runs from distances [run, run]: symmetric, 0 on the diagonal, none missing, 4 runs or more.

    most  the largest number of groups that is tried
    """
    pairs = _pairs(distances)
    tried = min(most, len(distances) - 1)
    cuts = _cuts(pairs, tried)
    # The observed matrix is one of the permutations: p is never 0.
    drawn = [[silhouette(distances, cut) for cut in cuts]]
    for _ in range(permutations):
        pairs_drawn = rng.permutation(pairs)
        exchanged = squareform(pairs_drawn)
        drawn.append([silhouette(exchanged, cut) for cut in _cuts(pairs_drawn, tried)])
    pool = np.array(drawn)
    spread = pool.std(axis=0)
    z = np.where(spread > 0, (pool - pool.mean(axis=0)) / np.where(spread > 0, spread, 1), 0.0)
    best = int(np.argmax(z[0]))
    largest = z.max(axis=1)
    p = float(np.mean(largest >= largest[0] - 1e-12))
    grouped = cuts[best] if p <= 1 - level + 1e-12 else np.zeros(len(distances), np.int64)
    return Clusters(
        labels=grouped,
        best_labels=cuts[best],
        medoids=medoids(distances, grouped),
        silhouette=drawn[0][best],
        silhouettes=tuple(drawn[0]),
        excess=tuple(z[0].tolist()),
        p=p,
        permutations=permutations,
        cohort=cohort,
        level=level,
    )


def silhouette(distances: Floats, labels: Labels) -> float:
    """Return the mean silhouette; a run that is alone in its group counts 0."""
    member = (labels[:, None] == np.unique(labels)).astype(float)
    sizes = member.sum(axis=0)
    sums = distances @ member
    own = member.astype(bool)
    mine = sizes[own.argmax(axis=1)]
    inside = sums[own] / np.maximum(mine - 1, 1)
    outside = np.where(own, np.inf, sums / sizes).min(axis=1)
    largest = np.maximum(inside, outside)
    with np.errstate(invalid="ignore"):
        each = np.where((mine > 1) & (largest > 0), (outside - inside) / largest, 0.0)
    return float(each.mean())


def medoids(distances: Floats, labels: Labels) -> tuple[int, ...]:
    """Return the index of each group's central run, in the order of the labels; ties go to the earlier run."""
    found = []
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        found.append(int(mine[distances[np.ix_(mine, mine)].sum(axis=1).argmin()]))
    return tuple(found)


def _pairs(distances: Floats) -> Floats:
    matrix = np.asarray(distances, float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 4:
        raise ValueError(f"distances are a square [run, run] of at least 4 runs, not {list(matrix.shape)}")
    if not np.isfinite(matrix).all() or not np.allclose(matrix, matrix.T) or np.abs(np.diagonal(matrix)).max() > 1e-9:
        raise ValueError("distances are finite, symmetric, and 0 on the diagonal")
    if matrix.min() < 0:
        raise ValueError("a distance is negative: barriers below 0 are to be set to 0")
    return np.asarray(squareform(matrix, checks=False), float)


def _cuts(pairs: Floats, most: int) -> list[Labels]:
    """Return the labels of 2 to `most` groups by average linkage."""
    cut = cut_tree(linkage(pairs, "average"), n_clusters=np.arange(2, most + 1))
    return [_renamed(column) for column in cut.T]


def _renamed(labels: Labels) -> Labels:
    """Return the labels by size of the group, then by its first run."""
    names, first, place, counts = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -counts))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    return rank[place]
