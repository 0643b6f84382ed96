"""A small study and a store, for everything the head does."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.store import LocalStore, open_store
from jobs.study import Study
from jobs.study_file import parse_study

STUDY = """\
study: tiny
question: does it?
task: {name: parity, bits: 6, subset: 2, test_size: 32}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 3e-3}
training: {steps: 12, batch_size: 8}
probes: {every: 4}
checkpoints: {rolling: {every: 5}}
grid: {model.width: [4, 8]}
seeds: {design: paired, count: 3}
execution: {pack_width: 2, retries: 2}
"""


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return open_store(tmp_path / "store", create=True)


@pytest.fixture
def study() -> Callable[..., Study]:
    """Return a function that makes the tiny study, with lines exchanged."""

    def make(folder: Path = Path(), **changed: str) -> Study:
        lines = {line.partition(":")[0]: line for line in STUDY.splitlines()}
        lines |= {key: f"{key}: {value}" for key, value in changed.items()}
        return parse_study("\n".join(lines.values()), "tiny.yaml", folder)

    return make
