"""Parameters that two processes cannot share equally, such as the bias of a masked model's head over 7 tokens."""

from contextlib import closing

import pytest

from jobs.spec import DeepSpeedSpec
from tests.workers.test_modules import NEOX, differences, engine_for, made, trained
from tests.workers.test_processes import train
from workers.checkpoint import slice_digest
from workers.engines.choice import switch

pytest.importorskip("transformers")
pytest.importorskip("accelerate")
# What DeepSpeed itself uses of torch is on its way out there.
pytestmark = pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning", "ignore:.*deprecated:DeprecationWarning")
BERT = NEOX | {"huggingface": "bert", "attention": "full"}


@pytest.mark.parametrize("engine", ["fsdp", "deepspeed"])
def test_a_masked_model_goes_on_as_if_never_stopped(engine: str) -> None:
    switch(made(NEOX), 1, 1)
    spec = made(BERT, processes=2, sharding="fsdp")
    if engine == "deepspeed":
        pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'seedbed[deepspeed]'")
        zero = {"name": "deepspeed", "stage": 3, "processes": 2}
        spec = spec.model_copy(update={"engine": DeepSpeedSpec.model_validate(zero)})
    one = trained(made(BERT, accumulate=2), 0, steps=3)
    one.pop("reported")
    with closing(engine_for(spec, 0)) as whole:
        assert any(tensor[0].numel() % 2 for name, tensor in whole.state().items() if name.startswith("model."))
        middle = train(whole, range(2))
        end = train(whole, range(2, 3))
        whole.load(middle)
        assert slice_digest(whole.state(), 0) == slice_digest(middle, 0)
        assert slice_digest(train(whole, range(2, 3)), 0) == slice_digest(end, 0)
    assert differences(end, one) < 2e-5
