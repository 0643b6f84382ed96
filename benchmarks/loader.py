"""The data path: tokens per second beside torch's and Hugging Face's loaders, and a seek to token 10^12.

    python -m benchmarks.loader

All read the same random tokens in a random order of the same sequences, one process, batch by batch. The peers, as a
good user writes them: a map-style dataset over the memory-mapped shards with `RandomSampler` of `torch.utils.data`,
and a memory-mapped `datasets.Dataset` of whole sequences, shuffled, in batches of torch tensors (where `datasets` is
installed). To go on at a step, both must draw all indices before it. In processor seconds of this process, interleaved.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from jobs.seeds import Seeds, Streams
from jobs.store import commit, open_store, put_record
from jobs.tasks.text import Text
from jobs.text.corpus import BYTES, CORPUS_KEY, FORMAT
from jobs.text.order import Order


def make_corpus(folder: Path, tokens: int, shards: int) -> list[Path]:
    """Write a corpus of random bytes and return its shards."""
    store, generator, found = open_store(folder, create=True), np.random.default_rng(0), []
    for number in range(shards):
        values = generator.integers(0, 256, tokens // shards).astype("<u2")

        def write(path: Path, values: np.ndarray = values) -> dict[str, int]:
            values.tofile(path)
            return {}

        manifest = commit(store, f"shards/{number:06d}.tokens", write)
        found.append({"key": manifest.key, "tokens": len(values), "documents": 1, "sha256": manifest.sha256})
    body = {"format": FORMAT, "tokenizer": BYTES, "vocabulary": 257, "end": 256, "dtype": "uint16", "shards": found}
    put_record(store, CORPUS_KEY, body)
    return [folder / str(shard["key"]) for shard in found]


class Mapped(Dataset[torch.Tensor]):
    """Sequences of memory-mapped shards; none crosses from one into the next."""

    def __init__(self, paths: list[Path], length: int) -> None:
        self.maps, self.length = [np.memmap(path, "<u2", "r") for path in paths], length
        self.each = (len(self.maps[0]) - 1) // length

    def __len__(self) -> int:
        return self.each * len(self.maps)

    def __getitem__(self, index: int) -> torch.Tensor:
        shard, place = divmod(index, self.each)
        start = place * self.length
        return torch.from_numpy(self.maps[shard][start : start + self.length + 1].astype(np.int64))


def tokens_per_second(batch: Callable[[], int], at_least: float) -> float:
    """Return the tokens per processor second of at least so many seconds."""
    count, start = 0, time.process_time()
    while (taken := time.process_time() - start) < at_least:
        count += batch()
    return count / taken


def main() -> None:
    """Measure and print tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tokens", type=int, default=1 << 26)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print("| context | Seedbed, tokens/s | torch.utils.data | ratio | datasets | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=".", prefix="bench-") as made:
        paths = make_corpus(Path(made) / "corpus", given.tokens, 4)
        for context in (128, 512, 2048):
            ways = loaders(Path(made) / "corpus", paths, context, given.batch)
            third = hugging_face(Path(made) / f"rows-{context}", paths, context, given.batch)
            ways += [third] if third else []
            for way in ways:
                way()  # what is hashed at first touch is hashed once
            rounds = [[tokens_per_second(way, 1.0) for way in ways] for _ in range(given.rounds)]
            rates = [f"{statistics.median(rates):.3g}" for rates in zip(*rounds, strict=True)]
            ratios = [f"{statistics.median(one[0] / one[way] for one in rounds):.1f}" for way in range(1, len(ways))]
            cells = [rates[0], *(cell for pair in zip(rates[1:], ratios, strict=True) for cell in pair)]
            print(f"| {context} | {' | '.join(cells + ['–'] * (5 - len(cells)))} |", flush=True)
    seek(given.batch)


def loaders(folder: Path, paths: list[Path], context: int, batch: int) -> list[Callable[[], int]]:
    """Return what draws the next batch, by Seedbed and by torch; each returns its number of tokens."""
    task, streams = Text(corpora={"a": str(folder)}, context=context), Streams(Seeds(0, 1, 0, 0))
    steps = iter(range(10**9))
    mapped = Mapped(paths, context)
    endless = RandomSampler(mapped, replacement=True, num_samples=10**9, generator=torch.Generator().manual_seed(1))
    batches = iter(DataLoader(mapped, batch_size=batch, sampler=endless))
    return [
        lambda: task.batch(streams, next(steps), batch).inputs.size,
        lambda: next(batches)[:, :-1].numel(),
    ]


def hugging_face(folder: Path, paths: list[Path], context: int, batch: int) -> Callable[[], int] | None:
    """Return what draws the next batch of a `datasets.Dataset`; None where that is not installed."""
    try:
        import datasets
    except ImportError:
        return None
    folder.mkdir()
    rows = Mapped(paths, context)
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as file:
        kind = pa.schema([("tokens", pa.list_(pa.uint16(), context + 1))])
        with pa.ipc.new_stream(file, kind) as writer:
            for start in range(0, len(rows), 4096):
                some = torch.cat([rows[index] for index in range(start, min(start + 4096, len(rows)))])
                values = pa.array(some.numpy().astype(np.uint16))
                writer.write_batch(
                    pa.record_batch([pa.FixedSizeListArray.from_arrays(values, context + 1)], schema=kind)
                )
    stored = datasets.Dataset.from_file(str(folder / "rows.arrow")).with_format("torch")
    epochs = (stored.shuffle(seed=epoch, keep_in_memory=True) for epoch in range(10**6))
    batches = (some for epoch in epochs for some in epoch.iter(batch, drop_last_batch=True))
    return lambda: next(batches)["tokens"][:, :-1].numel()


def seek(batch: int) -> None:
    """Print what the indices of a batch cost at the start and at token 10^12, of sequences of 2,048 tokens."""
    order = Order(10**12 // 2048, 64, 1, 0, "seek")
    found = []
    for position in (0, order.shown // 2, order.shown - batch, 7 * order.shown):
        places = np.arange(position, position + batch)
        order.at(places)
        start = time.process_time()
        for _ in range(200):
            order.at(places)
        found.append((time.process_time() - start) / 200)
    told = ", ".join(f"{taken / found[0]:.2f}" for taken in found)
    print(f"\nIndices of a batch of {batch} at tokens 0, 5·10^11, 10^12 and in epoch 8, over the first: {told}")


if __name__ == "__main__":
    main()
