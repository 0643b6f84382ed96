"""When what is saved: rows and checkpoints go to a writer beside the loop, linked back to step 0.

The loop stands still only while its tensors are copied into a buffer. Rows up to a checkpoint's step are durable
before it is, because one thread writes all in order. Milestones stay for ever; of the rolling checkpoints two
complete ones stay until the next is durable.
"""

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from jobs.errors import Superseded
from jobs.layout import PackKeys, attempt_key
from jobs.pack import Saves
from jobs.store import Store
from workers.checkpoint import Kind, Link, Slice, discard, save, slice_digest
from workers.checkpoint_files import state_of
from workers.crew import Crew
from workers.engines import Engine, InParts
from workers.part_saver import Place, Taken
from workers.probes import Tally
from workers.shards import ShardWriter
from workers.writer import Writer

_KEPT_ROLLING = 2  # complete ones that stay until the next is durable


@dataclass(slots=True)
class Saver:
    """Saves the pack while it trains, links each slice to its parents, and drops rolling checkpoints.

    parents      of each run's next checkpoint, newest first
    last_saved   the step of the newest checkpoint
    environment  the digest of the fingerprint under which this process trains
    """

    store: Store
    keys: PackKeys
    crew: Crew
    shards: ShardWriter
    writer: Writer
    environment: str
    parents: dict[str, tuple[Link, ...]]
    last_saved: int
    clock: Callable[[], float] = time.monotonic
    _buffer: dict[str, torch.Tensor] = field(default_factory=dict)
    _rolling: list[int] = field(default_factory=list)
    _parts: int = 0

    def save(self, step: int, kind: Kind, engine: Engine, tally: Tally) -> None:
        """Hand over all rows, then the state at `step`; raises what an earlier save failed with.

        That may be Superseded, where a later attempt has a run, or what the store raises.
        """
        self.flush()
        if step == self.last_saved:
            return
        self.writer.wait()
        taken = None
        if engine.cuts and isinstance(engine, InParts):
            taken = engine.take(Place(self.store.url, self.keys.pack_id), step, self._buffer)
            self._copy(tally.state())
        else:
            self._copy(engine.state() | tally.state())
        members = [(member.run_id, member.attempt.attempt, member.slot) for member in self.crew.alive]
        self.writer.submit(lambda: self._commit(step, kind, members, taken))
        self.last_saved = step

    def save_files(self, step: int, kind: Kind, folder: Path) -> None:
        """Hand over all rows, then the files in `folder` as the state at `step`.

        They are not copied: they stay as they are until they are durable, and then the folder goes. Raises what an
        earlier save failed with.
        """
        self.flush()
        self.writer.wait()
        self._buffer = state_of(folder)
        members = [(member.run_id, member.attempt.attempt, member.slot) for member in self.crew.alive]

        def commit() -> None:
            self._commit(step, kind, members)
            self._buffer = {}
            shutil.rmtree(folder, ignore_errors=True)

        self.writer.submit(commit)
        self.last_saved = step

    def settle(self) -> None:
        """Wait until all is durable; rolling checkpoints go where a milestone came after them."""
        self.flush()
        self.writer.wait()
        if not (self._rolling and self._rolling[-1] == self.last_saved):
            self._drop_rolling(0)

    def flush(self) -> None:
        """Hand over all rows."""
        job = self.shards.take()
        if job:
            self.writer.submit(job)

    def flush_if_due(self) -> None:
        """Hand over all rows if the last ones are old enough; raises what an earlier save failed with."""
        self.writer.check()
        if self.shards.is_due:
            self.flush()

    def finish(self) -> None:
        """Wait until all is durable, and drop the rolling checkpoints: the last step is a milestone."""
        self.flush()
        self.writer.wait()
        self._drop_rolling(0)

    def wait(self) -> None:
        """Wait until all that was handed over is durable; raises what failed."""
        self.writer.wait()

    def _copy(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in state.items():
            if name not in self._buffer:
                self._buffer[name] = torch.empty_like(tensor, device="cpu", memory_format=torch.contiguous_format)
            self._buffer[name].copy_(tensor)

    def _commit(self, step: int, kind: Kind, members: list[tuple[str, int, int]], taken: Taken | None = None) -> None:
        start = self.clock()
        for run_id, attempt, _ in members:
            if self.store.exists(attempt_key(run_id, attempt + 1)):
                raise Superseded(run_id, attempt)
        parts = taken.committed(self.store, self.keys, step) if taken else []
        slices = [
            Slice(run_id, attempt, slot, slice_digest(self._buffer, slot, parts), self.parents.get(run_id, ()))
            for run_id, attempt, slot in members
        ]
        manifest = save(self.store, self.keys, step, kind, self._buffer, slices, self.environment, parts)
        size_bytes = sum(each.size_bytes for each in (manifest, *parts))
        self.crew.saves += Saves(count=1, seconds=self.clock() - start, size_bytes=size_bytes)
        self._parts = len(parts)
        if kind == "milestone":
            self.parents.update({part.run_id: (Link(part.run_id, step, part.sha256),) for part in slices})
        else:
            self._rolling.append(step)
            self._drop_rolling(_KEPT_ROLLING)

    def _drop_rolling(self, keep: int) -> None:
        while len(self._rolling) > keep:
            discard(self.store, self.keys, self._rolling.pop(0), self._parts)
