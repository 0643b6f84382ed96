"""What checkpoints in parts take: time to go on, each byte read once or twice, and the memory of each process.

    python -m benchmarks.sharded

One run on two processes, under FSDP2 and under ZeRO, with a real store on a disk. Going on is measured in alternation
on the same engine: as a pack does it (each process reads its part, and what was read is checked), and as it was before
(the first process reads all to check it, then reads it again and tells it tensor by tensor: what `replay` still does).
Peaks are the most of resident memory while something is done, of the first and of the other process, mapped files
among it; what they had before is beside them.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from jobs.layout import PackKeys
from jobs.seeds import Seeds, Streams
from jobs.store import open_store
from jobs.study_file import parse_study
from workers.checkpoint import Saved, Slice, read_saved, read_slice, save, slice_digest, stored_rows
from workers.engines.choice import switch
from workers.engines.modules import ModuleEngine
from workers.engines.replica import Shape
from workers.part_saver import Place

ENGINES = {
    "FSDP2": "{processes: 2, sharding: fsdp}",
    "ZeRO 1": "{name: deepspeed, stage: 1, processes: 2}",
    "ZeRO 2": "{name: deepspeed, stage: 2, processes: 2}",
    "ZeRO 3": "{name: deepspeed, stage: 3, processes: 2}",
}
STUDY = """\
study: bench
task: {name: parity, bits: 6, subset: 2}
model: {huggingface: gpt_neox, layers: LAYERS, width: WIDTH, heads: 8}
engine: ENGINE
optimizer: {learning_rate: 1e-3}
training: {steps: 10, batch_size: 4}
seeds: {design: paired, count: 1}
"""


class Peaks:
    """The resident memory of this process and of the others that train the run, in MiB."""

    def __init__(self) -> None:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
        places = [Path(f"/proc/{child}") for child in children]
        fellows = [place for place in places if b"workers.engines.fellow" in (place / "cmdline").read_bytes()]
        self._places = [Path("/proc/self"), *fellows]

    def during(self, do: Callable[[], object]) -> tuple[list[float], list[float]]:
        """Return what each process had before, and the most that it has while something is done."""
        before = [self._of(place, "VmRSS:") for place in self._places]
        for place in self._places:
            (place / "clear_refs").write_text("5")  # the peak begins anew
        do()
        return before, [self._of(place, "VmHWM:") for place in self._places]

    def _of(self, place: Path, what: str) -> float:
        lines = (place / "status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def measured(name: str, layers: int, width: int, rounds: int) -> str:
    """Return the row of one engine."""
    text = STUDY.replace("LAYERS", str(layers)).replace("WIDTH", str(width)).replace("ENGINE", ENGINES[name])
    (condition,) = (point.condition for point in parse_study(text, "bench.yaml", Path()).points)
    switch(condition, 1, 1)
    streams, shape = [Streams(Seeds(0, 0, 0, 0))], Shape(8, 8, 0)
    times: dict[str, list[float]] = {"once": [], "twice": []}
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as folder:
        store, keys = open_store(Path(folder) / "store", create=True), PackKeys("bench.0001")
        with closing(ModuleEngine(condition, shape, streams)) as engine:
            peaks, found = Peaks(), list[Saved]()

            def saved() -> None:
                whole = dict[str, torch.Tensor]()
                parts = engine.take(Place(store.url, keys.pack_id), 1, whole).committed(store, keys, 1)
                one = Slice("r", 1, 0, slice_digest(whole, 0, parts), ())
                found.extend(read_saved(store, save(store, keys, 1, "rolling", whole, [one], "e", parts).key))

            def once() -> None:
                rows = stored_rows(store, found)
                engine.load(rows)
                rows.finish()

            had, saving = peaks.during(saved)
            _, loading = peaks.during(once)
            for number in range(rounds):
                both = [("once", once), ("twice", lambda: engine.load(read_slice(store, found[0])))]
                for what, do in both if number % 2 else reversed(both):
                    start = time.perf_counter()
                    do()
                    times[what].append(time.perf_counter() - start)
            size = sum(path.stat().st_size for path in (Path(folder) / "store" / "packs").rglob("*.safetensors")) / 1e6
    ratio = statistics.median(a / b for a, b in zip(times["once"], times["twice"], strict=True))
    shown = [" / ".join(f"{value:,.0f}" for value in each) for each in (had, saving, loading)]
    seconds = [f"{statistics.median(times[what]):.2f}" for what in ("once", "twice")]
    return f"| {name} | {size:.0f} | {' | '.join(seconds)} | {ratio:.2f} | {' | '.join(shown)} |"


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--engines", nargs="+", choices=list(ENGINES), default=list(ENGINES))
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| engine | MB | s, once | s, twice | ratio | MiB before: first / other | while saving | while going on |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in given.engines:
        print(measured(name, given.layers, given.width, given.rounds), flush=True)


if __name__ == "__main__":
    main()
