"""Seeds on one GPU: run-steps per second of packs beside one run per process, `torch.compile`, and the matrix rate.

    python -m benchmarks.gpu [--sizes tiny small base large] [--packs 1 8 64 512] [--whole] [--device cuda]

Every arm is a process of its own, so that its memory is its own. Processes that run side by side wait for each
other before they measure; where `nvidia-cuda-mps-control` is there, they are measured under MPS, too, with a daemon of
this program's own. `--whole` adds one run of 124 million parameters in bf16 with the engine `accelerate`. Products are
counted as in `benchmarks.models`, against a large product of the same precision in the same process. On a CPU
(`--device cpu`) the same code runs, for its test.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import numpy as np
import torch

from benchmarks.models import Size, matrix_rate, one_at_a_time, packed, seconds
from jobs.seeds import Seeds, Streams
from workers.determinism import make_deterministic
from workers.engines.modules import ModuleEngine
from workers.engines.replica import Shape

PACKS, SIDE_BY_SIDE = (1, 2, 8, 32, 64, 128, 256, 512), (1, 4, 16)
GOAL_WIDTH, GOAL_TIMES, GOAL_SHARE = 64, 20, 0.5
MATRIX = {"cuda": 8192, "cpu": 512}
_WARM_UP = 3
SIZES = {
    "tiny": Size(2, 16, 4, 32, 32, 32),
    "small": Size(2, 64, 4, 32, 32, 32),
    "base": Size(4, 256, 8, 256, 64, 32),
    "large": Size(8, 512, 8, 512, 128, 16),
    "whole": Size(12, 768, 12, 50_304, 512, 16),
}


def whole(size: Size, device: str) -> Callable[[], None]:
    """Return a function that makes one step of one run in bf16 with the engine `accelerate`."""
    asked = size.condition(engine={"name": "accelerate", "precision": "bf16"})
    shape = Shape(size.vocabulary, size.length, 0)
    engine = ModuleEngine(asked, shape, [Streams(Seeds(0, 0, 0, 0))], device)
    inputs, targets = size.tokens(1)
    steps = iter(range(10**9))
    return lambda: engine.train_step(next(steps), inputs, targets)


def carry_out(arm: str, size: Size, device: str, at_least: float, ready: Path | None) -> dict[str, float]:
    """Measure one arm in this process: run-steps a second, GB at the most, share of the matrix rate."""
    kind, _, number = arm.partition(" ")
    runs = int(number or 1)
    make_deterministic(1 if device == "cpu" else 8, runs)
    made: dict[str, Callable[[], Callable[[], None]]] = {
        "pack": lambda: packed(size, runs, device),
        "alone": lambda: one_at_a_time(size, device),
        "compiled": lambda: one_at_a_time(size, device, compiled=True),
        "whole": lambda: whole(size, device),
    }
    step = made[kind]()
    for _ in range(_WARM_UP):
        step()
    if ready is not None:
        (ready / str(os.getpid())).touch()
        while not (ready / "go").exists():
            time.sleep(0.01)
    rate = runs / seconds(step, at_least, device)
    bytes_most = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    precision = torch.bfloat16 if kind == "whole" else torch.float32
    matrix = matrix_rate(MATRIX[device], device, precision) if ready is None else np.nan
    return {"rate": rate, "gb": bytes_most / 1e9, "share": rate * size.step_flops / matrix}


def measured(arm: str, name: str, given: argparse.Namespace, processes: int = 1) -> dict[str, float] | None:
    """Return what so many processes of an arm measure, rates added up; None where one failed, such as for memory."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--arm", arm, "--sizes", name]
    command += ["--device", given.device, "--seconds", str(given.seconds)]
    with tempfile.TemporaryDirectory() as folder:
        if processes > 1:
            command += ["--ready", folder]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        while processes > 1 and len(list(Path(folder).iterdir())) < processes:
            if any(process.poll() for process in started):
                break
            time.sleep(0.02)
        (Path(folder) / "go").touch()
        ends = [(*process.communicate(), process.returncode) for process in started]
    if any(code for _, _, code in ends):
        said = next(errors for _, errors, code in ends if code).strip().rpartition("\n")[2]
        print(f"    {name}, {arm}: {said[:200]}", file=sys.stderr)
        return None
    found = [json.loads(text) for text, _, _ in ends]
    return {
        "rate": sum(each["rate"] for each in found),
        "gb": sum(each["gb"] for each in found),
        "share": found[0]["share"],
    }


