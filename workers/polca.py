"""The change of a run's loss taken apart along directions of its curvature, token by token (POLCA, arXiv 2506.15872).

Algorithm 1: at some steps of the run the steepest direction of the mean loss's Hessian is found, orthogonal to those
before. Then, between any two looks at the weights θ and θ', the loss of token x is said to change along b by

    <b, ∇L(x; θ)> <b, θ' - θ>  +  ½ <b, H b> <b, θ' - θ>² · <b, ∇L(x; θ') - ∇L(x; θ)> / <b, ∇L(X; θ') - ∇L(X; θ)>

the second term for `order: 2` alone: the curvature of the mean loss over all tokens X, shared out as slopes change
(eq. 4 prints the ratio with losses; their appendix C means slopes). Its sum over steps is the projected loss of x.
Over a complete basis the first terms are <∇L, θ' - θ>; over eigenvectors of H the means of both leave O(|θ' - θ|³).

Tokens whose projected loss rises are left out, the others fall into clusters, direction by direction; a direction along
which the mean rises has none. Beside them the loss itself is taken for a curve of the same kind: `loss`.

Rows (SET.polca. before each): `NN` the mean curve along a direction, `NN.GROUP` of a group of tokens, `NN.cluster_C` of
a cluster, all by step; `NN.kept.GROUP` how many of a group were not left out, `NN.cluster_C.of.GROUP` how many of a
cluster are of a group, `NN.curvature`; `captured`; `set`: the first 12 digits of the tokens' SHA-256 as a number.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs.digests import digest_of
from jobs.polca import PolcaSpec
from jobs.schedule import steps_of
from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Task
from workers.determinism import one_thread
from workers.landscape import Landscape, steepest

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Row = tuple[int, str, float, int | None, int | None]  # step, metric, value, k, m
NOISE = -1  # belongs to no cluster
_DIGITS = 12  # of the SHA-256 of the set: 48 bits, which a float64 holds exactly
_NO_CHANGE = 1e-12  # of the mean slope, beside its size: nothing can be shared out in proportion to it


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a run that has ended: its weights at any step up to `last`, and how its plain module is made."""

    weights: Callable[[int], Mapping[str, Tensor]]
    module: Callable[[], nn.Module]
    last: int


@dataclass(frozen=True, slots=True)
class Directions:
    """Orthonormal directions [direction, weight], the step at which each was found, and the curvature there.

    Random ones were found nowhere: step 0, curvature NaN.
    """

    vectors: Tensor
    steps: tuple[int, ...]
    curvatures: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Apart:
    """A run's loss, taken apart.

    losses     [step, token]
    projected  [direction, step, token]: sums of changes since the first step
    captured   [step]: which part of the squared way since the step before lies in the directions; 0 at the first
    """

    steps: tuple[int, ...]
    losses: Floats
    projected: Floats
    captured: Floats


def polca_rows(
    spec: PolcaSpec, task: Task, batch: Batch, past: Past, streams: Streams, begin: Callable[[str], None]
) -> list[Row]:
    """Return all rows of a look at one run, on the first items of its held-out set.

    begin  is told what is done next, once for each step of the run
    """
    with one_thread():
        landscape = Landscape(past.module(), batch)
        directions = directions_of(spec, landscape, past, streams, begin)
        apart = taken_apart(spec, landscape, past, directions, begin)
        return list(_rows(spec, task, batch, directions, apart))


def directions_of(
    spec: PolcaSpec, landscape: Landscape, past: Past, streams: Streams, begin: Callable[[str], None]
) -> Directions:
    """Return the directions of a run; fewer than asked for where the model has no more weights."""
    found_at = spec.found_at(past.last)
    wanted = min(spec.each * len(found_at), landscape.size)
    if spec.directions == "random":
        drawn = streams.init("polca/random").standard_normal((landscape.size, wanted))
        vectors = torch.linalg.qr(torch.from_numpy(drawn))[0].T.contiguous()
        return Directions(vectors, (0,) * wanted, (float("nan"),) * wanted)
    vectors = torch.zeros(0, landscape.size, dtype=torch.float64)
    steps: list[int] = []
    curvatures: list[float] = []
    for step in found_at:
        begin("a direction")
        count = min(spec.each, wanted - len(vectors))
        if not count:
            break
        start = torch.from_numpy(streams.evaluation(f"polca/{step}").standard_normal(landscape.size))
        product = landscape.curvature(landscape.vector(past.weights(step)))
        values, new = steepest(product, start, count, vectors)
        vectors = torch.cat([vectors, new])
        steps += [step] * len(new)
        curvatures += values.tolist()
    return Directions(vectors, tuple(steps), tuple(curvatures))


