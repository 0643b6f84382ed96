"""Seeds side by side: run-steps per second of packs beside the same model trained one run at a time.

    python -m benchmarks.packing --widths 16 32 64 128

For each model width, in one process, interleaved and repeated: plain PyTorch one run at a time (module, fused AdamW,
`clip_grad_norm_`; with PyTorch's fused attention and norm, and as the module is written), packs of 1 to 64 runs, and
JAX's `jit(vmap(step))` where JAX is installed; beside it, one process per run (as many as cores, one thread each).
The share of the matrix rate counts 6 x parameters x tokens, the products of attention, and nothing else, against a
large product measured in the same process.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator

import torch

from benchmarks.models import Size, matrix_rate, one_at_a_time, packed, seconds
from workers.determinism import make_deterministic
from workers.memory import keeping_freed_memory

VOCABULARY, LAYERS, HEADS = 32, 2, 4
LENGTH, BATCH = int(os.environ.get("BENCH_LENGTH", "32")), int(os.environ.get("BENCH_BATCH", "32"))
PACK_WIDTHS = (1, 2, 4, 8, 16, 32, 64)
SIDE_BY_SIDE = (2, 4, 8)


def sized(width: int) -> Size:
    """Return the model that is measured: 2 layers, 4 heads, 32 tokens, batch 32."""
    return Size(LAYERS, width, HEADS, VOCABULARY, LENGTH, BATCH)


def candidates(width: int, threads: int) -> Iterator[tuple[str, Callable[[], None], int]]:
    """Yield name, step and runs of everything that shares a process."""
    make_deterministic(threads, 64)
    yield "one at a time", one_at_a_time(sized(width)), 1
    yield "one at a time, as the module is written", one_at_a_time(sized(width), tuned=False), 1
    for runs in PACK_WIDTHS:
        yield f"pack of {runs}", packed(sized(width), runs), runs
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
    medians["one process a run"] = side_by_side(width, "one at a time", threads, at_least * repeats)
    for runs in sorted({*SIDE_BY_SIDE, int(best.rpartition(" ")[2])}):
        label = f"{threads} packs of {runs}, one thread each"
        medians[label] = side_by_side(width, f"pack of {runs}", threads, at_least * repeats)
    rate = statistics.median(matrix)
    peer = medians["one at a time"]
    print(f"\n### width {width}: {threads} threads, matrix rate {rate / 1e9:.0f} GFLOP/s\n")
    print("| what | run-steps/s | × one at a time | share of the matrix rate |")
    print("| --- | --- | --- | --- |")
    for name, value in medians.items():
        share = value * sized(width).step_flops / rate
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
        size = sized(given.widths[0])
        step = packed(size, runs) if given.alone.startswith("pack") else one_at_a_time(size)
        with keeping_freed_memory():  # as workers do; all peers have it, too
            step()
            print(runs / seconds(step, given.seconds))
        return
    for width in given.widths:
        with keeping_freed_memory():
            measure(width, given.threads, given.repeats, given.seconds)


if __name__ == "__main__":
    main()