@contextmanager
def mps() -> Iterator[bool]:
    """Yield whether processes started now share the GPU by MPS: a daemon of its own, ended afterwards."""
    control = which("nvidia-cuda-mps-control")
    if control is None:
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        began = subprocess.run([control, "-d"], check=False).returncode == 0
        try:
            yield began
        finally:
            if began:
                subprocess.run([control], input="quit\n", text=True, check=False)
            del os.environ["CUDA_MPS_PIPE_DIRECTORY"], os.environ["CUDA_MPS_LOG_DIRECTORY"]


def table(name: str, given: argparse.Namespace) -> None:
    """Print the table of one size."""
    size = SIZES[name]
    rows = [(f"one run a process, {many} at once", measured("alone", name, given, many)) for many in given.processes]
    if max(given.processes) > 1:
        with mps() as on:
            if on:
                many = max(given.processes)
                rows.append((f"one run a process, {many} at once, MPS", measured("alone", name, given, many)))
    if given.compile:
        rows.append(("one run, torch.compile", measured("compiled", name, given)))
    rows += [(f"pack of {runs}", measured(f"pack {runs}", name, given)) for runs in given.packs]
    peer = next((found["rate"] for _, found in rows if found), float("nan"))
    print(f"\n### {name}: {size.layers} layers of width {size.width}, {size.length} tokens, batch {size.batch}\n")
    print("| what | run-steps/s | × one run a process | GB | share of the matrix rate |")
    print("| --- | --- | --- | --- | --- |")
    for what, found in rows:
        if found is None:
            print(f"| {what} | failed | | | |")
            continue
        share = f"{found['share']:.0%}" if np.isfinite(found["share"]) else ""
        print(
            f"| {what} | {found['rate']:,.0f} | {found['rate'] / peer:.2f} | {found['gb']:.2f} | {share} |", flush=True
        )
    packs = [found["rate"] / peer for what, found in rows if found and what.startswith("pack of ")]
    if size.width == GOAL_WIDTH and packs:
        print(f"\nSeeds an hour beside one run a process: {max(packs):.1f} times (goal {GOAL_TIMES})")


def main(words: Sequence[str] | None = None) -> None:
    """Measure what is asked for, size by size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=["tiny", "small", "base", "large"])
    parser.add_argument("--packs", type=int, nargs="+", default=list(PACKS))
    parser.add_argument("--processes", type=int, nargs="+", default=list(SIDE_BY_SIDE), help="plain runs side by side")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="without torch.compile")
    parser.add_argument("--whole", nargs="?", const="whole", choices=list(SIZES), help="one run in bf16")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--arm", default="", help=argparse.SUPPRESS)
    parser.add_argument("--ready", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(words)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here; --device cpu tries the program itself")
    if given.arm:
        print(json.dumps(carry_out(given.arm, SIZES[given.sizes[0]], given.device, given.seconds, given.ready)))
        return
    print(torch.cuda.get_device_name() if given.device == "cuda" else "a CPU", f"torch {torch.__version__}")
    for name in given.sizes:
        table(name, given)
    if given.whole and (found := measured("whole", given.whole, given)):
        size = SIZES[given.whole]
        print(f"\n{size.weights / 1e6:.1f} million parameters, accelerate, bf16: ", end="")
        print(f"{found['rate'] * size.batch * size.length:,.0f} tokens/s, {found['gb']:.1f} GB, ", end="")
        print(f"{found['share']:.0%} of the matrix rate (goal {GOAL_SHARE:.0%} from 100 million on)")


if __name__ == "__main__":
    main()
