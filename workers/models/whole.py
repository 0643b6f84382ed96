"""One run's model as a whole torch module, for the engines that train runs one by one.

Here stands which module a spec means, what its parameters are called and how they begin. The names are those of a
run's slice in a checkpoint, so that our own `gpt` has the same in every engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from jobs.errors import ModelError
from jobs.flops import Sizes
from jobs.identity import canonical_json
from jobs.seeds import Streams
from jobs.spec import Condition, Given, GptSpec, HuggingFaceSpec, LstmSpec, MlpSpec, Packable
from jobs.tasks.task import Task
from workers.low_rank import adapted, adapters, is_adapter
from workers.models import plain
from workers.models.family import Drawn, Family, Masks, Parameter
from workers.models.gpt import Gpt
from workers.models.huggingface import HuggingFace, parameters_of
from workers.models.lstm import Lstm
from workers.models.mlp import Mlp


def family_of(spec: Packable, vocabulary_size: int, length: int, first_answer: int) -> Family:
    """Return the seed-batched model of a spec of our own families."""
    if isinstance(spec, GptSpec):
        return Gpt(spec, vocabulary_size, length, first_answer)
    if isinstance(spec, LstmSpec):
        return Lstm(spec, vocabulary_size, length, first_answer)
    return Mlp(spec, vocabulary_size, length)


@dataclass(frozen=True, slots=True)
class _Listed:
    """Parameters that were listed."""

    parameters: Sequence[Parameter]
    first_answer: int


def _known(condition: Condition) -> Packable | HuggingFaceSpec:
    if isinstance(condition.model, Given):
        raise ModelError("the model is a script's own: its checkpoints are the files that the script wrote")
    return condition.model


def drawn_of(condition: Condition, vocabulary_size: int, length: int, first_answer: int) -> Drawn:
    """Return what a condition's initial weights are drawn from; raises ModelError where it cannot be built."""
    spec = _known(condition)
    if isinstance(spec, HuggingFaceSpec):
        return _listed(canonical_json(spec.model_dump(mode="json")), vocabulary_size, length, first_answer)
    family, rule = family_of(spec, vocabulary_size, length, first_answer), condition.training.low_rank
    return _Listed([*family.parameters, *adapters(rule, family.parameters)], first_answer) if rule else family


def sizes_of(condition: Condition, task: Task) -> Sizes:
    """Return how large a condition's model is, and how much of it learns; raises ModelError as `drawn_of` does."""
    rule = condition.training.low_rank
    drawn = drawn_of(condition, len(task.vocabulary), task.length, task.first_answer).parameters
    every = sum(parameter.size for parameter in drawn)
    if rule is None:
        return Sizes.whole(every)
    trained = sum(parameter.size for parameter in drawn if is_adapter(parameter.name))
    return Sizes(every, trained, trained + sum(matrix.size for matrix in adapted(rule, drawn)))


# A pure function of its arguments: the proof of seeds, the plan and the engine each ask, and it takes a second.
@lru_cache(maxsize=32)
def _listed(text: bytes, vocabulary_size: int, length: int, first_answer: int) -> _Listed:
    spec = HuggingFaceSpec.model_validate_json(text)
    with torch.device("meta"):
        model = HuggingFace(spec, vocabulary_size, length, first_answer)
    return _Listed(parameters_of(model.model, spec.initializer_range), first_answer)


class Plain(nn.Module):
    """A plain module of one of our own families, asked from `first_answer` on."""

    def __init__(self, spec: Packable, vocabulary_size: int, length: int, first_answer: int) -> None:
        super().__init__()
        self.length = length
        self._first = 0 if isinstance(spec, MlpSpec) else first_answer
        self.model = plain.build(spec, vocabulary_size, length)

    def forward(self, tokens: Tensor, drop: Masks) -> Tensor:
        """Return logits [batch, answers, vocabulary] for int64 tokens [batch, length]."""
        logits: Tensor = self.model(tokens, drop)
        return logits[:, self._first :].clone() if self._first else logits  # FSDP2 takes no views


Whole = Plain | HuggingFace


def whole_of(condition: Condition, vocabulary_size: int, length: int, first_answer: int) -> Whole:
    """Return the module of a condition, its parameters not yet drawn; `model` in it is what a user loads."""
    spec = _known(condition)
    if isinstance(spec, HuggingFaceSpec):
        return HuggingFace(spec, vocabulary_size, length, first_answer)
    return Plain(spec, vocabulary_size, length, first_answer)


def module_with(condition: Condition, weights: Mapping[str, Tensor], vocabulary_size: int, length: int) -> nn.Module:
    """Return what a user loads of a run: an ordinary torch module with these weights, by name."""
    module = whole_of(condition, vocabulary_size, length, 0).model
    module.load_state_dict(dict(weights))
    return module


@torch.no_grad()
def draw(whole: Whole, parameters: Sequence[Parameter], streams: Streams) -> None:
    """Give a module's parameters the initial values of the run with these streams."""
    values = dict(whole.model.named_parameters())
    for parameter in parameters:
        values[parameter.name].copy_(torch.from_numpy(parameter.draw(streams)))
