"""Is the tree of a sentence to be read off a representation as distances? Beside it a control task.

A structural probe (Hewitt & Manning 2019, "A structural probe for finding syntax in word representations") is a
matrix B such that |B(h - g)|² is the number of edges between two words whose representations are h and g: fitted on
every other sentence by the mean absolute error, each sentence's pairs weighing the same, and asked on the rest. Of
the words' distances a minimum spanning tree is drawn, and its edges counted that are in the tree (UUAS, undirected
and unlabelled). In the control task the probe learns distances that follow from the words alone: those of the tokens
in one random tree of the whole vocabulary. What it gets right there it has learned by heart; as a tree of types says
nothing of one sentence, rank correlations are compared. It comes from the evaluation seed: all runs of a study learn
the same one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import rankdata
from torch import Tensor

from jobs.seeds import Streams
from jobs.tasks.task import Batch, Mean, Score, Trees
from workers.determinism import one_thread

MOST_RANK = 64  # of B; more has not been found to help (Hewitt & Manning 2019, figure 5)
_FEWEST = 20  # sentences on either side
_SHORTEST = 5  # words of a sentence whose correlations count
_ITERATIONS = 200
_BEND = 0.01  # edges: below it the absolute error is round, so that there is a slope
Integers = NDArray[np.int64]


def structure_measures(
    name: str, batch: Batch, layers: Sequence[Tensor], streams: Streams, tokens: int
) -> list[Score | Mean]:
    """Return `NAME.structure.LAYER`: how many edges are right, and Spearman's correlations of distances.

    Those are `.structure_spearman.`, `.structure_control.` of the control task, and `.structure_selectivity.`, their
    difference. Beside them `NAME.chain`: edges that are found by joining neighbours. A layer that does not show every
    position is left out, and all is with fewer than 20 sentences on either side.

    layers: [row, width] of the batch, a row for each position; tokens: how many the vocabulary has
    """
    items, length = batch.inputs.shape
    if batch.trees is None or items < 2 * _FEWEST:
        return []
    heads, asked = batch.trees.heads, np.arange(items) % 2 == 1
    types = random_tree(tokens, streams.evaluation(f"control/{name}/structure")).distances()[0]
    true, drawn = batch.trees.distances(), types[batch.inputs[:, :, None], batch.inputs[:, None, :]]
    edges = [edges_of(one) for one in heads[asked]]
    wanted = sum(map(len, edges))
    joined = sum(len(edges_of(_chain(one)) & those) for one, those in zip(heads[asked], edges, strict=True))
    found: list[Score | Mean] = [Score(f"{name}.chain", joined, wanted)]
    for number, layer in enumerate(layers):
        if len(layer) != items * length:
            continue
        values, is_word = layer.detach().cpu().double().view(items, length, -1), heads >= 0
        told = read(values, true, is_word, asked)
        right = sum(
            len(_spanned(one, np.flatnonzero(w)) & e) for one, w, e in zip(told, is_word[asked], edges, strict=True)
        )
        knows = correlation(told, true[asked], is_word[asked])
        by_heart = correlation(read(values, drawn, is_word, asked), drawn[asked], is_word[asked])
        found += [
            Score(f"{name}.structure.{number}", right, wanted),
            Mean(f"{name}.structure_spearman.{number}", knows),
            Mean(f"{name}.structure_control.{number}", by_heart),
            Mean(f"{name}.structure_selectivity.{number}", knows - by_heart),
        ]
    return found


def random_tree(count: int, generator: np.random.Generator) -> Trees:
    """Return one tree [1, count] that grew place by place, in a random order, each upon any of those before."""
    order = generator.permutation(count)
    heads = np.zeros((1, count), np.int64)
    heads[0, order[0]] = order[0]
    for number in range(1, count):
        heads[0, order[number]] = order[generator.integers(0, number)]
    return Trees(heads, np.full_like(heads, -1))


def edges_of(heads: Integers) -> set[tuple[int, int]]:
    """Return the edges of a tree as pairs of places, the lesser first; heads [length]."""
    places = np.flatnonzero((heads >= 0) & (heads != np.arange(len(heads))))
    return {(min(int(a), int(b)), max(int(a), int(b))) for a, b in zip(places, heads[places], strict=True)}


def _chain(heads: Integers) -> Integers:
    return np.where(heads >= 0, np.maximum(np.arange(len(heads)) - 1, 0), -1)


def read(values: Tensor, wanted: Integers, is_word: NDArray[np.bool_], asked: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return distances [asked item, word, word] after fitting on the other items; values [item, word, width]."""
    with one_thread():
        words, mine = torch.from_numpy(is_word), torch.from_numpy(~asked)
        rows = values[mine][words[mine]]
        spread = (rows - rows.mean(0)).square().mean(0).sqrt()
        values = (values - rows.mean(0)) / torch.where(spread > 0, spread, torch.ones_like(spread))
        matrix = fitted(values[mine], torch.from_numpy(wanted).double()[mine], words[mine])
        return distances(values[~mine], matrix).numpy()


