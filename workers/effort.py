"""What a run has taken since it began, as rows: where updates are made again, a step says little of that.

cost.flops     by the formula of the plan (`jobs/flops.py`), with what was tried beside the updates
cost.examples  sequences that were trained on, as often as they were
"""

from dataclasses import dataclass

from jobs.flops import training_flops
from jobs.spec import Condition
from jobs.tasks.task import Task
from workers.models.whole import sizes_of


@dataclass(frozen=True, slots=True)
class Effort:
    """What an update takes, and the step at which the runs of a pack began."""

    flops: int
    examples: int
    first_step: int

    def rows(self, step: int, beside: int) -> dict[str, float]:
        """Return metric → value at `step`; `beside`: FLOPs that were no update's."""
        updates = step - self.first_step
        return {"cost.flops": float(updates * self.flops + beside), "cost.examples": float(updates * self.examples)}


def effort_of(condition: Condition, task: Task, first_step: int) -> Effort | None:
    """Return what is counted of runs that began at `first_step`, if it is to be."""
    if "cost" not in condition.measure:
        return None
    size = condition.training.batch_size
    flops = training_flops(condition, sizes_of(condition, task), task.length, size * task.length)
    return Effort(flops, size, first_step)
