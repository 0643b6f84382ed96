"""Groups of points that are denser than what lies around them: HDBSCAN (Campello, Moulavi & Sander 2013).

Distances are stretched to at least the distance to the n-th neighbour of either end; single linkage of those is cut not
at one height, but where groups live longest (excess of mass). Points that belong to no group are noise. The same points
in the same order have the same groups: nothing is drawn.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist, squareform

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
NOISE = -1


@dataclass(slots=True)
class _Group:
    """A group in the condensed tree: of which it is a part, at which density it begins, and who leaves it.

    density  1 / distance; mass: the sum over its points of how much denser they are until they leave it
    """

    parent: int
    density: float
    mass: float = 0.0
    points: list[int] = field(default_factory=list)


def density_clusters(points: Floats, smallest: int, neighbours: int) -> Labels:
    """Return the group of each point [point], from 0 on by its first point, or NOISE; points: [point, axis].

    smallest    the fewest points of a group, 2 or more
    neighbours  the distance to which makes a point's surroundings dense; itself is the first
    """
    if smallest < 2 or neighbours < 1:
        raise ValueError("a group has 2 points or more, and a point is its own first neighbour")
    if len(points) < smallest:
        return np.full(len(points), NOISE, np.int64)
    apart = squareform(pdist(points))
    place = min(neighbours, len(points)) - 1
    core = np.partition(apart, place, axis=1)[:, place]
    reach = np.maximum(apart, np.maximum(core[:, None], core))
    np.fill_diagonal(reach, 0.0)
    return _labels(_condensed(linkage(squareform(reach, checks=False), "single"), smallest), len(points))


def _condensed(tree: Floats, smallest: int) -> list[_Group]:
    """Return the groups of a dendrogram [merge, 4], parts after what they are parts of; the first is all points."""
    count = len(tree) + 1
    least = max(1e-12 * float(tree[-1, 2]), 1e-300)  # two points at one place are not infinitely dense
    groups, open_nodes = [_Group(-1, 0.0)], [(2 * count - 2, 0)]
    while open_nodes:
        node, mine = open_nodes.pop()
        group = groups[mine]
        sides = [int(side) for side in tree[node - count, :2]]
        density = 1 / max(float(tree[node - count, 2]), least)
        large = [side for side in sides if _size(tree, side, count) >= smallest]
        for side in sides:
            if side in large and len(large) == 1:
                open_nodes.append((side, mine))
                continue
            group.mass += (density - group.density) * _size(tree, side, count)
            if side in large:
                groups.append(_Group(mine, density))
                open_nodes.append((side, len(groups) - 1))
            else:
                group.points += _leaves(tree, side, count)
    return groups


def _labels(groups: list[_Group], points: int) -> Labels:
    best, chosen = [0.0] * len(groups), [False] * len(groups)
    below = [0.0] * len(groups)
    for number in range(len(groups) - 1, 0, -1):
        chosen[number] = groups[number].mass >= below[number]
        best[number] = max(groups[number].mass, below[number])
        below[groups[number].parent] += best[number]
    found = np.full(points, NOISE, np.int64)
    of = [NOISE] * len(groups)
    for number, group in enumerate(groups[1:], 1):
        above = of[group.parent]
        of[number] = above if above != NOISE else number if chosen[number] else NOISE
        found[group.points] = of[number]
    named = {old: new for new, old in enumerate(dict.fromkeys(found[found != NOISE].tolist()))}
    return np.array([named.get(old, NOISE) for old in found.tolist()], np.int64)


def _size(tree: Floats, node: int, count: int) -> int:
    return 1 if node < count else int(tree[node - count, 3])


def _leaves(tree: Floats, node: int, count: int) -> list[int]:
    found, left = [], [node]
    while left:
        one = left.pop()
        if one < count:
            found.append(one)
        else:
            left += [int(side) for side in tree[one - count, :2]]
    return sorted(found)
