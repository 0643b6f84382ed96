"""Runs as folders of Hugging Face models: config, safetensors, tokenizer, card; verified, resumable, never over others.

    DIR/words-width32-seed0/README.md               the card: spec, seeds, digests, estimates
    DIR/words-width32-seed0/step1000/               what `from_pretrained` loads
    DIR/words-width32-seed0/step1000/seedbed.json   which run and step it is, and every file's SHA-256; it comes last

A step is written aside, loaded again by `AutoModelForCausalLM.from_pretrained`, compared with the run's own model, and
only then has its name. A folder that is whole is not written again; one that is not ours is left alone.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import NotFound, QueryError
from jobs.identity import sha256
from jobs.schedule import steps_of
from jobs.seeds import Streams
from jobs.store import Store
from jobs.tasks.task import Task
from orchestrator.declared import DeclaredRun

MARK = "seedbed.json"
_TRIED = 4  # sequences of a held-out set, on which logits are compared
TOLERANCE = 1e-4  # of a logit: two orders of the same float32 sums differ by some 1e-6


@dataclass(frozen=True, slots=True)
class Exported:
    """A step of a run that is there.

    largest   the largest difference of a logit between what was loaded and the run's own model
    is_new    whether it was written just now
    """

    run_id: str
    step: int
    folder: Path
    sha256: str
    largest: float
    is_new: bool


def steps_to_export(store: Store, run: DeclaredRun, wanted: Sequence[int]) -> list[int]:
    """Return the steps of a run that are exported: those that are wanted, else its milestones and its last one.

    A step that the run has not reached is left out: it would be trained here.
    """
    from workers.checkpoint import checkpoints_of
    from workers.stored import stored_run

    stored = stored_run(store, run.id)
    last, first = stored.condition.training.steps, stored.first_step
    there = checkpoints_of(store, stored.attempts)
    if wanted:
        return sorted({step for step in wanted if first <= step <= max(there, default=-1)})
    milestones = {step for step in steps_of(stored.condition.milestones, last) if step in there}
    return sorted(milestones | ({last} if last in there else set()))


def export_step(store: Store, run: DeclaredRun, step: int, folder: Path) -> Exported:
    """Write the model of a run at a step into `folder`, and verify it; raises QueryError where something else is there.

    Where the store has no checkpoint at that step, the run is trained to it from the nearest one, in memory.
    """
    from workers.replay import replay
    from workers.stored import load_task
    from workers.transformers_form import model_of
    from workers.transformers_tokenizer import tokenizer_for

    known = _known(folder, run.id, step)
    if known is not None:
        return known
    replayed = replay(store, run.id, step)
    task = load_task(store, replayed.run.condition.task)
    staged = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    try:
        model_of(replayed.run.condition, replayed.weights, task).save_pretrained(staged)
        tokenizer_for(task).save_pretrained(staged)
        largest = _compared(staged, replayed, task)
        body = {"run_id": run.id, "step": step, "state_sha256": replayed.sha256, "largest_difference": largest}
        mark = {**body, "files": _files(staged)}
        (staged / MARK).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        staged.replace(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return Exported(run.id, step, folder, replayed.sha256, largest, is_new=True)


def _compared(folder: Path, replayed: Any, task: Task) -> float:
    """Return the largest difference between logits of what is in the folder and of the run; raises QueryError."""
    import torch
    import transformers

    from workers.models.huggingface import auto_class
    from workers.replay import plain_module

    auto: Any = getattr(transformers, auto_class(replayed.run.condition.model))
    loaded, own = auto.from_pretrained(folder, local_files_only=True).eval(), plain_module(replayed, task)
    batch = next(iter(task.held_out(Streams(replayed.run.seeds)).values()))
    tokens = torch.from_numpy(np.ascontiguousarray(batch.inputs[:_TRIED]))
    with torch.no_grad():
        theirs, ours = loaded(tokens).logits, own.eval()(tokens)
    ours = getattr(ours, "logits", ours)
    largest = float((theirs - ours).abs().max())
    if not largest <= TOLERANCE * max(1.0, float(ours.abs().max())):
        raise QueryError(f"what was written to {folder} is not the run: its logits differ by up to {largest:g}")
    return largest


def _files(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()) for path in sorted(folder.iterdir())}


def _known(folder: Path, run_id: str, step: int) -> Exported | None:
    """Return what is in the folder where it is this run at this step, whole; None where there is nothing."""
    if not folder.exists():
        return None
    try:
        mark = json.loads((folder / MARK).read_text(encoding="utf-8"))
        mine = (mark["run_id"], mark["step"]) == (run_id, step)
        whole = all(sha256((folder / name).read_bytes()) == digest for name, digest in mark["files"].items())
    except (OSError, ValueError, KeyError, TypeError):
        mine = whole = False
    if not mine or not whole:
        told = "another run, or another step" if whole else "something else, or not what was written"
        raise QueryError(f"{folder} holds {told}: move it away, or give another folder")
    return Exported(run_id, step, folder, mark["state_sha256"], mark["largest_difference"], is_new=False)


def export_runs(
    store: Store,
    runs: Sequence[DeclaredRun],
    names: dict[str, str],
    to: Path,
    wanted: Sequence[int],
    watch: Callable[[int, int], None],
) -> Iterator[tuple[DeclaredRun, list[Exported]]]:
    """Yield run by run what was exported; a run without any checkpoint is left out."""
    todo: list[tuple[DeclaredRun, list[int]]] = []
    for run in runs:
        try:
            todo.append((run, steps_to_export(store, run, wanted)))
        except NotFound:  # it was never started
            continue
    total, done = sum(len(steps) for _, steps in todo), 0
    watch(0, total)
    for run, steps in todo:
        found = []
        for step in steps:
            (to / names[run.id]).mkdir(parents=True, exist_ok=True)
            found.append(export_step(store, run, step, to / names[run.id] / f"step{step}"))
            done += 1
            watch(done, total)
        if found:
            yield run, found
