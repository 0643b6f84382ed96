"""What 200 open pages cost the collector of a study that runs, side by side with none, in turns.

    python -m benchmarks.viewers [VIEWERS]

This process is the collector: shards land, and it makes the tables anew. The server is a process of its own and so are
the viewers: each holds the stream of news, and after each piece of news asks for what the page of a study asks for, on
a connection that it keeps, as a browser does.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.dashboard import PORT, served
from benchmarks.statistics import STEPS, rows_as_written, study
from jobs.claims import FRESH, claim
from jobs.layout import PackKeys
from jobs.parquet import write_table
from jobs.store import Store, commit, open_store
from orchestrator.declared import register
from orchestrator.library import Library

RUNS, PACK_RUNS, PROBES, ROUNDS, SHARDS = 400, 40, 10, 6, 5
PATHS = ("/study/many.json?metric=heldout.accuracy", "/study/many/fan.json?after=0", "/study/many/scores.json")


def main() -> None:
    """Land shards in turns without and with viewers, and print what collecting took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("viewers", type=int, nargs="?", default=200)
    count = parser.parse_args().viewers
    folder = Path(tempfile.mkdtemp(prefix="seedbed-viewers-bench-"))
    store = open_store(folder / "store", create=True)
    packs = begin(store)
    library, generator = Library(store), np.random.default_rng(0)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    worked: dict[bool, list[float]] = {False: [], True: []}
    steps = iter(range(0, STEPS, PROBES))
    try:
        land(store, packs, next(steps), generator)
        library.tables("many")
        with served(folder / "store", folder / "tokens.json") as server:
            for turn in range(2 * ROUNDS):
                with watched(server.token, count) if turn % 2 else nobody() as told:
                    before = cpu_s(server.process.pid)
                    seconds[bool(turn % 2)] += collect(library, store, packs, steps, generator)
                    worked[bool(turn % 2)].append((cpu_s(server.process.pid) - before) / SHARDS)
                    if told is not None:
                        print(f"answers to the viewers in this turn: {told.value}", flush=True)
            memory = server.memory_mb("VmHWM")
    finally:
        shutil.rmtree(folder)
    alone, beside = (statistics.median(seconds[key]) for key in (False, True))
    print(f"load average {os.getloadavg()[0]:.1f}; server, the most at any time: {memory:.0f} MB")
    idle, busy = (statistics.median(worked[key]) for key in (False, True))
    print(f"the server's own work a shard of each pack: {idle:.2f} CPU-s alone, {busy:.2f} beside {count} viewers")
    print(f"collecting a shard of each pack: {alone:.3f} s alone, {beside:.3f} s beside {count} viewers: ", end="")
    print(f"{100 * (beside / alone - 1):+.1f} % (goal < 5 %)")


def cpu_s(pid: int) -> float:
    """Return the seconds that a process has computed, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def begin(store: Store) -> dict[str, list[str]]:
    """Declare a study and claim all its runs; returns the runs of each pack."""
    made = study(RUNS)
    register(store, made, "many.yaml")
    by_condition: dict[str, list[str]] = {}
    for run in made.runs:
        by_condition.setdefault(run.point.id, []).append(run.id)
    packs = {
        f"{name}.{i}": ids[i : i + PACK_RUNS]
        for name, ids in by_condition.items()
        for i in range(0, len(ids), PACK_RUNS)
    }
    for pack_id, runs in packs.items():
        for run_id in runs:
            claim(store, run_id, pack_id, (FRESH, ""), {}, after=0)
    return packs


def land(store: Store, packs: dict[str, list[str]], first: int, generator: np.random.Generator) -> None:
    """Commit the next shard of every pack."""
    for pack_id, runs in packs.items():
        table = rows_as_written(runs, ["heldout.accuracy"], range(first, first + PROBES), generator)

        def write(path: Path, table: pa.Table = table) -> dict[str, int]:
            write_table(table, path)
            return {"rows": table.num_rows, "first_step": first, "last_step": first + PROBES - 1}

        commit(store, PackKeys(pack_id).shard(first // PROBES), write)


def collect(
    library: Library, store: Store, packs: dict[str, list[str]], steps: Iterator[int], generator: np.random.Generator
) -> list[float]:
    """Return the seconds of each of a few collections, a shard of every pack before each."""
    found = []
    for _ in range(SHARDS):
        land(store, packs, next(steps), generator)
        began = time.perf_counter()
        library.tables("many")
        found.append(time.perf_counter() - began)
        time.sleep(2.0)
    return found


@contextmanager
def nobody() -> Iterator[None]:
    """Watch with no viewer."""
    yield None


@contextmanager
def watched(token: str, count: int) -> Iterator[object]:
    """Keep viewers at the server, in a process of their own; yields how many answers they got."""
    context = multiprocessing.get_context("spawn")
    answers, ready = context.Value("i", 0), context.Event()
    process = context.Process(target=_watch, args=(token, count, answers, ready), daemon=True)
    process.start()
    ready.wait()
    try:
        yield answers
    finally:
        process.kill()
        process.join()


def _watch(token: str, count: int, answers: object, ready: object) -> None:
    os.nice(19)  # viewers' browsers are on other machines: here they take what nobody else wants
    asyncio.run(_viewers(token, count, answers, ready))


async def _viewers(token: str, count: int, answers, ready) -> None:  # type: ignore[no-untyped-def]
    began = asyncio.Semaphore(0)

    async def viewer() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        asking = Asking(token)
        writer.write(_request("/events", token))
        news, last = b"", 0
        while line := await reader.readline():
            if line.startswith(b"event: hello"):
                began.release()
            news = line if line.startswith(b"event: ") else news
            if line.startswith(b"data: ") and news.startswith(b"event: study"):
                version = json.loads(line[6:])["version"]
                if version > last:
                    last = version
                    for path in PATHS:
                        await asking.get(path)
                        with answers.get_lock():
                            answers.value += 1

    tasks = [asyncio.create_task(viewer()) for _ in range(count)]
    for _ in tasks:
        await began.acquire()
    ready.set()
    await asyncio.gather(*tasks)


@dataclass
class Asking:
    """A connection for questions, made anew where the server has closed it meanwhile."""

    token: str
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def get(self, path: str) -> None:
        """Ask, and read the whole answer."""
        while True:
            if self._reader is None or self._writer is None or self._reader.at_eof():
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", PORT)
            try:
                self._writer.write(_request(path, self.token))
                head = await self._reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                await self._reader.readexactly(int(length[1]) if length else 0)
                return
            except (asyncio.IncompleteReadError, ConnectionError):
                self._reader = None


def _request(path: str, token: str) -> bytes:
    head = f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {token}\r\naccept-encoding: gzip\r\n"
    return f"{head}\r\n".encode()


if __name__ == "__main__":
    main()
