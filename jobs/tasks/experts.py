"""Many weak experts: answers of a crowd, one expert at a time, scored against the truth that none of them knows.

The toy of transcendence (Zhang et al. 2024, "Transcendence: generative models can outperform the experts that train
them"): a model of the mixture of experts, read at low temperature, answers what most of them say, and that is better
than the best of them where their errors differ.
"""

from functools import lru_cache
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from jobs.seeds import Streams, stream
from jobs.tasks.task import IGNORE, Batch, Score, Task, Tokens

Floats = NDArray[np.float64]


class Experts(Task):
    """`bits` random bits and `=`, and then one of `classes`, as an expert of the panel, drawn anew each time, says it.

    The truth is the largest of `classes` linear functions of the bits (as ±1), an expert the same with normal noise of
    standard deviation `noise` on weights of standard deviation 1.

    experts  how many there are
    panel    which truth and which experts: another number draws others
    """

    bits: Annotated[int, Field(ge=1, le=4096)] = 16
    classes: Annotated[int, Field(ge=2, le=1024)] = 10
    experts: Annotated[int, Field(ge=1)] = 5
    noise: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
    panel: Annotated[int, Field(ge=0)] = 0
    test_size: Annotated[int, Field(ge=1)] = 1000

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the bits, the separator, and the classes."""
        return ("0", "1", "=", *(f"class{n}" for n in range(self.classes)))

    @property
    def length(self) -> int:
        """Return the bits and the separator."""
        return self.bits + 1

    @property
    def first_answer(self) -> int:
        """Return the position of the separator."""
        return self.bits

    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        """Return `size` fresh strings, each answered by an expert drawn for it."""
        generator = streams.data(step)
        inputs = self._draw(generator, size)
        said = self.answers(inputs)[generator.integers(0, self.experts, size=size), np.arange(size)]
        return _ask(inputs, said)

    def held_out(self, streams: Streams) -> dict[str, Batch]:
        """Return strings with their true answers as `heldout`."""
        inputs = self._draw(streams.evaluation("heldout"), self.test_size)
        return {"heldout": _ask(inputs, self.truth(inputs))}

    def score(self, name: str, batch: Batch, predicted: Tokens) -> list[Score]:
        """Return the likeliest answer against the truth, and beside it the best expert's and the plurality's.

        The likeliest answer is the limit of temperature 0. `best_expert` is the expert with most of these strings right
        and `plurality` what most experts say, of equals the first class: neither depends on the model. `transcends` is
        1 of 1 where the model has more right than the best expert.
        """
        truth, answers = batch.targets[:, -1], self.answers(batch.inputs)
        right = int((predicted[:, -1] == truth).sum())
        best = int((answers == truth).sum(axis=1).max())
        votes = (answers[:, :, None] == 3 + np.arange(self.classes)).sum(axis=0)
        plurality = int((3 + votes.argmax(axis=1) == truth).sum())
        return [
            Score(f"{name}.accuracy", right, len(truth)),
            Score(f"{name}.best_expert", best, len(truth)),
            Score(f"{name}.plurality", plurality, len(truth)),
            Score(f"{name}.transcends", int(right > best), 1),
        ]

    def truth(self, inputs: Tokens) -> Tokens:
        """Return the true answers to [string, length] as tokens, [string]."""
        return _largest(self._signs(inputs) @ _weights(self)[0].T)

    def answers(self, inputs: Tokens) -> Tokens:
        """Return what each expert says to [string, length], as tokens [expert, string]."""
        return _largest(self._signs(inputs) @ _weights(self)[1:].transpose(0, 2, 1))

    def _signs(self, inputs: Tokens) -> Floats:
        return np.asarray(2 * inputs[:, : self.bits] - 1, np.float64)

    def _draw(self, generator: np.random.Generator, size: int) -> Tokens:
        inputs = np.full((size, self.bits + 1), 2, np.int64)
        inputs[:, :-1] = generator.integers(0, 2, size=(size, self.bits), dtype=np.int8)
        return inputs


# A pure function of its argument: the cache saves drawing the weights for every batch and changes nothing.
@lru_cache(maxsize=64)
def _weights(task: Experts) -> Floats:
    """Return [1 + experts, classes, bits], the truth first; integers of 2^-20, so that their sums are exact."""
    generator = stream(task.panel, "experts")
    truth = generator.standard_normal((1, task.classes, task.bits))
    noise = generator.standard_normal((task.experts, task.classes, task.bits))
    weights = np.round(np.concatenate([truth, truth + task.noise * noise]) * 2**20) / 2**20
    return np.asarray(weights, np.float64)


def _largest(functions: Floats) -> Tokens:
    """Return the token of the largest of [..., class]."""
    found: Tokens = 3 + functions.argmax(axis=-1)
    return found


def _ask(inputs: Tokens, answers: Tokens) -> Batch:
    targets = np.full_like(inputs, IGNORE)
    targets[:, -1] = answers
    return Batch(inputs, targets)