def taken_apart(
    spec: PolcaSpec, landscape: Landscape, past: Past, directions: Directions, begin: Callable[[str], None]
) -> Apart:
    """Return a run's loss taken apart along directions."""
    steps, vectors = steps_of(spec.steps, past.last), directions.vectors
    losses, captured = [], [0.0]
    projected: list[Floats] = []
    before: tuple[Tensor, Tensor, Tensor] | None = None  # weights, slopes, curvatures
    for step in steps:
        begin("a change")
        at = landscape.vector(past.weights(step))
        with torch.no_grad():
            losses.append(landscape.losses(at).numpy())
        slopes = landscape.slopes(at, vectors)
        if before is None:
            projected.append(np.zeros(slopes.shape))
        else:
            way = at - before[0]
            along = vectors @ way
            change = before[1] * along[:, None]
            if spec.order == 2:
                change = change + _bent(before[2], along, slopes - before[1])
            projected.append(projected[-1] + change.numpy())
            captured.append(float(along.square().sum() / way.square().sum().clamp(min=1e-300)))
        is_bent = spec.order == 2 and step != steps[-1]
        before = at, slopes, _curvatures(landscape, at, vectors) if is_bent else vectors.new_zeros(len(vectors))
    return Apart(steps, np.stack(losses), np.stack(projected, axis=1), np.array(captured))


def _bent(curvatures: Tensor, along: Tensor, moved: Tensor) -> Tensor:
    """Return the second term [direction, token]; moved: by how much the slopes [direction, token] changed."""
    mean = moved.mean(dim=1, keepdim=True)
    tells = mean.abs() > _NO_CHANGE * moved.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    ratio = torch.where(tells, moved / torch.where(tells, mean, torch.ones_like(mean)), torch.zeros_like(moved))
    return (curvatures / 2 * along.square())[:, None] * ratio


def _curvatures(landscape: Landscape, at: Tensor, vectors: Tensor) -> Tensor:
    product = landscape.curvature(at)
    return torch.stack([product(vector) @ vector for vector in vectors])


def _rows(spec: PolcaSpec, task: Task, batch: Batch, directions: Directions, apart: Apart) -> Iterator[Row]:
    prefix, last = f"{spec.set}.polca", apart.steps[-1]
    groups = task.groups(batch)[batch.targets != IGNORE]
    named = {name: groups == place for place, name in enumerate(task.token_groups)}
    named = {name: mine for name, mine in named.items() if mine.any()}
    name_of_set = digest_of({"inputs": batch.inputs, "targets": batch.targets})[:_DIGITS]
    yield last, f"{prefix}.set", float(int(name_of_set, 16)), None, None
    yield from _curve(f"{prefix}.captured", apart.steps, apart.captured)
    for number, (step, curvature) in enumerate(zip(directions.steps, directions.curvatures, strict=True)):
        if curvature == curvature:
            yield step, f"{prefix}.{number:02d}.curvature", curvature, None, None
    curves = {f"{number:02d}": one for number, one in enumerate(apart.projected)} | {"loss": apart.losses}
    for label, one in curves.items():
        yield from _of_curves(f"{prefix}.{label}", spec, apart.steps, one, named)


def _of_curves(
    name: str, spec: PolcaSpec, steps: tuple[int, ...], curves: Floats, named: Mapping[str, NDArray[np.bool_]]
) -> Iterator[Row]:
    """Yield what is said of the curves [step, token] of one kind: means, which tokens are kept, clusters of those."""
    last = steps[-1]
    yield from _curve(name, steps, curves.mean(axis=1))
    for group, mine in named.items():
        yield from _curve(f"{name}.{group}", steps, curves[:, mine].mean(axis=1))
    if curves[-1].mean() >= curves[0].mean():
        return
    kept = np.flatnonzero(curves[-1] < curves[0])
    for group, mine in named.items():
        yield last, f"{name}.kept.{group}", float(mine[kept].sum() / mine.sum()), int(mine[kept].sum()), int(mine.sum())
    smallest = max(2, round(spec.smallest * curves.shape[1]))
    labels = density_clusters(curves[:, kept].T, smallest, max(1, int(spec.neighbours * len(kept))))
    for number in range(labels.max(initial=-1) + 1):
        members = kept[labels == number]
        yield from _curve(f"{name}.cluster_{number}", steps, curves[:, members].mean(axis=1))
        for group, mine in named.items():
            count, size = int(mine[members].sum()), len(members)
            yield last, f"{name}.cluster_{number}.of.{group}", count / size, count, size


def _curve(name: str, steps: tuple[int, ...], values: Floats) -> Iterator[Row]:
    yield from ((step, name, value, None, None) for step, value in zip(steps, values.tolist(), strict=True))


def density_clusters(points: Floats, smallest: int, neighbours: int) -> Labels:
    """Return the cluster of each point [point], from 0 on by its first point, or NOISE; points: [point, axis].

    Clusters are denser than what lies around them, whatever their own density: HDBSCAN (Campello, Moulavi & Sander
    2013) of scikit-learn, cut where clusters live longest (excess of mass). Nothing is drawn.

    smallest    the fewest points of a cluster, 2 or more
    neighbours  the distance to which makes a point's surroundings dense; itself is the first
    """
    from sklearn.cluster import HDBSCAN  # a second to import, which no other probe should wait for

    if len(points) < smallest:
        return np.full(len(points), NOISE, np.int64)
    # The tree measures each distance by itself: by products, as "brute" does, near points lose their digits.
    found = HDBSCAN(smallest, min_samples=min(neighbours, len(points)), algorithm="kd_tree", copy=True)
    labels = found.fit(points).labels_
    named = {old: new for new, old in enumerate(dict.fromkeys(labels[labels != NOISE].tolist()))}
    return np.array([named.get(old, NOISE) for old in labels.tolist()], np.int64)
