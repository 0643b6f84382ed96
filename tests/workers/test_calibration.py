"""Calibration: what is measured, where the climb ends, and that nothing is left changed."""

import time
from collections.abc import Iterator

import pytest
import torch

from jobs.tasks.parity import Parity
from tests.workers.test_models import condition
from workers.calibration import _Probe, measure

TASK = Parity(bits=4, subset=2)
SPEC = condition({"family": "mlp", "width": 4}, optimizer={"learning_rate": 1e-3})


class Ticks:
    """A clock that goes forward by a given time at each look: a step takes the time of one look."""

    def __init__(self, seconds: Iterator[float]) -> None:
        self.seconds, self.now = seconds, 0.0

    def __call__(self) -> float:
        self.now += next(self.seconds)
        return self.now


def steady() -> Iterator[float]:
    while True:
        yield 1.0


def test_every_width_up_to_the_runs_there_are() -> None:
    found = measure(SPEC, TASK, most_runs=5, threads=(1, 2), seconds=0.0, clock=Ticks(steady()))
    assert [(t.pack_width, t.threads) for t in found] == [(w, t) for t in (1, 2) for w in (1, 2, 4, 8)]
    assert all(t.seconds_per_step == 1.0 for t in found)


def test_the_climb_ends_where_wider_is_slower() -> None:
    slower = (2.0**n for n in range(1000))  # each look takes twice as long as the one before
    found = measure(SPEC, TASK, most_runs=100, threads=(1,), seconds=0.0, clock=Ticks(slower))
    assert [t.pack_width for t in found] == [1, 2]


def test_one_run_is_measured_alone_and_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    assert [t.pack_width for t in measure(SPEC, TASK, most_runs=1, threads=(2,), seconds=0.0)] == [1]
    assert torch.get_num_threads() == before


def test_memory_grows_with_the_pack_and_is_about_what_its_tensors_take() -> None:
    wide = condition({"family": "mlp", "width": 512, "layers": 2}, optimizer={"learning_rate": 1e-3})
    found = measure(wide, TASK, most_runs=32, threads=(1, 2), seconds=0.0, clock=Ticks(steady()))
    sizes = {t.pack_width: t.memory_bytes for t in found}
    per_run = 4 * 4 * 512 * 512  # weights, gradient, two moments; the layer between the first and the last alone
    assert sizes[32] - sizes[1] > 31 * per_run
    assert sizes[32] - sizes[1] < 31 * per_run * 4
    assert sizes[1] > 300 << 20, "the process itself counts, too"
    assert len({(t.pack_width, t.memory_bytes) for t in found}) == len(sizes), "one measurement for all threads"


def test_the_climb_ends_before_a_pack_that_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.calibration.memory_bytes", lambda: 500 << 20)
    found = measure(SPEC, TASK, most_runs=100, seconds=0.0, clock=Ticks(steady()))
    assert [t.pack_width for t in found] == [1], "twice 320 MiB would be too much"


def test_packs_side_by_side_are_timed_each(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = _Probe(SPEC, TASK, 0.02, time.perf_counter, "cpu")
    alone, beside = probe.timing(2, 1, 1), probe.timing(2, 1, 2)
    assert (alone.packs_per_gpu, beside.packs_per_gpu) == (1, 2)
    assert beside.memory_bytes == alone.memory_bytes
    assert beside.seconds_per_step > 0

    def fails(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr("workers.calibration.PackedEngine", fails)
    with pytest.raises(torch.OutOfMemoryError):
        probe.timing(2, 1, 2)
