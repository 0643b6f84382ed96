"""What trust costs: determinism switched on, checkpoints beside training, and how long the loop stands still.

    python -m benchmarks.checkpointing

Determinism: one loop of training steps, in alternating processes, with every switch set and MKL in its reproducible
mode, and with both off. Checkpoints: the same loop in one process, alternating, with the real saver into a real store
(a checkpoint every so many steps, hashed and fsynced) and with none. Standing still: what `save` takes inside the loop,
over what the same save takes until it is durable.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.packing import sized
from jobs.claims import FRESH, claim
from jobs.layout import PackKeys
from jobs.store import open_store
from workers.crew import Crew, Member
from workers.determinism import make_deterministic
from workers.engines.packed import PackedEngine
from workers.probes import Tally
from workers.saver import Saver
from workers.shards import ShardWriter
from workers.writer import Writer

RUNS = 8


def engine_of(width: int) -> PackedEngine:
    """Return a pack of 8 runs of the model that `benchmarks.packing` measures."""
    return sized(width).engine(RUNS)


def seconds_per_step(width: int, steps: int) -> float:
    """Return the median seconds of a training step in this process."""
    engine, (inputs, targets) = engine_of(width), sized(width).tokens(RUNS)
    taken = []
    for step in range(steps):
        start = time.perf_counter()
        engine.train_step(step, inputs, targets)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[steps // 5 :])


def determinism(width: int, steps: int, rounds: int) -> float:
    """Return the time of a step with determinism on over that with it off, from alternating processes."""
    ratios = []
    for _ in range(rounds):
        found = {}
        for switch in ("on", "off"):
            environment = os.environ | {"MKL_CBWR": "AUTO" if switch == "on" else "OFF"}
            command = [sys.executable, "-m", "benchmarks.checkpointing", "--one", switch, str(width), str(steps)]
            found[switch] = float(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE).stdout)
        ratios.append(found["on"] / found["off"])
    return statistics.median(ratios)


def one(switch: str, width: int, steps: int) -> float:
    """Return the seconds per step with the switches of determinism set, or as torch has them."""
    if switch == "on":
        make_deterministic(2, RUNS)
    else:
        torch.set_num_threads(2)
    return seconds_per_step(width, steps)


def checkpoints(width: int, every: int, rounds: int) -> tuple[float, float, float]:
    """Return a loop's time with checkpoints over without, what a save holds it up over a whole save, and MB."""
    make_deterministic(2, RUNS)
    engine, (inputs, targets) = engine_of(width), sized(width).tokens(RUNS)
    tally, ratios, still, whole = Tally.empty(RUNS), [], [], []
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder, Writer() as writer:
        store = open_store(Path(folder) / "store", create=True)
        keys = PackKeys("bench.0001")
        claims = [claim(store, f"r{slot}", "bench.0001", (FRESH, ""), {}, after=0) for slot in range(RUNS)]
        crew = Crew("bench.0001", [Member(slot, mine) for slot, mine in enumerate(claims)])
        saver = Saver(store, keys, crew, ShardWriter(store, keys, time.monotonic), writer, "bench", {}, FRESH)
        step = 0

        def loop(*, saved: bool) -> float:
            nonlocal step
            start = time.perf_counter()
            for _ in range(every):
                engine.train_step(step, inputs, targets)
                step += 1
            if saved:
                before = time.perf_counter()
                saver.save(step, "rolling", engine, tally)
                still.append(time.perf_counter() - before)
            return time.perf_counter() - start

        loop(saved=True)
        saver.wait()
        for _ in range(rounds):
            # The checkpoint of one round is written beside the next: two rounds in a row bear it whole.
            with_them = loop(saved=True) + loop(saved=True)
            saver.wait()
            ratios.append(with_them / (loop(saved=False) + loop(saved=False)))
            engine.train_step(step, inputs, targets)
            step += 1
            start = time.perf_counter()
            saver.save(step, "rolling", engine, tally)
            saver.wait()
            whole.append(time.perf_counter() - start)
        size = sum(tensor.nbytes for tensor in engine.state().values()) / 1e6
    return statistics.median(ratios), statistics.median(still) / statistics.median(whole), size


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[16, 64, 128])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=3, metavar=("SWITCH", "WIDTH", "STEPS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(one(given.one[0], int(given.one[1]), int(given.one[2])))
        return
    print(
        f"| width | determinism on / off | a checkpoint every {given.every} steps / none "
        "| stands still / whole save | MB |"
    )
    print("| --- | --- | --- | --- | --- |")
    for width in given.widths:
        cost = determinism(width, given.steps, given.rounds)
        ratio, still, size = checkpoints(width, given.every, given.rounds)
        print(f"| {width} | {cost:.3f} | {ratio:.3f} | {still:.1%} | {size:.1f} |", flush=True)


if __name__ == "__main__":
    main()
