"""Masked language modelling: some tokens are hidden, and those are asked for (Devlin et al. 2019, section 3.1).

Of the tokens that are asked for, 80 % are replaced by the mask, 10 % by any token, and 10 % stay: a model cannot know
which of those that it sees it will be asked for.
"""

import dataclasses

import numpy as np

from jobs.tasks.task import IGNORE, Batch

HIDDEN, STAY = 0.8, 0.9


def masked(batch: Batch, rate: float, generator: np.random.Generator, mask: int, vocabulary_size: int) -> Batch:
    """Return the batch with each of its targets asked for with probability `rate`, and hidden in the inputs."""
    shape = batch.targets.shape
    asked = (generator.random(shape) < rate) & (batch.targets != IGNORE)
    fate, other = generator.random(shape), generator.integers(0, vocabulary_size, shape)
    inputs = np.where(asked & (fate < HIDDEN), mask, batch.inputs)
    inputs = np.where(asked & (fate >= STAY), other, inputs)
    return dataclasses.replace(batch, inputs=inputs, targets=np.where(asked, batch.targets, IGNORE))
