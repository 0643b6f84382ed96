"""What a study would take, before anything is trained: runs, packs, parameters, FLOPs, checkpoints, bytes."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from jobs import tasks
from jobs.flops import Sizes, training_flops
from jobs.records import Status
from jobs.schedule import steps_of
from jobs.spec import CommandSpec, Condition, OptimizerSpec
from jobs.store import Store
from jobs.study import GridPoint, Study
from orchestrator.costs import Cost, Hours, cost, pack_hours
from orchestrator.machine import Machine, needs_of
from orchestrator.packing import Todo, assumed_timings, pack_runs
from orchestrator.prepare import check_harnesses
from orchestrator.stop_rules import StopPlan, stop_plan
from orchestrator.store_state import Standing, read_standings

_FLOAT_BYTES = 4
_MOMENTS = 2  # of AdamW, for each parameter that is trained


@dataclass(frozen=True, slots=True)
class ConditionPlan:
    """What one condition would take.

    held              runs that the store holds finished or diverged: they are not trained again
    flops             of the runs that are left: 6 × parameters × tokens, and attention where the model is large
    cost              of whole Hugging Face models: memory of a process and hours by device; None for others
    hours             of seed-batched models: hours by device; empty for others
    checkpoints       milestones of the runs that are left; `checkpoint_bytes` is what they take, weights and moments
    polca_rows        of a condition that looks back at its parents' losses: the most rows that one run makes
    """

    condition: str
    condition_id: str
    runs: int
    held: int
    packs: int
    parameters: int
    tokens: int
    flops: int
    checkpoints: int
    checkpoint_bytes: int
    cost: Cost | None = None
    hours: tuple[Hours, ...] = ()
    polca_rows: int = 0


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """What a study would take on a machine; pack widths are assumed until they are measured."""

    study: str
    conditions: tuple[ConditionPlan, ...]
    cpus: int
    stop: StopPlan | None = None

    def total(self, name: str) -> int:
        """Return the sum of one column over the conditions."""
        return sum(int(getattr(condition, name)) for condition in self.conditions)

    def hours(self) -> tuple[Hours, ...]:
        """Return the device-hours of all conditions with seed-batched models; empty where there is none."""
        by_device = zip(*(condition.hours for condition in self.conditions if condition.hours), strict=True)
        return tuple(
            Hours(parts[0].device, sum(part.hours for part in parts), all(part.fits for part in parts))
            for parts in by_device
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain data, with totals."""
        columns = ("runs", "held", "packs", "tokens", "flops", "checkpoints", "checkpoint_bytes")
        return {
            "study": self.study,
            "cpus": self.cpus,
            "conditions": [asdict(condition) for condition in self.conditions],
            "stop": asdict(self.stop) if self.stop else None,
            "total": {name: self.total(name) for name in columns},
        }


def plan(study: Study, store: Store | None, machine: Machine) -> StudyPlan:
    """Return what the study would take beyond what `store` holds; nothing is trained or written.

    Raises ModelError, or QueryError, where a model cannot be built here, or a harness cannot ask.
    """
    check_harnesses(study)
    ids = [run.id for run in study.runs]
    standings = read_standings(store, ids) if store else {}
    todo: dict[str, list[Todo]] = {point.id: [] for point in study.points}
    for run in study.runs:
        standing = standings.get(run.id, Standing(run.id, Status.WAITING, 0, -1))
        if not standing.is_done:
            left = run.point.condition.training.steps - max(standing.step, run.point.first_step)
            todo[run.point.id].append(Todo(run.id, run.point.id, standing.step, left))
    execution = study.settings.execution
    timings = {point.id: assumed_timings(point.condition, machine, execution.nodes) for point in study.points}
    waiting = [run for runs in todo.values() for run in runs]
    packs = pack_runs(waiting, timings, execution.pack_width, machine, needs_of(execution))
    count = {point.id: 0 for point in study.points}
    for pack in packs:
        count[pack.condition_id] += 1
    runs = Counter(run.point.id for run in study.runs)
    conditions = (_condition(study, point, todo[point.id], runs[point.id], count[point.id]) for point in study.points)
    stop = study.settings.stop
    told = stop_plan(stop, study.first_batch) if stop else None
    return StudyPlan(study.name, tuple(conditions), machine.cpus, told)


def _condition(study: Study, point: GridPoint, todo: list[Todo], runs: int, packs: int) -> ConditionPlan:
    condition = point.condition
    milestones = steps_of(condition.milestones, condition.training.steps)
    if isinstance(condition.engine, CommandSpec):  # nothing is known of a script but how many steps it makes
        return ConditionPlan(point.label, point.id, runs, runs - len(todo), packs, 0, 0, 0, 0, 0)
    task = tasks.build(condition.task.name, condition.task.parameters, study.folder, study.where)
    sizes = _sizes(condition, task)
    per_step = condition.training.batch_size * task.length
    tokens = per_step * sum(run.steps_left for run in todo)
    # The first state of a fork is its parent's, unless something in it was changed.
    first = point.first_step - 1 if point.fork is None or point.fork.is_saved_anew else point.first_step
    flops = training_flops(condition, sizes, task.length, tokens)
    checkpoints = sum(1 for run in todo for step in milestones if step > max(run.resumed_step, first))
    return ConditionPlan(
        condition=point.label,
        condition_id=point.id,
        runs=runs,
        held=runs - len(todo),
        packs=packs,
        parameters=sizes.parameters,
        tokens=tokens,
        flops=flops,
        checkpoints=checkpoints,
        checkpoint_bytes=checkpoints * (sizes.parameters + _kept(condition) * sizes.trained) * _FLOAT_BYTES,
        cost=cost(condition, sizes.parameters, len(task.vocabulary), task.length, tokens),
        hours=pack_hours(condition, sizes.parameters, flops),
        polca_rows=condition.polca.rows_at_most(point.first_step, len(task.token_groups)) if condition.polca else 0,
    )


def _kept(condition: Condition) -> int:
    """Return how many values a checkpoint keeps beside each one that is trained."""
    optimizer = condition.optimizer
    return _MOMENTS + (isinstance(optimizer, OptimizerSpec) and optimizer.trust_region is not None)


def _sizes(condition: Condition, task: tasks.Task) -> Sizes:
    from workers.models.whole import sizes_of  # imports torch, which takes seconds

    return sizes_of(condition, task)
