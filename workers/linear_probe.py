"""Is a label to be read off a representation by a linear map? Beside it a control task, and how selective that is.

A probe is multinomial logistic regression (L2, converged) from what a layer makes at a place to the label there, in
float64: fitted on every other item of a held-out set, right or wrong on the rest. In the control task (Hewitt & Liang
2019, arXiv 1909.03368) the same probe learns labels that were drawn, for each type, from the labels' own frequencies:
what it gets right there it has learned by heart. Selectivity is the accuracy less that of the control. A type is the
token at the place; where fewer tokens than labels stand there (a separator before the answer), all up to that place.
Control labels come from the evaluation seed: all runs of a study learn the same ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Mean, Score, Trees
from workers.determinism import one_thread

Integers = NDArray[np.int64]
PENALTY = 1e-3  # half of it times the squared weights is added to the mean cross-entropy
MOST_CLASSES = 64
LOOKED_AT = 256  # items of a set, from the first on
_FEWEST = 20  # places on either side
_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class Places:
    """The places of a set at which a label is known, those of even items to learn from, the others to be asked.

    items, at  [place] which item, and which position in it
    classes    [place] the label, from 0 on
    control    [place] the label of the control task
    """

    items: Integers
    at: Integers
    classes: Integers
    control: Integers

    def of(self, chosen: NDArray[np.bool_]) -> "Places":
        """Return those of the places."""
        return Places(self.items[chosen], self.at[chosen], self.classes[chosen], self.control[chosen])

    @property
    def learns(self) -> NDArray[np.bool_]:
        """Return [place]: whether a probe learns from it."""
        return np.asarray(self.items % 2 == 0)


def first_items(batch: Batch, count: int) -> Batch:
    """Return the first items of a batch."""
    trees = batch.trees and Trees(batch.trees.heads[:count], batch.trees.relations[:count])
    return Batch(batch.inputs[:count], batch.targets[:count], trees)


def checked_labels(labels: dict[str, Integers], batch: Batch) -> dict[str, Integers]:
    """Return the labels as a task gave them; raises ValueError for what is no class at each position."""
    for name, one in labels.items():
        if np.shape(one) != batch.inputs.shape or not np.issubdtype(np.asarray(one).dtype, np.integer):
            raise ValueError(f"labels {name!r} are integers {list(batch.inputs.shape)}, not {np.shape(one)}")
    return labels


def places_of(inputs: Integers, labels: Integers, generator: np.random.Generator) -> Places:
    """Return where labels [item, length] are not IGNORE; `generator` draws the control task."""
    items, at = np.nonzero(labels != IGNORE)
    names, classes = np.unique(labels[items, at], return_inverse=True)
    types = inputs[items, at]
    if len(np.unique(types)) < len(names):
        before = np.where(np.arange(inputs.shape[1]) <= at[:, None], inputs[items], -1)
        types = np.unique(np.concatenate([before, at[:, None]], axis=1), axis=0, return_inverse=True)[1].reshape(-1)
    drawn = generator.integers(0, max(1, len(classes)), size=int(types.max(initial=0)) + 1)
    return Places(items, at, classes, classes[drawn][types] if len(classes) else classes)


def probe_measures(
    name: str, batch: Batch, labels: dict[str, Integers], layers: Sequence[Tensor], streams: Streams
) -> list[Score | Mean]:
    """Return `NAME.probe.LABEL.LAYER`, `.control.` and `.selectivity.`, and `NAME.majority.LABEL`, of one run.

    layers: [row, width] of the batch: of each item the last positions, as many as there are rows. A label with one
    class, with more than MOST_CLASSES, or with fewer than 20 places on either side of a layer is left out.
    """
    found: list[Score | Mean] = []
    items, length = batch.inputs.shape
    for label in sorted(labels):
        everywhere = places_of(batch.inputs, labels[label], streams.evaluation(f"control/{name}/{label}"))
        if not 2 <= int(everywhere.classes.max(initial=0)) + 1 <= MOST_CLASSES:
            continue
        for number, layer in enumerate(layers):
            positions = len(layer) // items
            there = everywhere.of(everywhere.at >= length - positions)
            if min(there.learns.sum(), (~there.learns).sum()) < _FEWEST:
                continue
            features = layer[torch.from_numpy(there.items * positions + there.at - (length - positions))]
            asked = int((~there.learns).sum())
            right, by_heart = (accuracy(features, one, there.learns) for one in (there.classes, there.control))
            found += [
                Score(f"{name}.probe.{label}.{number}", right, asked),
                Score(f"{name}.control.{label}.{number}", by_heart, asked),
                Mean(f"{name}.selectivity.{label}.{number}", (right - by_heart) / asked),
            ]
            if number == 0:
                commonest = np.bincount(there.classes[there.learns]).argmax()
                majority = int((there.classes[~there.learns] == commonest).sum())
                found.append(Score(f"{name}.majority.{label}", majority, asked))
    return found


def accuracy(features: Tensor, classes: Integers, learns: NDArray[np.bool_]) -> int:
    """Return how many of the others are right after fitting on those that `learns` [place]; features [place, width]."""
    with one_thread():
        x, y, mine = features.detach().cpu().double(), torch.from_numpy(classes), torch.from_numpy(learns)
        x = x - x[mine].mean(0)
        spread = x[mine].square().mean(0).sqrt()
        x = x / torch.where(spread > 0, spread, torch.ones_like(spread))
        weights, bias = fitted(x[mine], y[mine], int(classes.max()) + 1)
        predicted = (x[~mine] @ weights + bias).argmax(1)
        return int((predicted == y[~mine]).sum())


def fitted(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return weights [width, class] and biases [class] of the penalised logistic regression, by L-BFGS from zero."""
    weights = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weights, bias], max_iter=_ITERATIONS, tolerance_grad=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ weights + bias, y) + PENALTY / 2 * weights.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    return weights.detach(), bias.detach()
