"""How far the meaning of two words together is more than that of each: decompositional interdependence, as rows.

A state h of a recurrent model is split into what a set of words puts into it and the rest, by contextual decomposition
(Murdoch, Liu & Yu 2018, arXiv 1801.05453): the sums before a gate are split exactly, and what a nonlinearity makes of
the parts is averaged over the orders in which they can be added. With v(A) for the part of words A in the last layer's
state at the later word, the interdependence of two words is |v(AB) - v(A) - v(B)| / |v(AB)|: 0 where they only add up
(Saphra & Lopez 2020, "LSTMs compose - and learn - bottom-up", arXiv 2010.04650). All in float64, on one thread.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from jobs.tasks.task import Mean, Trees
from workers.determinism import one_thread
from workers.models.lstm import FORGET_BIAS

ITEMS = 64  # sentences of a set, from the first on
FARTHEST = 6  # words between which pairs are looked at
MOST_EDGES = 4  # of the way through the tree; longer ones count as that
FEWEST = 50  # pairs at one distance
_TOGETHER = 2048  # sentences, each with its own words looked at
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]


def interdependence_measures(
    name: str, weights: Mapping[str, Tensor], tokens: Integers, trees: Trees
) -> Sequence[Mean]:
    """Return the mean interdependence of words so far apart in a sentence and in its tree, and how much closeness adds.

    `NAME.interdependence.D.E` is that of words D places and E edges of the tree apart (4: four or more), where there
    are 50 such pairs; `NAME.interdependence_closeness` is that of words with an edge between them less that of all
    others, for the same D, averaged over those D from 2 on at which there are 50 of both.

    weights: by name, those of one run; tokens: [item, length]
    """
    items, first, second = pairs_of(trees.heads[:ITEMS])
    some = Trees(trees.heads[:ITEMS], trees.relations[:ITEMS])
    edges = np.minimum(some.distances()[items, first, second], MOST_EDGES)
    values = interdependence(weights, tokens[:ITEMS], (items, first, second))
    apart = second - first
    found, gains = [], []
    for distance in range(1, FARTHEST + 1):
        here = apart == distance
        for count in range(1, MOST_EDGES + 1):
            mine = here & (edges == count)
            if mine.sum() >= FEWEST:
                found.append(Mean(f"{name}.interdependence.{distance}.{count}", float(values[mine].mean())))
        close, far = here & (edges == 1), here & (edges > 1)
        if distance > 1 and min(close.sum(), far.sum()) >= FEWEST:
            gains.append(float(values[close].mean() - values[far].mean()))
    if gains:
        found.append(Mean(f"{name}.interdependence_closeness", float(np.mean(gains))))
    return found


def pairs_of(heads: Integers) -> tuple[Integers, Integers, Integers]:
    """Return item, first and second word [pair] of words at most FARTHEST apart; heads [item, length], -1: no word."""
    items, first = np.nonzero(heads >= 0)
    grown = [(items, first, first + distance) for distance in range(1, FARTHEST + 1)]
    items, first, second = (np.concatenate(part) for part in zip(*grown, strict=True))
    inside = second < heads.shape[1]
    items, first, second = items[inside], first[inside], second[inside]
    is_word = heads[items, second] >= 0
    return items[is_word], first[is_word], second[is_word]


def interdependence(
    weights: Mapping[str, Tensor], tokens: Integers, pairs: tuple[Integers, Integers, Integers]
) -> NDArray[np.float64]:
    """Return |v(AB) - v(A) - v(B)| / |v(AB)| [pair], for words A and B of sentences tokens [item, length]."""
    items, first, second = pairs
    places = np.arange(tokens.shape[1])
    alone = (places[:, None] == places) & np.ones((len(tokens), 1, 1), bool)
    with one_thread(), torch.no_grad():
        doubled = {name: value.double().cpu() for name, value in weights.items()}
        single = _parts(doubled, np.repeat(tokens, len(places), axis=0), alone.reshape(-1, len(places)))
        single = single.view(len(tokens), len(places), len(places), -1)  # [item, word, position, width]
        found = []
        for start, end in pairwise([*range(0, len(items), _TOGETHER), len(items)]):
            item, one, other = items[start:end], first[start:end], second[start:end]
            both = (places == one[:, None]) | (places == other[:, None])
            together = _parts(doubled, tokens[item], both)[np.arange(end - start), other]
            apart = single[item, one, other] + single[item, other, other]
            found.append((together - apart).norm(dim=1) / together.norm(dim=1))
    return torch.cat(found).numpy() if found else np.zeros(0)


def _parts(weights: Mapping[str, Tensor], tokens: Integers, words: Bools) -> Tensor:
    return torch.cat(
        [
            decompose(weights, tokens[start:end], words[start:end])[0]
            for start, end in pairwise([*range(0, len(tokens), _TOGETHER), len(tokens)])
        ]
    )


def decompose(weights: Mapping[str, Tensor], tokens: Integers, words: Bools) -> tuple[Tensor, Tensor]:
    """Return what the words put into the last layer's state at each position, and the rest: [n, length, width] each.

    weights  of a model of family lstm, by name; the two parts add up to its state
    words    [n, length] whose part it is
    """
    x, looked_at = weights["embedding"][torch.from_numpy(tokens)], torch.from_numpy(words)[:, :, None]
    part, rest = torch.where(looked_at, x, 0.0), torch.where(looked_at, 0.0, x)
    layers = sum(name.endswith(".recurrent") for name in weights)
    for index in range(layers):
        kinds = (weights[f"layers.{index}.{kind}"] for kind in ("input", "recurrent", "bias"))
        part, rest = _through_layer(part, rest, looked_at, *kinds)
    return part, rest


def _through_layer(
    part: Tensor, rest: Tensor, looked_at: Tensor, into: Tensor, recurrent: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return both parts of a layer's states, for both parts of its inputs [n, length, width]."""
    width = recurrent.shape[0]
    biases = bias.clone()
    biases[width : 2 * width] += FORGET_BIAS
    of_in, of_forget, of_out, of_new = biases.chunk(4)
    state, other, memory, elsewhere = (part.new_zeros(part.shape[0], width) for _ in range(4))
    states, others = [], []
    for place in range(part.shape[1]):
        sums = (part[:, place] @ into + state @ recurrent).chunk(4, dim=1)
        more = (rest[:, place] @ into + other @ recurrent).chunk(4, dim=1)
        i, i_rest, i_bias = shares(sums[0], more[0], of_in, torch.sigmoid)
        f, f_rest, f_bias = shares(sums[1], more[1], of_forget, torch.sigmoid)
        g, g_rest, g_bias = shares(sums[3], more[3], of_new, torch.tanh)
        always = i_bias * g_bias * torch.ones_like(memory)
        here = looked_at[:, place]
        elsewhere = (f + f_rest + f_bias) * elsewhere + f_rest * memory
        elsewhere = elsewhere + i_rest * (g + g_rest + g_bias) + (i + i_bias) * g_rest + torch.where(here, 0.0, always)
        memory = (f + f_bias) * memory + i * (g + g_bias) + i_bias * g + torch.where(here, always, 0.0)
        out = torch.sigmoid(sums[2] + more[2] + of_out)
        shown, hidden, _ = shares(memory, elsewhere, memory.new_zeros(width), torch.tanh)
        state, other = out * shown, out * hidden
        states.append(state)
        others.append(other)
    return torch.stack(states, dim=1), torch.stack(others, dim=1)


def shares(a: Tensor, b: Tensor, bias: Tensor, bend: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a, b and the bias add to bend(a + b + bias): the bias first, a and b in both orders, averaged."""
    alone, whole = bend(bias), bend(a + b + bias)
    only_a, only_b = bend(a + bias), bend(b + bias)
    return 0.5 * (only_a - alone + whole - only_b), 0.5 * (only_b - alone + whole - only_a), alone
