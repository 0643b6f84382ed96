"""How long a step takes on this device, by pack width and threads: a short measurement before a study.

What is measured decides where runs train and never what they learn.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from jobs.tasks.task import IGNORE, Task
from workers.determinism import make_deterministic
from workers.engines.packed import PackedEngine

PACK_WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
_FALLING = 0.85  # a width this much below the best throughput so far ends the climb


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one training step of a whole pack."""

    pack_width: int
    threads: int
    seconds_per_step: float


def measure(
    condition: Condition,
    task: Task,
    most_runs: int,
    threads: Sequence[int] = (1,),
    seconds: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Return timings of the condition for each number of threads, and for pack widths up to where wider is slower.

    most_runs  how many runs there are: the widest pack that is measured is the next power of two

    seconds    how long each pack width is measured, beside one step to warm up
    """
    before = torch.get_num_threads()
    found: list[Timing] = []
    try:
        for count in threads:
            best = 0.0
            for width in PACK_WIDTHS:
                if width >= 2 * most_runs and width > 1:
                    break
                make_deterministic(count, width)
                timing = Timing(width, count, _seconds_per_step(condition, task, width, seconds, clock))
                found.append(timing)
                throughput = width / timing.seconds_per_step
                if throughput < best * _FALLING:
                    break
                best = max(best, throughput)
    finally:
        torch.set_num_threads(before)
    return found


def _seconds_per_step(
    condition: Condition, task: Task, width: int, seconds: float, clock: Callable[[], float]
) -> float:
    """Return the median time of a step at one pack width, on sequences of random tokens."""
    streams = [Streams(Seeds(slot, slot, slot, 0)) for slot in range(width)]
    size = len(task.vocabulary)
    engine = PackedEngine(condition, size, task.length, streams, "cpu", task.first_answer)
    shape = (width, condition.training.batch_size, task.length)
    inputs = streams[0].data(0).integers(0, size, size=shape)
    targets = np.where(np.arange(task.length) < engine.family.first_answer, IGNORE, inputs)
    engine.train_step(0, inputs, targets)
    times: list[float] = []
    end = clock() + seconds
    while not times or clock() < end:
        start = clock()
        engine.train_step(len(times) + 1, inputs, targets)
        times.append(clock() - start)
    return sorted(times)[len(times) // 2]