def _spanned(told: NDArray[np.float64], places: Integers) -> set[tuple[int, int]]:
    """Return the edges of the minimum spanning tree of the words at some places, for distances [word, word]."""
    # One more everywhere changes no tree, and a distance of 0 would be taken for no edge.
    rows, columns = minimum_spanning_tree(np.triu(told[np.ix_(places, places)] + 1.0, 1)).nonzero()
    return {(int(places[a]), int(places[b])) for a, b in zip(rows, columns, strict=True)}  # the upper triangle's


def correlation(told: NDArray[np.float64], true: Integers, is_word: NDArray[np.bool_]) -> float:
    """Return the mean of Spearman's correlation of each word's distances to the others, in sentences of 5 words on."""
    found = []
    for mine, here, words in zip(told, true, is_word, strict=True):
        places = np.flatnonzero(words)
        if len(places) >= _SHORTEST:
            chosen = np.ix_(places, places)
            found += _correlations(mine[chosen], here[chosen])
    return float(np.mean(found)) if found else 0.0


def _correlations(predicted: NDArray[np.float64], true: Integers) -> list[float]:
    """Return Spearman's ρ of each word's distances to the others, [word, word] both."""
    others = ~np.eye(len(true), dtype=bool)
    found = []
    for row, (one, other) in enumerate(zip(predicted, true, strict=True)):
        a, b = rankdata(one[others[row]]), rankdata(other[others[row]])
        if a.std() > 0 and b.std() > 0:
            found.append(float(np.corrcoef(a, b)[0, 1]))
    return found


def distances(values: Tensor, matrix: Tensor) -> Tensor:
    """Return |B(h - g)|² [item, word, word] for values [item, word, width] and B [width, rank]."""
    mapped = values @ matrix
    squares = mapped.square().sum(2)
    return (squares[:, :, None] + squares[:, None, :] - 2 * mapped @ mapped.transpose(1, 2)).clamp_min(0.0)


def fitted(values: Tensor, wanted: Tensor, is_word: Tensor) -> Tensor:
    """Return B [width, rank] by L-BFGS; values [item, word, width], wanted [item, word, word], is_word [item, word]."""
    pairs = is_word[:, :, None] & is_word[:, None, :]
    weights = pairs / pairs.sum((1, 2), keepdim=True).clamp_min(1) / len(values)
    wanted = torch.where(pairs, wanted, 0.0)
    width = values.shape[2]
    matrix = torch.eye(width, min(width, MOST_RANK), dtype=torch.float64)
    scale = (weights * wanted).sum() / (weights * distances(values, matrix)).sum().clamp_min(1e-12)
    matrix = (matrix * scale.sqrt()).requires_grad_()
    solver = torch.optim.LBFGS(
        [matrix], max_iter=_ITERATIONS, tolerance_grad=1e-6, history_size=20, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        error = distances(values, matrix) - wanted
        loss = (weights * (error.square() + _BEND**2).sqrt()).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    return matrix.detach()
