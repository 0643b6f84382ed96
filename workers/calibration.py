"""How long a step takes on this device, and how much memory, by pack width and threads: measured before a study.

What is measured decides where runs train and never what they learn.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from jobs.memory import forget_peak, memory_bytes, peak_resident_bytes, resident_bytes
from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from jobs.tasks.task import IGNORE, Task
from workers.determinism import make_deterministic
from workers.engines.packed import PackedEngine
from workers.memory import give_back, is_out_of_memory, keeping_freed_memory

PACK_WIDTHS = (1, 2, 4, 8, 16, 32, 64, 128)
PACKS_PER_GPU = (1, 2, 4)
_FALLING = 0.85  # a width this much below the best throughput so far ends the climb
# What a process takes before its first pack. On a CPU measured: 306 MiB after its imports, torch 2.13. On a GPU
# assumed: the context of CUDA and its libraries.
_PROCESS_BYTES = {"cpu": 320 << 20, "cuda": 512 << 20}


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one training step of a whole pack, and the most memory that its process takes on its device.

    packs_per_gpu  how many such packs trained at once on the GPU meanwhile; 1 on a CPU
    """

    pack_width: int
    threads: int
    seconds_per_step: float
    memory_bytes: int = 0
    packs_per_gpu: int = 1


def measure(
    condition: Condition,
    task: Task,
    most_runs: int,
    threads: Sequence[int] = (1,),
    seconds: float = 0.1,
    clock: Callable[[], float] = time.perf_counter,
    device: str = "cpu",
) -> list[Timing]:
    """Return timings of the condition for each number of threads, and for pack widths up to where wider is slower.

    The climb ends, too, before a pack that would not fit into the device's memory.

    most_runs  how many runs there are: the widest pack that is measured is the next power of two
    seconds    how long each pack width is measured, beside one step to warm up
    """
    before = torch.get_num_threads()
    found: list[Timing] = []
    probe = _Probe(condition, task, seconds, clock, device)
    try:
        with keeping_freed_memory():
            for per_gpu in PACKS_PER_GPU if probe.is_gpu else (1,):
                for count in threads if not probe.is_gpu else (1,):
                    found += _climb(probe, most_runs, count, per_gpu, must=not found)
    finally:
        torch.set_num_threads(before)
    return found


def _climb(probe: "_Probe", most_runs: int, threads: int, per_gpu: int, *, must: bool) -> list[Timing]:
    """Return the timings up to where wider is slower, or too large; raises what a single run's step fails with."""
    found: list[Timing] = []
    best = 0.0
    for width in PACK_WIDTHS:
        if width >= 2 * most_runs and width > 1:
            break
        make_deterministic(threads, width)
        try:
            timing = probe.timing(width, threads, per_gpu)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or (must and not found):
                raise
            break
        found.append(timing)
        throughput = width / timing.seconds_per_step
        if throughput < best * _FALLING or 2 * timing.memory_bytes * per_gpu > probe.most_bytes:
            break
        best = max(best, throughput)
    return found


class _Probe:
    """Packs of random tokens on a device, timed and weighed."""

    def __init__(
        self, condition: Condition, task: Task, seconds: float, clock: Callable[[], float], device: str
    ) -> None:
        self.condition, self.task, self.seconds, self.clock, self.device = condition, task, seconds, clock, device
        self.is_gpu = device == "cuda"
        total = torch.cuda.mem_get_info()[1] if self.is_gpu else memory_bytes()
        self.most_bytes = total or float("inf")
        self._memory: dict[int, int] = {}

    def timing(self, width: int, threads: int, per_gpu: int) -> Timing:
        """Return the median time of a step of one of `per_gpu` packs that train at once."""
        give_back()
        resident = resident_bytes()
        self._forget_peak()
        if per_gpu == 1:
            times, kept = self._steps(width, 0)
        else:
            barrier = threading.Barrier(per_gpu)
            with ThreadPoolExecutor(per_gpu) as executor:
                several = list(executor.map(lambda slot: self._beside(width, slot, barrier), range(per_gpu)))
            times, kept = [time for some, _ in several for time in some], several[0][1]
        # What a pack leaves behind is not all given back: a second look at a width would see the first one's memory.
        if width not in self._memory:
            taken = self._taken(resident)
            self._memory[width] = taken // per_gpu + kept if taken else 0
        return Timing(width, threads, sorted(times)[len(times) // 2], self._memory[width], per_gpu)

    def _beside(self, width: int, slot: int, barrier: threading.Barrier) -> tuple[list[float], int]:
        """Take the steps of one of several packs, on a stream of its own where there are streams."""
        with torch.cuda.stream(torch.cuda.Stream() if self.is_gpu else None):  # type: ignore[no-untyped-call]
            try:
                return self._steps(width, slot, barrier)
            except (MemoryError, RuntimeError):
                barrier.abort()  # or the others would wait for ever
                raise

    def _forget_peak(self) -> None:
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        else:
            forget_peak()

    def _taken(self, resident: int) -> int:
        if self.is_gpu:
            return int(torch.cuda.max_memory_reserved()) + _PROCESS_BYTES["cuda"]
        peak = peak_resident_bytes()
        return max(0, peak - resident) + _PROCESS_BYTES["cpu"] if peak else 0

    def _steps(self, width: int, slot: int, barrier: threading.Barrier | None = None) -> tuple[list[float], int]:
        """Return the times of steps of one pack, and the bytes on the device of the copy that a checkpoint is."""
        streams = [Streams(Seeds(seed, seed, seed, 0)) for seed in range(width * slot, width * (slot + 1))]
        size, length = len(self.task.vocabulary), self.task.length
        engine = PackedEngine(self.condition, size, length, streams, self.device, self.task.first_answer)
        inputs = streams[0].data(0).integers(0, size, size=(width, self.condition.training.batch_size, length))
        targets = np.where(np.arange(length) < engine.family.first_answer, IGNORE, inputs)
        engine.train_step(0, inputs, targets)
        if barrier is not None:
            barrier.wait()
        times: list[float] = []
        end = self.clock() + self.seconds
        while not times or self.clock() < end:
            start = self.clock()
            engine.train_step(len(times) + 1, inputs, targets)
            if self.is_gpu:
                torch.cuda.synchronize()
            times.append(self.clock() - start)
        kept = 0 if self.is_gpu else sum(tensor.nbytes for tensor in engine.state().values())
        return times, kept
