"""Packing: every run once, balanced, never an idle processor, and the same for the same input."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.spec import Condition
from jobs.study import Study
from orchestrator.machine import Machine, Needs, Node
from orchestrator.packing import AssumedTiming, Todo, assumed_timings, most_threads, pack_runs, seconds_in_all
from tests.workers.test_models import condition

TWO = Machine(2, 2, "cpu")
# A step costs as much as 4 runs even for one run, up to 16; beyond, wider is slower than in proportion.
CURVE = [AssumedTiming(w, 1, 4 + w if w <= 16 else 2.0 * w) for w in (1, 2, 4, 8, 16, 32)]


def todo(count: int, condition: str = "c", step: int = -1) -> list[Todo]:
    return [Todo(f"{condition}.{step}.{index:03d}", condition, step, 100) for index in range(count)]


@given(
    st.lists(st.tuples(st.integers(1, 70), st.sampled_from("cd"), st.sampled_from([-1, 5])), max_size=4),
    st.integers(1, 5),
    st.sampled_from(["calibrated", 1, 3, 1000]),
)
def test_every_run_is_in_one_pack_with_its_like(
    groups: list[tuple[int, str, int]], cpus: int, pack_width: int | str
) -> None:
    runs = list({run.run_id: run for count, condition, step in groups for run in todo(count, condition, step)}.values())
    machine = Machine(cpus, cpus, "cpu")
    packs = pack_runs(runs, {"c": CURVE, "d": CURVE}, pack_width, machine)  # type: ignore[arg-type]
    assert Counter(run for pack in packs for run in pack.run_ids) == Counter(run.run_id for run in runs)
    like = {run.run_id: (run.condition_id, run.resumed_step) for run in runs}
    assert all(len({like[run] for run in pack.run_ids}) == 1 for pack in packs)
    assert all(pack.threads <= cpus for pack in packs)
    assert packs == pack_runs(runs, {"c": CURVE, "d": CURVE}, pack_width, machine)  # type: ignore[arg-type]
    if isinstance(pack_width, int):
        assert all(len(pack.run_ids) <= pack_width for pack in packs)


def widths(count: int, machine: Machine = TWO, pack_width: int | str = "calibrated") -> list[int]:
    return [len(p.run_ids) for p in pack_runs(todo(count), {"c": CURVE}, pack_width, machine)]  # type: ignore[arg-type]


def test_packs_are_balanced_and_no_processor_idles() -> None:
    assert sorted(widths(25, pack_width=24)) == [12, 13]
    assert widths(2) == [1, 1]
    assert widths(16) == [8, 8]
    assert len(widths(3, Machine(1, 1, "cpu"))) == 1
    assert max(widths(200)) <= 16, "no wider than pays"


def test_a_dear_start_makes_fewer_and_wider_packs() -> None:
    dear = Machine(2, 2, "cpu", start_s=10_000.0)
    assert len(widths(200, dear)) < len(widths(200))


def test_the_longest_packs_start_first() -> None:
    runs = [*todo(4, "c"), *(Todo(f"d{i}", "d", -1, 10_000) for i in range(4))]
    packs = pack_runs(runs, {"c": CURVE, "d": CURVE}, 2, TWO)
    assert [pack.condition_id for pack in packs] == ["d", "d", "c", "c"]
    assert seconds_in_all(packs, TWO) == max(pack.seconds for pack in packs) + packs[-1].seconds


def test_two_threads_are_used_where_they_are_faster_than_two_packs() -> None:
    curve = [AssumedTiming(w, t, w / t**1.2) for w in (1, 8) for t in (1, 2)]
    packs = pack_runs(todo(16), {"c": curve}, "calibrated", TWO)
    assert {pack.threads for pack in packs} == {2}


@pytest.mark.parametrize(("cpus", "threads"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8)])
def test_threads_are_powers_of_two(cpus: int, threads: int, study: Callable[..., Study]) -> None:
    assert most_threads(cpus) == threads
    timings = assumed_timings(study().points[0].condition, Machine(cpus, cpus, "cpu"))
    assert {t.threads for t in timings} == {1, threads}


def test_the_name_of_a_pack_is_its_set_of_runs() -> None:
    one, two = pack_runs(todo(4), {"c": CURVE}, 2, TWO)
    assert one.key != two.key
    assert len(one.key) == 16
    again = pack_runs(list(reversed(todo(4))), {"c": CURVE}, 2, TWO)
    assert {p.key for p in again} == {one.key, two.key}


GIB = 1 << 30
# Wider is always faster for each run, and takes 1 GiB more for each.
HUNGRY = [AssumedTiming(w, 1, 8 + w, memory_bytes=w * GIB) for w in (1, 2, 4, 8, 16, 32)]


def test_no_pack_is_planned_that_does_not_fit_the_memory_of_a_node() -> None:
    small = Machine(4, 4, "cpu", nodes=(Node(2, 10 * GIB), Node(2, 6 * GIB)))
    packs = pack_runs(todo(64), {"c": HUNGRY}, "calibrated", small)
    assert max(len(pack.run_ids) for pack in packs) <= 8
    assert all(small.fits({pack.shape: 1}) for pack in packs)
    assert all(pack.needs.memory_bytes >= len(pack.run_ids) * GIB for pack in packs)
    roomy = Machine(4, 4, "cpu", nodes=(Node(4, 200 * GIB),))
    assert len(pack_runs(todo(64), {"c": HUNGRY}, "calibrated", roomy)) < len(packs)
    given_width = pack_runs(todo(64), {"c": HUNGRY}, 32, small)
    assert max(len(pack.run_ids) for pack in given_width) == 8, "a width that was asked for does not fit, either"


def test_a_run_that_fits_nowhere_is_tried_alone() -> None:
    tiny = Machine(2, 2, "cpu", nodes=(Node(2, GIB // 2),))
    packs = pack_runs(todo(3), {"c": HUNGRY}, "calibrated", tiny)
    assert [len(pack.run_ids) for pack in packs] == [1, 1, 1]
    assert tiny.fits({packs[0].shape: 1}), "and asks for no more than there is, or it would wait for ever"


def test_packs_share_a_gpu_where_that_is_faster() -> None:
    gpus = Machine(8, 8, "cuda", nodes=(Node(8, gpus=2.0, gpu_bytes=80 * GIB),))
    alone = [AssumedTiming(w, 1, 4 + w) for w in (1, 8)]
    for slower, share in ((1.2, 0.5), (2.5, 1.0)):
        beside = [AssumedTiming(w, 1, (4 + w) * slower, packs_per_gpu=2) for w in (1, 8)]
        packs = pack_runs(todo(64), {"c": [*alone, *beside]}, "calibrated", gpus, Needs(gpu_share=1.0))
        assert {pack.needs.gpu_share for pack in packs} == {share}
        assert gpus.side_by_side(1, packs[0].needs) == 2 / share


def test_few_runs_are_split_until_no_gpu_is_idle() -> None:
    gpus = Machine(32, 32, "cuda", nodes=(Node(16, gpus=2.0), Node(16, gpus=2.0)))
    flat = [AssumedTiming(w, 1, 8.0 + w) for w in (1, 32)]
    packs = pack_runs(todo(8), {"c": flat}, "calibrated", gpus, Needs(gpu_share=1.0))
    assert len(packs) == 4
    assert seconds_in_all(packs, gpus) == max(pack.seconds for pack in packs)


def whole(**engine: object) -> Condition:
    spec = {"huggingface": "gpt_neox", "layers": 2, "width": 16, "heads": 2}
    return condition(spec, training={"steps": 5, "batch_size": 8}, engine={"name": "accelerate", **engine})


def test_a_whole_model_takes_the_cpus_and_gpus_of_all_its_processes() -> None:
    spec = whole(processes=2, threads=2)
    machine = Machine(8, 8, "cpu", nodes=(Node(4), Node(4)))
    packs = pack_runs(todo(3), {"c": assumed_timings(spec, machine)}, "calibrated", machine)
    assert [(len(pack.run_ids), pack.threads) for pack in packs] == [(1, 4)] * 3
    assert machine.side_by_side(4) == 2, "one on each node"
    gpus = Machine(16, 16, "cuda", nodes=(Node(16, gpus=4.0, gpu_bytes=1 << 30),))
    packs = pack_runs(todo(1), {"c": assumed_timings(spec, gpus)}, "calibrated", gpus, Needs(gpu_share=1.0))
    assert packs[0].needs.gpu_share == 2.0
    assert gpus.side_by_side(packs[0].threads, packs[0].needs) == 2


def test_several_whole_models_share_a_pack_where_the_study_says_so() -> None:
    packs = pack_runs(todo(4), {"c": assumed_timings(whole(), TWO)}, 4, TWO)
    assert [(len(pack.run_ids), pack.threads) for pack in packs] == [(4, 1)]
