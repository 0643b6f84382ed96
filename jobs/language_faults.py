"""What of a condition's masks, noise, probes and trees does not fit together, or not with its task."""

from collections.abc import Iterator

from jobs.faults import near
from jobs.measures import harness_in, shapleys_in, steps_in
from jobs.scalar import ever
from jobs.seeds import Seeds, Streams
from jobs.spec import Condition, GptSpec, HuggingFaceSpec, LstmSpec, MlpSpec, OptimizerSpec, PackedSpec
from jobs.tasks.task import IGNORE, Task
from jobs.yaml_tree import Path as Keys

_OF_TREES = ("attention", "interdependence", "structural-probe")


def language_faults(condition: Condition, task: Task) -> Iterator[tuple[Keys, str]]:
    """Yield (key, what is wrong) for what of masks, noise, probes and trees does not fit together."""
    masks, name, masking = ever(condition.training.masking), condition.task.name, ("training", "masking")
    sees_both_ways = isinstance(condition.model, GptSpec | HuggingFaceSpec) and condition.model.attention == "full"
    if masks and task.mask_token is None:
        yield masking, f"hides nothing of {name}, which has no token that stands for a hidden one"
    elif task.mask_token is not None and not masks:
        yield masking, f"{name} is for masked language modelling: give the share of tokens that is hidden, such as 0.15"
    elif masks != sees_both_ways:
        told = "goes with model.attention: full (of family: gpt or huggingface), and that with it"
        yield masking, f"{told}: one hides what the other would see"
    optimizer = condition.optimizer
    is_noisy = isinstance(optimizer, OptimizerSpec) and ever(optimizer.trust_region_noise)
    if is_noisy and not isinstance(condition.model, GptSpec):
        yield ("optimizer", "trust_region_noise"), "is put on embeddings, which a model of family: gpt has"
    yield from _finetuning_faults(condition, task)
    yield from _option_faults(condition, task)
    if condition.polca and not isinstance(condition.engine, PackedSpec):
        yield ("polca",), "looks at seed-batched models, of which there is a plain form with all derivatives"
    if harness_in(condition.measure) and (
        name != "text" or sees_both_ways or isinstance(condition.model, MlpSpec | LstmSpec)
    ):
        yield ("measure",), "the harness asks causal language models in text: those of the task `text`"
    composed = "interdependence" in condition.measure
    if composed and not isinstance(condition.model, LstmSpec):
        yield ("measure",), "interdependence is of models of family: lstm, whose states are taken apart"
    pulled, looked_at = ever(condition.training.tree_attention), "attention" in condition.measure
    of_trees = [("measure",) for what in _OF_TREES if what in condition.measure]
    for keys in [("training", "tree_attention")] * pulled + of_trees:
        if not task.relations:
            yield keys, f"{name} has no sentences whose trees are known: that is about those"
    if looked_at and isinstance(condition.model, MlpSpec | LstmSpec):
        yield ("measure",), f"a model of family: {condition.model.family} has no attention to look at"
    if pulled and not (isinstance(condition.model, GptSpec) and isinstance(condition.engine, PackedSpec)):
        yield ("training", "tree_attention"), "is a loss of seed-batched models of family: gpt (engine packed)"


def _finetuning_faults(condition: Condition, task: Task) -> Iterator[tuple[Keys, str]]:
    training, is_packed = condition.training, isinstance(condition.engine, PackedSpec)
    if training.low_rank and not (isinstance(condition.model, GptSpec) and is_packed):
        yield ("training", "low_rank"), "is of seed-batched models of family: gpt (engine packed)"
    if training.fast_forward and not is_packed:
        yield ("training", "fast_forward"), "is of seed-batched models (engine packed)"
    if training.fast_forward:
        yield from (
            (("training", "fast_forward", "set"), told) for told in _set_faults(training.fast_forward.set, task)
        )


def _set_faults(name: str, task: Task) -> Iterator[str]:
    """Yield what is wrong with `name` as a held-out set whose loss is to fall; its names depend on no seed."""
    try:
        sets = task.held_out(Streams(Seeds(init=0, data=0, dropout=0, evaluation=0)))
    except Exception as error:  # the border to a user's code
        yield f"the task's held-out sets cannot be drawn: {type(error).__name__}: {error}"
        return
    if name not in sets:
        yield f"no held-out set is called {name!r}; there are {', '.join(sorted(sets))}{near(name, sets)}"
    elif (sets[name].targets == IGNORE).all():
        yield f"{name!r} asks for nothing, so there is no loss that could fall"


def _option_faults(condition: Condition, task: Task) -> Iterator[tuple[Keys, str]]:
    asked = shapleys_in(condition.measure)
    for one in asked:
        if one.token is not None and one.token not in task.vocabulary:
            told = f"{one.token!r} is no token of {condition.task.name}{near(one.token, task.vocabulary)}"
            yield ("measure",), f"shapley.token: {told}"
    if len({one.set for one in asked}) < len(asked):
        yield ("measure",), "shapley is asked of one set twice: once is enough"
    looks = steps_in(condition.measure)
    if len({one.set for one in looks}) < len(looks):
        yield ("measure",), "similarity over steps reads one set twice: name all that it is compared with in one `to`"
