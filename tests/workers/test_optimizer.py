"""AdamW over the flat buffer against torch's own, and the schedule by hand."""

import pytest
import torch

from jobs.spec import OptimizerSpec
from workers.optimizer import CHUNK, AdamW, learning_rate


def test_updates_are_those_of_torch() -> None:
    torch.manual_seed(0)
    spec = OptimizerSpec(learning_rate=0.01, weight_decay=0.1, beta2=0.99, grad_clip_norm=None)
    start = torch.randn(2, CHUNK)
    ours = AdamW(spec, 10, start.clone(), decayed=300)
    decayed, plain = start[:, :300].clone().requires_grad_(), start[:, 300:].clone().requires_grad_()
    groups = [{"params": [decayed], "weight_decay": 0.1}, {"params": [plain], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    for step in range(10):
        gradient = torch.randn(2, CHUNK)
        ours.gradients.copy_(gradient)
        ours.update(step)
        decayed.grad, plain.grad = gradient[:, :300], gradient[:, 300:]
        theirs.step()
    torch.testing.assert_close(ours.weights, torch.cat([decayed, plain], dim=1).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1]),
        ("cosine", [0.5, 1.0, 1.0, 0.868198, 0.55, 0.231802, 0.1]),
    ],
)
def test_the_schedule_warms_up_and_ends_at_the_final_fraction(decay: str, expected: list[float]) -> None:
    spec = OptimizerSpec.model_validate({"learning_rate": 1.0, "warmup_steps": 2, "decay": decay})
    assert [learning_rate(spec, step, 7) for step in range(7)] == pytest.approx(expected, abs=1e-6)


def test_norms_are_per_run() -> None:
    optimizer = AdamW(OptimizerSpec(learning_rate=1.0), 1, torch.zeros(3, 2 * CHUNK), decayed=0)
    optimizer.gradients[1, 5], optimizer.gradients[1, CHUNK + 5] = 3.0, 4.0
    optimizer.gradients[2, 0] = 0.5
    norms = optimizer.norms()
    assert norms.tolist() == [0.0, 5.0, 0.5]
    optimizer.clip(norms, 0)
    assert optimizer.norms().tolist() == pytest.approx([0.0, 1.0, 0.5], rel=1e-5)
