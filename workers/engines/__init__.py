"""Engines: how a pack's training step is carried out; one Protocol, one file each."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from workers.part_saver import Place, Taken
from workers.parts import Cut

Integers = NDArray[np.int64]
MODEL = "model."  # before the names of parameters in an engine's state
SHOWN = 256  # items of a set, from the first on: what layers make of them


class Layered(Protocol):
    """What shows its layers and heads to probes; a probe's forward pass drops nothing and draws nothing."""

    def hidden(self, inputs: Integers) -> list[torch.Tensor]:
        """Return what each layer makes of the first SHOWN items of inputs [run, items, length]: [run, row, width].

        Of each item a row for each position, of the last layer for those from which answers follow.
        """

    def attention(self, inputs: Integers) -> list[torch.Tensor]:
        """Return each layer's weights of attention, [run, item, head, from, to], for inputs [run, item, length].

        Raises ModelError where a model has none to show.
        """


@runtime_checkable
class InParts(Protocol):
    """An engine whose processes may each save a part of the state."""

    def take(self, place: Place, step: int, whole: dict[str, torch.Tensor]) -> Taken:
        """Copy the state on every process; what is saved whole is copied into the tensors [run, …] of `whole`."""


class Engine(Layered, Protocol):
    """Models and optimiser of all runs of a pack, along a leading run axis.

    losses       float64 [run]: mean cross-entropy of the last step's batch, in nats per target
    grad_norms   float64 [run]: norm of the gradient that the last step followed, before clipping
    diverged_at  int64 [run]: the update at which loss or gradient stopped being finite, or -1
    cuts         what each of its processes holds of the moments; none where the state is saved whole
    """

    losses: NDArray[np.float64]
    grad_norms: NDArray[np.float64]
    diverged_at: Integers
    cuts: Sequence[Cut]

    def train_step(self, step: int, inputs: Integers, targets: Integers, heads: Integers | None = None) -> None:
        """Make update number `step` (from 0) with inputs and targets [run, batch, length].

        heads  [run, batch, length] of sentences whose trees are known: on which word the word here depends
        """

    def evaluate(self, inputs: Integers, targets: Integers) -> tuple[Integers, NDArray[np.float32]]:
        """Return the likeliest token and the loss at each position, [run, items, length] each.

        The loss is 0 where the target is IGNORE; before the task's first answer both are 0.
        """

    def state(self) -> dict[str, torch.Tensor]:
        """Return everything that the next step depends on beside the spec, each tensor [run, …]."""

    def weights(self) -> dict[str, torch.Tensor]:
        """Return the parameters, which are part of the state, each [run, …]."""

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from `state`, whose rows may come from other packs; what is not the engine's is left alone."""

    def close(self) -> None:
        """End what the engine has started beside this process; it is of no use afterwards."""


def parameters_of(engine: Engine) -> dict[str, torch.Tensor]:
    """Return an engine's parameters, each [run, …], by the names that their model gives them."""
    return {name.removeprefix(MODEL): tensor for name, tensor in engine.weights().items()}
