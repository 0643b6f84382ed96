"""Small packs that really train: a request in a store, carried out in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from safetensors import safe_open

from jobs.layout import PackKeys, task_key
from jobs.pack import PackRequest, PackRun, SeedsSpec, put_request
from jobs.parquet import read_table
from jobs.records import METRICS
from jobs.store import LocalStore, committed, open_store, read_manifest, verified
from jobs.study import Run, Study
from jobs.study_file import parse_study
from workers import part_loader, stored_slice

STUDY = """\
study: tiny
task: {name: parity, bits: 6, subset: 2, test_size: 32}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3, warmup_steps: 2, decay: cosine}
training: {steps: 12, batch_size: 8}
probes: {every: 5}
checkpoints: {milestones: [6]}
seeds: {design: paired, count: 4}
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store", create=True)


class Pack:
    """Puts requests for runs of a study into a store, under names of their own."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.launched = 0

    def request(self, runs: list[Run], rolling_every: int = 4, threads: int = 1) -> str:
        self.launched += 1
        pack_id = f"pack.{self.launched:04d}"
        listed = tuple(PackRun(run_id=r.id, seeds=SeedsSpec(**r.seeds.as_dict())) for r in runs)
        put_request(
            self.store,
            PackRequest(
                pack_id=pack_id,
                condition=runs[0].point.condition,
                runs=listed,
                rolling_every=rolling_every,
                threads=threads,
                device="cpu",
            ),
        )
        return pack_id

    def rows(self, pack_id: str) -> pa.Table:
        """Return every committed row of a pack, sorted."""
        parts = [
            read_table(verified(self.store, read_manifest(self.store, key)), METRICS)
            for key in committed(self.store, PackKeys(pack_id).shards)
        ]
        table = pa.concat_tables(parts) if parts else METRICS.empty_table()
        return table.sort_by([("run_id", "ascending"), ("step", "ascending"), ("metric", "ascending")])

    def slices(self, pack_id: str, step: int) -> dict[str, str]:
        """Return run → SHA-256 of its slice in a checkpoint."""
        manifest = read_manifest(self.store, PackKeys(pack_id).checkpoint(step))
        return {part["run_id"]: part["sha256"] for part in manifest.extra["runs"]}

    def steps(self, pack_id: str) -> list[int]:
        """Return the steps of the pack's committed checkpoints."""
        keys = committed(self.store, PackKeys(pack_id).checkpoints)
        return [int(key.rpartition("/")[2].partition(".")[0]) for key in keys]


@pytest.fixture
def pack(store: LocalStore) -> Pack:
    return Pack(store)


@pytest.fixture
def study() -> Callable[..., Study]:
    """Return a function that makes the tiny study, with lines exchanged."""

    def make(folder: Path = Path(), **changed: str) -> Study:
        lines = {line.partition(":")[0]: line for line in STUDY.splitlines()}
        lines |= {key: f"{key}: {value}" for key, value in changed.items()}
        return parse_study("\n".join(lines.values()), "tiny.yaml", folder)

    return make


def put_sources(store: LocalStore, study: Study) -> None:
    """Copy the sources of a study's own tasks into the store, as a submission does."""
    for code, text in study.task_sources.items():
        store.put(task_key(code), text.encode())


class Counted:
    """A file of tensors that counts how often each is read."""

    def __init__(self, path: Path, reads: dict[tuple[str, str], int]) -> None:
        self._path, self._reads, self._file = path, reads, safe_open(path, framework="pt")

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def metadata(self) -> dict[str, str]:
        return dict(self._file.metadata() or {})

    def get_slice(self, name: str) -> Any:
        place = self._path.name, name
        self._reads[place] = self._reads.get(place, 0) + 1
        return self._file.get_slice(name)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], int]:
    """Return file and tensor → how often this process has read it."""
    found: dict[tuple[str, str], int] = {}
    for module in (stored_slice, part_loader):
        monkeypatch.setattr(module, "safe_open", lambda path, framework: Counted(path, found))
    return found
