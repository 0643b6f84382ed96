"""A small study, driven as `seedbed run` does it, and everything of its end that no fault may change."""

from pathlib import Path

import pyarrow as pa

from jobs.store import open_store
from jobs.study_file import parse_study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.declared import register
from orchestrator.library import Library
from orchestrator.scheduler import drive

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


def one_command(folder: Path, text: str = STUDY) -> dict[str, pa.Table]:
    """Do what `seedbed run` does, up to the tables; files of a user's tasks and parents lie beside the store."""
    made = parse_study(text, "study.yaml", folder.parent)
    library = Library(open_store(folder, create=True))
    register(library.store, made, "study.yaml")
    cluster = InlineCluster(cpus=1)
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
