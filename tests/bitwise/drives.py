"""A small study, driven as `seedbed run` does it, and everything of its end that no fault may change."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from orchestrator.verify import verify
from workers import batches

STUDY = """\
study: small
task: {name: parity, bits: 4, subset: 2, test_size: 8}
model: {family: mlp, width: 4}
optimizer: {learning_rate: 1e-2}
training: {steps: 4, batch_size: 4}
probes: {every: 2}
checkpoints: {milestones: [2], rolling: {every: 1}}
seeds: {design: paired, count: 2}
execution: {pack_width: 2, retries: 3}
"""


def one_command(folder: Path, text: str = STUDY, cpus: int = 1) -> dict[str, pa.Table]:
    """Do what `seedbed run` does, up to the tables; files of a user's tasks and parents lie beside the store."""
    made = parse_study(text, "study.yaml", folder.parent)
    library = Library(open_store(folder, create=True))
    register(library.store, made, "study.yaml")
    cluster = InlineCluster(cpus=cpus)
    try:
        drive(made, library.store, cluster, calibrate=False)
    finally:
        cluster.close()
    return library.collect(made.name)


def final(tables: dict[str, pa.Table]) -> object:
    """Return everything that must not depend on what went wrong on the way."""
    metrics = tables["metrics"].drop(["attempt"]).to_pylist()
    ends = [
        (r["run_id"], r["step"], r["sha256"]) for r in tables["checkpoints"].to_pylist() if r["kind"] == "milestone"
    ]
    runs = tables["runs"].drop(["attempts"]).to_pylist()
    return metrics, sorted(ends), runs, tables["audit"].to_pylist(), tables["probes_of_seeds"].to_pylist()


class Killed(BaseException):
    """The process ended here."""


@contextmanager
def killed_at(step: int) -> Iterator[None]:
    """End the process, in effect, when it wants the batch of `step`."""
    draw = batches.Batches.at

    def at(self: batches.Batches, now: int) -> batches.Stacked:
        if now == step:
            raise Killed
        return draw(self, now)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches.Batches, "at", at)
        yield


def same_in_packs_and_after_a_kill(folder: Path, text: str, files: Mapping[str, str] | None = None) -> object:
    """Return the end of a study, which is the same in packs of its `pack_width`, of one, and after a kill at step 5.

    Its runs pass `verify`, a span of each trained again; the stores lie in folder/WIDTH/store, `files` beside them.
    """
    width = re.search(r"pack_width: (\d+)", text)
    assert width is not None

    def end(name: str, execution: str) -> object:
        (folder / name).mkdir(exist_ok=True)
        for file, source in (files or {}).items():
            (folder / name / file).write_text(source)
        return final(one_command(folder / name / "store", text.replace(width[0], execution)))

    ends = [end(width[1], width[0]), end("1", "pack_width: 1")]
    with killed_at(5), suppress(Killed):
        end("killed", f"{width[0]}, retries: 0")
    ends.append(end("killed", width[0]))
    assert ends[0] == ends[1] == ends[2]
    library = Library(open_store(folder / width[1] / "store"))
    (name,) = library.names()
    assert verify(library.store, library.declared(name), spans=int(width[1])).findings == []
    return ends[0]
