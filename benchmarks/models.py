"""What is measured: a model, one step of it as a pack of runs or alone in plain PyTorch, and the rate of products."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from workers.engines.packed import PackedEngine
from workers.models import plain


@dataclass(frozen=True, slots=True)
class Size:
    """A gpt and its batch."""

    layers: int
    width: int
    heads: int
    vocabulary: int
    length: int
    batch: int

    @property
    def weights(self) -> int:
        """Return how many weights are in products; the head's are the embedding's."""
        return self.layers * 12 * self.width**2 + self.vocabulary * self.width

    @property
    def step_flops(self) -> float:
        """Return the FLOPs of products in one step of one run: weights, attention and head, forward and backward."""
        return 6.0 * self.batch * self.length * (self.weights + self.layers * 2 * self.length * self.width)

    def condition(self, **more: Any) -> Condition:
        """Return the model as a condition."""
        return Condition.model_validate(
            {
                "task": {"name": "random", "code": "version:1", "parameters": {}},
                "model": {"family": "gpt", "layers": self.layers, "width": self.width, "heads": self.heads},
                "optimizer": {"learning_rate": 1e-3},
                "training": {"steps": 100_000, "batch_size": self.batch},
                "probes": [],
                "milestones": [],
            }
            | more
        )

    def tokens(self, runs: int) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs and targets [run, batch, length], a target at every position."""
        generator = np.random.default_rng(0)
        shape = (runs, self.batch, self.length)
        return generator.integers(0, self.vocabulary, size=shape), generator.integers(0, self.vocabulary, size=shape)

    def engine(self, runs: int, device: str = "cpu") -> PackedEngine:
        """Return the engine of a pack of so many runs."""
        streams = [Streams(Seeds(i, i, i, 0)) for i in range(runs)]
        return PackedEngine(self.condition(), self.vocabulary, self.length, streams, device)


def packed(size: Size, runs: int, device: str = "cpu") -> Callable[[], None]:
    """Return a function that makes one step of a pack."""
    engine = size.engine(runs, device)
    inputs, targets = size.tokens(runs)
    steps = iter(range(10**9))
    return lambda: engine.train_step(next(steps), inputs, targets)


def one_at_a_time(size: Size, device: str = "cpu", *, compiled: bool = False, tuned: bool = True) -> Callable[[], None]:
    """Return a function that makes one step of one run in plain PyTorch: module, fused AdamW, `clip_grad_norm_`.

    tuned  with the fused attention and the norm that PyTorch has, and not products and sums as the module writes them
    """
    module = plain.build(size.condition().model, size.vocabulary, size.length)
    state = size.engine(1).state()
    module.load_state_dict({name: state[f"model.{name}"][0] for name, _ in module.named_parameters()})
    if tuned:
        use_fast_attention(module, size.heads)
    module = module.to(device)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    inputs, targets = (torch.from_numpy(part[0]).to(device) for part in size.tokens(1))
    forward = torch.compile(module) if compiled else module

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(forward(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


def use_fast_attention(module: torch.nn.Module, heads: int) -> None:
    """Let the plain module use the attention and the norm that PyTorch has: the peer as a good user writes it."""
    assert isinstance(module, plain.PlainGpt)
    for block in module.blocks:
        block.attention.forward = _fast_attention(block.attention, heads)  # type: ignore[union-attr, method-assign]
    for gain in [module.norm, *(n for b in module.blocks for n in (b.norm_1, b.norm_2))]:  # type: ignore[union-attr]
        gain.forward = lambda x, gain=gain: F.rms_norm(x, x.shape[-1:], gain.gain, 1e-5)  # type: ignore[method-assign, union-attr]


def _fast_attention(attention: torch.nn.Module, heads: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (x @ attention.qkv).view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4)  # type: ignore[union-attr]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, width) @ attention.out  # type: ignore[return-value]

    return forward


def seconds(step: Callable[[], object], at_least: float, device: str = "cpu") -> float:
    """Return the mean time of a step over at least so many seconds."""
    count, start = 0, time.perf_counter()
    while True:
        step()
        count += 1
        if time.perf_counter() - start >= at_least:
            _settle(device)
            return (time.perf_counter() - start) / count


def matrix_rate(rows: int = 2048, device: str = "cpu", kind: torch.dtype = torch.float32) -> float:
    """Return the measured FLOP/s of a large product."""
    a, b = (torch.randn(rows, rows, device=device, dtype=kind) for _ in range(2))
    times = []
    for _ in range(8):
        _settle(device)
        start = time.perf_counter()
        torch.mm(a, b)
        _settle(device)
        times.append(time.perf_counter() - start)
    return 2 * rows**3 / statistics.median(times)


def _settle(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()
