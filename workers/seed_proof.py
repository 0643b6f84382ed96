"""What a run's seeds make, as digests: initial weights, first batches, dropout masks, held-out sets.

Computed before anything is trained, from the same draws that training makes. Whether they vary where the design
says so, and are equal where it holds them, is for the head to say (`orchestrator/seed_audit.py`).
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.digests import digest_of
from jobs.identity import canonical_json, sha256
from jobs.pack import PackRun, SeedDigests, SeedProof
from jobs.records import FACTORS
from jobs.scalar import ever
from jobs.seeds import Streams
from jobs.spec import Condition
from jobs.tasks.task import Batch, Task
from workers.batches import drawn_batch
from workers.low_rank import is_adapter
from workers.models.family import Drawn
from workers.models.whole import drawn_of
from workers.replay import is_redrawn

_FEWEST_SEQUENCES = 64  # of the first batches: two honest data seeds must not agree on them by chance
_FEWEST_BATCHES = 4
_MASK_VALUES = 64
FAILED = ""
log = logging.getLogger(__name__)


def prove(condition: Condition, task: Task, runs: Sequence[PackRun]) -> SeedProof:
    """Return the digests of each run of a condition; FAILED where the task raises: that run will end alone."""
    family = drawn_of(condition, len(task.vocabulary), task.length, task.first_answer)
    # A task may look at any of the seeds it is given, whatever it should: its digests are shared by equal seeds alone.
    known: dict[tuple[Any, ...], str] = {}

    def once(key: tuple[Any, ...], make: Any, *arguments: Any) -> str:
        if key not in known:
            known[key] = make(*arguments)
        return known[key]

    found = []
    for run in runs:
        seeds, streams = run.seeds, Streams(run.seeds.seeds())
        first = run.origin.step if run.origin else 0
        found.append(
            SeedDigests(
                init=once(("init", seeds.init, run.origin), _initial, family, run, streams),
                data=once(("data", seeds, first), _batches, condition, task, run, streams),
                dropout=once(("dropout", seeds.dropout, first), _masks, streams, first),
                evaluation=once(("evaluation", seeds), _held_out, task, run, streams),
            )
        )
    first = runs[0].origin.step if runs and runs[0].origin else 0
    return SeedProof(scopes=_scopes(condition, family, first), runs=tuple(found))


def prove_nothing(runs: Sequence[PackRun]) -> SeedProof:
    """Return the proof of runs whose draws are a script's own: what they make cannot be seen before they begin."""
    unseen = SeedDigests(init=FAILED, data=FAILED, dropout=FAILED, evaluation=FAILED)
    return SeedProof(scopes=dict.fromkeys(FACTORS, ""), runs=tuple(unseen for _ in runs))


def weights_digest(weights: dict[str, NDArray[Any]]) -> str:
    """Return the digest of a run's weights by the names of its parameters."""
    return digest_of(weights)


def _scopes(condition: Condition, family: Drawn, first_step: int) -> dict[str, str]:
    task = condition.task.model_dump(mode="json")
    training = condition.model_dump(mode="json")["training"]
    masking = [training["masking"]] if ever(condition.training.masking) else []
    whole = {
        "init": [[p.name, list(p.shape), p.std, p.fill] for p in family.parameters],
        "data": [task, condition.training.batch_size, first_step, *masking],
        "dropout": first_step,
        "evaluation": task,
    }
    return {factor: sha256(canonical_json(value))[:16] for factor, value in whole.items()}


def _initial(family: Drawn, run: PackRun, streams: Streams) -> str:
    origin = run.origin
    if origin is None:
        return weights_digest({p.name: p.draw(streams) for p in family.parameters})
    anew = (p for p in family.parameters if is_adapter(p.name) or is_redrawn(p.name, origin))
    drawn = {p.name: p.draw(streams) for p in anew}
    # A fork's weights are its parent's, which are known by the parent's name; what is drawn anew is seen here.
    parent = canonical_json(origin.spec())
    return sha256(parent + weights_digest(drawn).encode())


def _batches(condition: Condition, task: Task, run: PackRun, streams: Streams) -> str:
    size = condition.training.batch_size
    first = run.origin.step if run.origin else 0
    count = max(_FEWEST_BATCHES, -(-_FEWEST_SEQUENCES // size))
    named: dict[str, NDArray[Any]] = {}
    for step in range(first, first + count):
        try:
            batch = drawn_batch(task, streams, step, size, condition.training.masking)
        except Exception as error:  # the border to a user's code
            log.warning("run %s, step %d: the task failed: %s", run.run_id, step, error)
            return FAILED
        named |= _arrays(f"{step:012d}", batch)
    return digest_of(named)


def _masks(streams: Streams, first: int) -> str:
    return digest_of({"mask": streams.dropout(first).random(_MASK_VALUES, np.float32)})


def _held_out(task: Task, run: PackRun, streams: Streams) -> str:
    named: dict[str, NDArray[Any]] = {}
    try:
        for name, batch in task.held_out(streams).items():
            named |= _arrays(name, batch)
    except Exception as error:  # the border to a user's code
        log.warning("run %s: the task failed: %s", run.run_id, error)
        return FAILED
    return digest_of(named)


def _arrays(name: str, batch: Batch) -> dict[str, NDArray[Any]]:
    return {f"{name}.inputs": batch.inputs, f"{name}.targets": batch.targets}
