"""Engines: how a pack's training step is carried out; one Protocol, one file each."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

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


class Engine(Layered, Protocol):
    """Models and optimiser of all runs of a pack, along a leading run axis.

    losses       float64 [run]: mean cross-entropy of the last step's batch, in nats per target
    grad_norms   float64 [run]: norm of the gradient that the last step followed, before clipping
    diverged_at  int64 [run]: the update at which loss or gradient stopped being finite, or -1
    """

    losses: NDArray[np.float64]
    grad_norms: NDArray[np.float64]
    diverged_at: Integers

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

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from `state`, whose rows may come from other packs."""

    def close(self) -> None:
        """End what the engine has started beside this process; it is of no use afterwards."""
