"""Packs of whole modules through the same loop as all others: stopped, killed, replayed, forked, verified."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs import tasks
from jobs.claims import attempts_of
from jobs.errors import ModelError, SeedError, StudyInterrupted
from jobs.pack import get_request, put_request
from jobs.records import Status
from jobs.store import LocalStore, open_store
from jobs.study import Study
from tests.workers.conftest import Pack
from tests.workers.test_pack import StopAt, _killing
from workers import batches
from workers.pack import run_pack
from workers.replay import plain_module, replay
from workers.seed_proof import prove
from workers.stored import load_task

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

MakeStudy = Callable[..., Study]
NEOX = "{huggingface: gpt_neox, layers: 1, width: 8, heads: 2, dropout: 0.1}"


@pytest.fixture
def neox(study: MakeStudy) -> Study:
    return study(model=NEOX, engine="{accumulate: 2}", seeds="{design: paired, count: 2}")


@pytest.fixture
def whole(tmp_path: Path, neox: Study) -> Pack:
    """Return the packs of a store in which the study was trained without interruption."""
    pack = Pack(open_store(tmp_path / "whole", create=True))
    outcome = run_pack(pack.store.url, pack.request(list(neox.runs)))
    assert [(run.status, run.step) for run in outcome.runs] == [(Status.FINISHED, 12)] * 2
    return pack


@pytest.mark.parametrize("stopped_at", [0, 3, 7, 11])
def test_stopped_at_any_step_it_ends_with_the_same_bytes_and_rows(
    store: LocalStore, pack: Pack, neox: Study, whole: Pack, stopped_at: int
) -> None:
    runs = list(neox.runs)
    with pytest.raises(StudyInterrupted):
        run_pack(store.url, pack.request(runs), StopAt(stopped_at))
    second = pack.request([runs[1]])
    run_pack(store.url, second)
    assert [a.resumed_step for a in attempts_of(store, runs[1].id)] == [-1, stopped_at]
    assert pack.slices(second, 12)[runs[1].id] == whole.slices("pack.0001", 12)[runs[1].id]
    rows = set(map(str, whole.rows("pack.0001").drop(["attempt"]).to_pylist()))
    assert set(map(str, pack.rows(second).drop(["attempt"]).to_pylist())) <= rows


def test_a_process_that_is_killed_in_a_step_goes_on_from_its_last_checkpoint(
    store: LocalStore, pack: Pack, neox: Study, whole: Pack
) -> None:
    first = pack.request(list(neox.runs), rolling_every=4)
    pid = os.fork()
    if pid == 0:
        batches.Batches.at = _killing(batches.Batches.at, 9)  # type: ignore[method-assign]
        run_pack(store.url, first)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    second = pack.request(list(neox.runs))
    run_pack(store.url, second)
    assert attempts_of(store, neox.runs[0].id)[-1].resumed_step in (6, 8)
    assert pack.slices(second, 12) == whole.slices("pack.0001", 12)


@pytest.mark.parametrize("start", [None, -1])
def test_any_step_is_a_checkpoint_and_a_module_that_answers(neox: Study, whole: Pack, start: int | None) -> None:
    run = neox.runs[1]
    replayed = replay(whole.store, run.id, 12 if start is None else 6, start)
    assert replayed.sha256 == whole.slices("pack.0001", replayed.step)[run.id]
    module = plain_module(replayed, load_task(whole.store, run.point.condition.task))
    assert type(module).__name__ == "GPTNeoXForCausalLM"
    weights = dict(module.named_parameters())
    assert all((weights[name] == tensor).all() for name, tensor in replayed.weights.items())
    assert set(weights) == set(replayed.weights)


def test_seeds_are_proven_from_the_draws_that_training_makes(store: LocalStore, pack: Pack, neox: Study) -> None:
    asked = pack.request(list(neox.runs))
    request = get_request(store, asked)
    condition = request.condition
    task = tasks.build(condition.task.name, condition.task.parameters, Path())
    proof = prove(condition, task, request.runs)
    assert len({run.init for run in proof.runs}) == len({run.data for run in proof.runs}) == 2
    proven = [run.model_copy(update={"proof": seen}) for run, seen in zip(request.runs, proof.runs, strict=True)]
    swapped = [run.model_copy(update={"proof": other.proof}) for run, other in zip(proven, proven[::-1], strict=True)]
    put_request(store, request.model_copy(update={"pack_id": "swapped.0001", "runs": tuple(swapped)}))
    with pytest.raises(SeedError, match="init here is not what it was"):
        run_pack(store.url, "swapped.0001")
    put_request(store, request.model_copy(update={"pack_id": "proven.0001", "runs": tuple(proven)}))
    assert [run.status for run in run_pack(store.url, "proven.0001").runs] == [Status.FINISHED] * 2


def test_a_model_that_cannot_be_built_is_an_error_with_words(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    made = study(model="{huggingface: gpt_neoxx, layers: 1, width: 8, heads: 2}")
    with pytest.raises(ModelError, match="did you mean 'gpt_neox'"):
        run_pack(store.url, pack.request(list(made.runs)))
