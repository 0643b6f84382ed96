"""Seeds side by side: run-steps per second of packs beside the same model trained one run at a time.

    python -m benchmarks.packing --widths 16 32 64 128

For each model width, in one process, interleaved and repeated: plain PyTorch one run at a time (module, fused AdamW,
`clip_grad_norm_`), packs of 1 to 64 runs, and JAX's `jit(vmap(step))` where JAX is installed; beside it, one process
per run (as many as cores, one thread each). The share of the matrix rate counts 6 x parameters x tokens, the products
of attention, and nothing else, against a large product measured in the same process.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn import functional as F

from jobs.seeds import Seeds, Streams
from jobs.spec import Condition
from workers.determinism import make_deterministic
from workers.engines.packed import PackedEngine
from workers.models import plain

VOCABULARY, LAYERS, HEADS = 32, 2, 4
LENGTH, BATCH = int(os.environ.get("BENCH_LENGTH", "32")), int(os.environ.get("BENCH_BATCH", "32"))
PACK_WIDTHS = (1, 2, 4, 8, 16, 32, 64)


def condition(width: int) -> Condition:
    """Return the model that is measured: 2 layers, 4 heads, 32 tokens, batch 32."""
    return Condition.model_validate(
        {
            "task": {"name": "random", "code": "version:1", "parameters": {}},
            "model": {"family": "gpt", "layers": LAYERS, "width": width, "heads": HEADS},
            "optimizer": {"learning_rate": 1e-3},
            "training": {"steps": 100_000, "batch_size": BATCH},
            "probes": [],
            "milestones": [],
        }
    )


def tokens(runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs and targets [run, batch, length], a target at every position."""
    generator = np.random.default_rng(0)
    return tuple(generator.integers(0, VOCABULARY, size=(runs, BATCH, LENGTH)) for _ in range(2))  # type: ignore[return-value]


def packed(width: int, runs: int) -> Callable[[], None]:
    """Return a function that makes one step of a pack."""
    engine = PackedEngine(
        condition(width), VOCABULARY, LENGTH, [Streams(Seeds(i, i, i, 0)) for i in range(runs)], "cpu"
    )
    inputs, targets = tokens(runs)
    steps = iter(range(10**9))
    return lambda: engine.train_step(next(steps), inputs, targets)


def one_at_a_time(width: int) -> Callable[[], None]:
    """Return a function that makes one step of one run in plain PyTorch."""
    module = plain.build(condition(width).model, VOCABULARY, LENGTH)
    engine = PackedEngine(condition(width), VOCABULARY, LENGTH, [Streams(Seeds(0, 0, 0, 0))], "cpu")
    module.load_state_dict({n: engine.state()[f"model.{n}"][0] for n, _ in module.named_parameters()})
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    inputs, targets = (torch.from_numpy(part[0]) for part in tokens(1))
    use_fast_attention(module)

    def step() -> None:
        optimizer.zero_grad()
        loss = F.cross_entropy(module(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()

    return step


def use_fast_attention(module: torch.nn.Module) -> None:
    """Let the plain module use the attention and the norm that PyTorch has: the peer as a good user writes it."""
    assert isinstance(module, plain.PlainGpt)
    for block in module.blocks:
        block.attention.forward = _fast_attention(block.attention)  # type: ignore[union-attr, method-assign]
    for gain in [module.norm, *(n for b in module.blocks for n in (b.norm_1, b.norm_2))]:  # type: ignore[union-attr]
        gain.forward = lambda x, gain=gain: F.rms_norm(x, x.shape[-1:], gain.gain, 1e-5)  # type: ignore[method-assign, union-attr]


def _fast_attention(attention: torch.nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    def forward(x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        q, k, v = (x @ attention.qkv).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)  # type: ignore[union-attr]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, length, width) @ attention.out  # type: ignore[return-value]

    return forward


def seconds(step: Callable[[], None], at_least: float) -> float:
    """Return the mean time of a step over at least so many seconds."""
    count, start = 0, time.perf_counter()
    while True:
        step()
        count += 1
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / count


def matrix_rate() -> float:
    """Return the measured FLOP/s of a large product."""
    a, b = torch.randn(2, 2048, 2048).unbind(0)
    a, b = a.contiguous(), b.contiguous()
    times = []
    for _ in range(8):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times)


def step_flops(width: int) -> float:
    """Return the FLOPs of products in one step of one run: weights, attention and head, forward and backward."""
    rows = BATCH * LENGTH
    weights = LAYERS * 12 * width * width + VOCABULARY * width
    attention = LAYERS * 2 * LENGTH * width
    return 6.0 * rows * (weights + attention)


def candidates(width: int, threads: int) -> Iterator[tuple[str, Callable[[], None], int]]:
    """Yield name, step and runs of everything that shares a process."""
    make_deterministic(threads, 64)
    yield "one at a time", one_at_a_time(width), 1
    for runs in PACK_WIDTHS:
        yield f"pack of {runs}", packed(width, runs), runs
    try:
        from benchmarks.jax_peer import jax_step
    except ImportError:
        return
    for runs in (8, 32):
        yield f"JAX vmap {runs}", jax_step(width, runs, VOCABULARY, LENGTH, BATCH, LAYERS, HEADS), runs


def side_by_side(width: int, name: str, processes: int, at_least: float) -> float:
    """Return run-steps per second of several processes with one thread each, added up."""
    command = [sys.executable, "-m", "benchmarks.packing", "--alone", name, "--widths", str(width)]
    command += ["--seconds", str(at_least)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    return sum(float(process.communicate()[0]) for process in started)


def measure(width: int, threads: int, repeats: int, at_least: float) -> None:
    """Print the table of one model width."""
    everything = list(candidates(width, threads))
    rates: dict[str, list[float]] = {name: [] for name, _, _ in everything}
    matrix: list[float] = []
    for _, step, _ in everything:
        step()
    for _ in range(repeats):
        matrix.append(matrix_rate())
        for name, step, runs in everything:
            # A pack of one run has one thread; see workers/determinism.py.
            torch.set_num_threads(1 if name == "pack of 1" else threads)
            rates[name].append(runs / seconds(step, at_least))
        torch.set_num_threads(threads)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    best = max((name for name in medians if name.startswith("pack")), key=lambda name: medians[name])
    width_of_best = best.rpartition(" ")[2]
    for name, label in (("one at a time", "one process a run"), (best, f"{threads} packs of {width_of_best}")):
        medians[label] = side_by_side(width, name, threads, at_least * repeats)
    rate = statistics.median(matrix)
    peer = medians["one at a time"]
    print(f"\n### width {width}: {threads} threads, matrix rate {rate / 1e9:.0f} GFLOP/s\n")
    print("| what | run-steps/s | × one at a time | share of the matrix rate |")
    print("| --- | --- | --- | --- |")
    for name, value in medians.items():
        share = value * step_flops(width) / rate
        mark = " **best pack**" if name == best else ""
        print(f"| {name}{mark} | {value:,.0f} | {value / peer:.2f} | {share:.0%} |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each measurement")
    parser.add_argument("--alone", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        torch.set_num_threads(1)
        runs = int(given.alone.rpartition(" ")[2]) if given.alone.startswith("pack") else 1
        step = packed(given.widths[0], runs) if given.alone.startswith("pack") else one_at_a_time(given.widths[0])
        step()
        print(runs / seconds(step, given.seconds))
        return
    for width in given.widths:
        measure(width, given.threads, given.repeats, given.seconds)


if __name__ == "__main__":
    main()
