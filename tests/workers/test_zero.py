"""DeepSpeed's ZeRO on two processes: the numbers of one process, exact resumption, and what is missing without it."""

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch

from jobs.errors import ModelError
from jobs.spec import Condition, DeepSpeedSpec
from jobs.store import open_store
from tests.workers.test_modules import NEOX, STEPS, batch, differences, engine_for, made, trained
from tests.workers.test_processes import saved_in_parts, train
from workers.checkpoint import slice_digest, stored_rows
from workers.engines.choice import switch
from workers.models.huggingface import library
from workers.parts import whole_digest

# What DeepSpeed itself uses of torch is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning")
MODEL = NEOX | {"dropout": 0.2}


@pytest.fixture(autouse=True)
def switches() -> None:
    switch(made(NEOX), 1, 1)


def zero(stage: int, **options: object) -> Condition:
    asked = {"name": "deepspeed", "stage": stage, "processes": 2, "accumulate": 2} | options
    return made(MODEL).model_copy(update={"engine": DeepSpeedSpec.model_validate(asked)})


def initial() -> dict[str, torch.Tensor]:
    with closing(engine_for(made(MODEL), 0)) as engine:
        return {name: tensor.clone() for name, tensor in engine.state().items()}


@pytest.mark.slow
@pytest.mark.parametrize("offload", [False, True], ids=["", "offload"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_stages_train_like_one_process_and_go_on_as_if_never_stopped(stage: int, offload: bool, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    half = STEPS // 2
    one = trained(made(MODEL, accumulate=4), 0)
    losses, begin = one.pop("reported"), initial()
    with closing(engine_for(zero(stage, offload=offload), 0)) as engine:
        (replica,) = engine._replicas
        assert bool(replica.layout._engine.zero_cpu_offload()) is offload  # type: ignore[attr-defined]
        assert slice_digest(engine.state(), 0) == slice_digest(begin, 0)
        middle = train(engine, range(half))
        inputs = batch(3, 0)[0]
        shown = [*engine.hidden(inputs), *engine.attention(inputs)]
        saved = saved_in_parts(engine, open_store(tmp_path / "store", create=True), half)
        assert saved.slice.sha256 == whole_digest(middle, 0, engine.cuts)
        end = train(engine, range(half, STEPS))
        assert engine.losses[0] == pytest.approx(float(losses[0, -1, 0]), rel=1e-5)
        assert engine.grad_norms[0] == pytest.approx(float(losses[0, -1, 1]), rel=1e-4)
    assert differences(end, one) < 2e-5
    with closing(engine_for(made(MODEL), 0)) as alone:
        alone.load(middle)
        torch.testing.assert_close(shown, [*alone.hidden(inputs), *alone.attention(inputs)], rtol=1e-5, atol=1e-6)
    assert len(saved.manifest.extra["parts"]) == 2
    with closing(engine_for(zero(stage, offload=offload), 0)) as fresh:
        stored = stored_rows(open_store(tmp_path / "store"), [saved])
        fresh.load(stored)
        stored.finish()
        assert slice_digest(fresh.state(), 0) == slice_digest(middle, 0)
        assert slice_digest(train(fresh, range(half, STEPS)), 0) == slice_digest(end, 0)


@pytest.mark.parametrize("offload", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "offload"])
def test_bf16_keeps_float32_weights(offload: bool) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    rough, fine = zero(2, precision="bf16", offload=offload), trained(made(MODEL, accumulate=4), 0, steps=3)
    fine.pop("reported")
    with closing(engine_for(rough, 0)) as engine:
        end = train(engine, range(3))
    assert all(tensor.dtype == torch.float32 for tensor in end.values())
    weights = {name: tensor for name, tensor in end.items() if name.startswith("model.")}
    assert 1e-6 < differences(weights, {name: fine[name] for name in weights}) < 0.05
    left = [name for name in os.environ if name.startswith("ACCELERATE_")]
    assert left == [], "a Trainer in this process, or a script that it starts, would take it for its own wish"


@pytest.mark.slow
def test_a_pack_of_two_runs() -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    one = trained(made(MODEL, accumulate=4), 0, 1, steps=3)
    one.pop("reported")
    with closing(engine_for(zero(3), 0, 1)) as engine:
        for step in range(3):
            engine.train_step(step, *batch(step, 0, 1))
        both = engine.state()
    assert differences(one, both) < 2e-5


@pytest.mark.slow
def test_what_trains_after_stage_3_in_the_same_process_computes_as_before_it() -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
    linear, before = torch.nn.functional.linear, trained(made(MODEL), 0)
    with closing(engine_for(zero(3), 0)) as engine:
        train(engine, range(2))
        assert torch.nn.functional.linear is not linear, "DeepSpeed's own, until it is taken back"
    assert torch.nn.functional.linear is linear
    after = trained(made(MODEL), 0)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_without_deepspeed_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed.comm.comm", None)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(ModelError, match=r"engine deepspeed needs deepspeed, .*pip install 'seedbed\[deepspeed\]'"):
        library("deepspeed.comm.comm", "engine deepspeed")
