"""What a whole model takes of a device, against numbers worked out by hand and counts made by the model itself."""

from pathlib import Path
from typing import Any

import pytest

from jobs.flops import Sizes, training_flops
from jobs.study_file import parse_study
from orchestrator.cli.show import pack_hours_line
from orchestrator.costs import DEVICES, UTILISATION, cost, pack_hours
from orchestrator.machine import Machine
from orchestrator.plan import plan
from tests.workers.test_models import condition

NEOX = {"huggingface": "gpt_neox", "layers": 2, "width": 16, "heads": 2}
PACKED = """\
study: widths
task: {name: parity, bits: 6, subset: 2, test_size: 32}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 12, batch_size: 8}
grid: {model.width: [8, 16]}
seeds: {design: paired, count: 3}
"""
P, V, T, TOKENS = 10_000, 50, 32, 1_000


def of(**engine: Any) -> Any:
    training = {"steps": 1, "batch_size": 8}
    found = cost(condition(NEOX, training=training, engine={"name": "accelerate", **engine}), P, V, T, TOKENS)
    assert found is not None
    return found


def test_one_process_in_float32() -> None:
    found = of()
    assert found.flops == (6 * P + 12 * 2 * 16 * T) * TOKENS
    memory = found.memory
    assert (memory.weights, memory.gradients, memory.moments) == (4 * P, 4 * P, 8 * P)
    values = 8 * T * 16
    assert memory.activations == 2 * 68 * values + 3 * 4 * 8 * T * V, "34 bytes a value in 16 bit, 68 in 32; logits"
    assert memory.total == 16 * P + memory.activations
    assert [hours.device for hours in found.hours] == [device.name for device in DEVICES]
    assert found.hours[2].hours == pytest.approx(found.flops / (19.5e12 * UTILISATION) / 3600)


def test_what_makes_it_smaller() -> None:
    plain, half = of(), of(precision="bf16")
    assert half.memory.weights == plain.memory.weights, "weights stay float32"
    assert half.memory.activations < plain.memory.activations
    assert half.hours[1].hours == pytest.approx(plain.hours[1].hours * 67 / 989)
    logits = 3 * 4 * 8 * T * V
    parts = of(accumulate=4).memory
    assert parts.activations * 4 == plain.memory.activations
    again = of(recompute=True)
    assert again.flops == plain.flops * 4 // 3
    assert again.memory.activations - logits == 8 * T * 16 * (2 * 4 + 68), "two inputs, and one block at a time"


def test_shards() -> None:
    ddp, fsdp = of(processes=2).memory, of(processes=2, sharding="fsdp").memory
    assert (ddp.weights, ddp.moments) == (4 * P, 8 * P)
    assert (fsdp.weights, fsdp.gradients, fsdp.moments) == (2 * P, 2 * P, 4 * P)
    zero = {stage: of(name="deepspeed", stage=stage, processes=4).memory for stage in (1, 2, 3)}
    assert [(zero[s].weights, zero[s].gradients, zero[s].moments) for s in (1, 2, 3)] == [
        (4 * P, 4 * P, 2 * P),
        (4 * P, P, 2 * P),
        (P, P, 2 * P),
    ]
    half = of(name="deepspeed", stage=1, processes=4, precision="bf16").memory
    assert (half.weights, half.gradients, half.moments) == (2 * P, 2 * P, 3 * P), (
        "two bytes, and float32 beside moments"
    )
    beside = of(name="deepspeed", stage=2, processes=4, precision="bf16", offload=True).memory
    assert (beside.weights, beside.gradients, beside.moments) == (2 * P, P // 2, 0), "the CPU has the rest"


def test_packs_are_measured_and_large_ones_do_not_fit() -> None:
    gpt = {"family": "gpt", "layers": 1, "width": 8, "heads": 2}
    assert cost(condition(gpt), P, V, T, TOKENS) is None
    spec = condition(NEOX)
    large = cost(spec, 4_000_000_000, V, T, TOKENS)
    assert large is not None
    assert {hours.device for hours in large.hours if hours.fits} == {"H200", "H100", "A100"}


def test_hours_of_packs_by_hand_and_a_run_too_large_for_a_device() -> None:
    gpt = condition({"family": "gpt", "layers": 1, "width": 8, "heads": 2})
    hours = pack_hours(gpt, P, 67 * 10**15)
    assert [(one.device, one.fits) for one in hours] == [(device.name, True) for device in DEVICES]
    assert hours[1].hours == pytest.approx(67e15 / (67e12 * 0.4) / 3600), "2,500 s on an H100"
    assert {one.device for one in pack_hours(gpt, 3_000_000_000, 1) if not one.fits} == {"L40S", "RTX 4090"}
    assert pack_hours(condition(NEOX), P, 1) == (), "whole modules have a cost"


def test_a_plan_adds_the_hours_of_what_is_left_to_train(tmp_path: Path) -> None:
    study = parse_study(PACKED, "study.yaml", tmp_path)
    found = plan(study, None, Machine(1, packs_at_once=1, device="cpu"))
    hours = found.hours()
    assert [one.device for one in hours] == [device.name for device in DEVICES]
    assert hours[2].hours == pytest.approx(found.total("flops") / (19.5e12 * UTILISATION) / 3600)
    assert found.total("flops") == sum(condition.flops for condition in found.conditions) > 0
    assert len(found.conditions) == 2
    assert f"A100 {hours[2].hours:.2g} h" in pack_hours_line(found)
    (tmp_path / "train.py").touch()
    scripted = PACKED.replace("seeds:", "engine: {command: python train.py}\nseeds:")
    assert (
        plan(parse_study(scripted, "study.yaml", tmp_path), None, Machine(1, packs_at_once=1, device="cpu")).hours()
        == ()
    )


def test_passes_of_a_sharpness_aware_step_are_counted() -> None:
    gpt = {"family": "gpt", "layers": 1, "width": 4, "heads": 1}
    late = {"piecewise": [[0, 0.0], [5, 0.1]]}
    found = [
        training_flops(condition(gpt, optimizer={"learning_rate": 1e-2, **method}), Sizes.whole(10), 8, 100)
        for method in (
            {},
            {"sharpness_radius": late},
            {"sharpness_radius": 0.1, "trust_region_noise": 0.1},
            {"sharpness_radius": 0.1, "trust_region": "previous"},
        )
    ]
    assert found == [6_000, 12_000, 16_000, 16_000]
