"""Which engine a condition asks for, and how many threads it computes on."""

from collections.abc import Sequence
from importlib.metadata import distributions

import numpy as np

from jobs.errors import TaskError
from jobs.measures import harness_in
from jobs.seeds import Streams
from jobs.spec import CommandSpec, Condition, DeepSpeedSpec, HuggingFaceSpec, ModuleSpec, SingleSpec
from jobs.tasks.task import Task
from workers.determinism import make_deterministic
from workers.engines import Engine, Integers
from workers.engines.packed import PackedEngine
from workers.host import ALONE, Nodes

_OF_HARNESS = ("datasets", "lm_eval", "transformers")


def engine_of(
    condition: Condition, task: Task, streams: Sequence[Streams], device: str = "cpu", nodes: Nodes = ALONE
) -> Engine:
    """Return the engine of runs of a condition, with their initial weights; whoever has it closes it.

    Its processes lie on this node and on `nodes`. A script is none: it owns its steps (`workers/scripted.py`). Raises
    ModelError where it cannot be built here, RankLost where one of its processes ends before it has begun.
    """
    sizes = (len(task.vocabulary), task.length)
    if isinstance(condition.engine, ModuleSpec):
        # torch's parallel parts take a second to import
        from workers.engines.modules import ModuleEngine
        from workers.engines.replica import Shape

        return ModuleEngine(condition, Shape(*sizes, task.first_answer), streams, device, nodes)
    validation = validation_of(condition, task, streams)
    return PackedEngine(condition, *sizes, streams, device, task.first_answer, validation)


def validation_of(condition: Condition, task: Task, streams: Sequence[Streams]) -> tuple[Integers, Integers] | None:
    """Return the items that decide how far updates go on, inputs and targets [run, items, length]; None for none.

    Raises TaskError where a task has no such set.
    """
    rule = condition.training.fast_forward
    if rule is None:
        return None
    found = []
    for stream in streams:
        sets = task.held_out(stream)
        if rule.set not in sets:
            told = f"fast_forward: there is no held-out set {rule.set!r}; there are {', '.join(sorted(sets))}"
            raise TaskError(condition.task.name, "", -1, told)
        found.append(sets[rule.set])
    return np.stack([s.inputs[: rule.items] for s in found]), np.stack([s.targets[: rule.items] for s in found])


def switch(condition: Condition, threads: int, runs: int) -> None:
    """Set every switch of determinism, and the threads on which a pack of so many runs computes.

    Seed-batched models give the same bits on any number of threads; for whole modules the spec says how many.
    """
    if isinstance(condition.engine, SingleSpec):
        threads = runs = condition.engine.threads
    make_deterministic(threads, runs)


def packages_of(condition: Condition) -> tuple[str, ...]:
    """Return the packages beside torch and numpy on whose versions a condition's numbers depend.

    A script may import whatever is installed.
    """
    if isinstance(condition.engine, CommandSpec):
        there = {str(one.metadata["Name"]).lower() for one in distributions()}
        return tuple(sorted(there - {"numpy", "torch", "seedbed"}))
    found = ["transformers"] if isinstance(condition.model, HuggingFaceSpec) else []
    if isinstance(condition.engine, ModuleSpec):
        found += ["accelerate", *(["deepspeed"] if isinstance(condition.engine, DeepSpeedSpec) else [])]
    return tuple(dict.fromkeys([*found, *(_OF_HARNESS if harness_in(condition.measure) else ())]))
