"""One run on several processes: the numbers of one, exact resumption, one form of checkpoint, sudden ends."""

import os
import signal
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.errors import Corrupt, ModelError, RankLost, StoreError
from jobs.layout import PackKeys
from jobs.store import Store, open_store
from tests.workers.test_modules import GPT, LLAMA, NEOX, STEPS, batch, differences, engine_for, made, trained
from workers.checkpoint import Saved, Slice, read_saved, read_slice, save, slice_digest, stored_rows
from workers.engines.choice import switch
from workers.engines.modules import ModuleEngine
from workers.host import Here
from workers.part_saver import Place
from workers.parts import whole_digest

pytest.importorskip("transformers")
pytest.importorskip("accelerate")

LAYOUTS = [{"processes": 2, "sharding": "ddp"}, {"processes": 2, "sharding": "fsdp"}]


@pytest.fixture(autouse=True)
def switches() -> None:
    switch(made(NEOX), 1, 1)


def train(engine: ModuleEngine, steps: range, seed: int = 0) -> dict[str, torch.Tensor]:
    """Return the state after some steps, copied."""
    for step in steps:
        engine.train_step(step, *batch(step, seed))
    return {name: tensor.clone() for name, tensor in engine.state().items()}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda it: it["sharding"])
def test_two_processes_train_like_one_and_go_on_as_if_never_stopped(layout: dict[str, Any]) -> None:
    """The same masks, too: they are drawn for the rows of a part, whoever computes it."""
    model = NEOX | {"dropout": 0.2, "config": {"tie_word_embeddings": True}}
    spec, half = made(model, accumulate=2, **layout), STEPS // 2
    one = trained(made(model, accumulate=4), 0)
    losses = one.pop("reported")
    with closing(engine_for(spec, 0)) as engine:
        middle = train(engine, range(half))
        inputs, targets = batch(3, 0)
        predicted, nll = engine.evaluate(inputs[:, :7], targets[:, :7])
        shown = [*engine.hidden(inputs), *engine.attention(inputs)]
        end = train(engine, range(half, STEPS))
        assert engine.losses[0] == pytest.approx(float(losses[0, -1, 0]), rel=1e-5)
        assert engine.grad_norms[0] == pytest.approx(float(losses[0, -1, 1]), rel=1e-4)
        engine.load(middle)
        again = train(engine, range(half, STEPS))
    assert differences(end, one) < 2e-5
    assert list(end) == list(one)
    assert slice_digest(end, 0) == slice_digest(again, 0)
    with closing(engine_for(spec, 0)) as fresh:
        fresh.load(middle)
        assert slice_digest(train(fresh, range(half, STEPS)), 0) == slice_digest(end, 0), "a new process"
    with closing(engine_for(made(model, accumulate=4), 0)) as alone:
        alone.load(middle)
        theirs, their_nll = alone.evaluate(inputs[:, :7], targets[:, :7])
        their_shown = [*alone.hidden(inputs), *alone.attention(inputs)]
    assert (theirs == predicted).all()
    torch.testing.assert_close(torch.from_numpy(nll), torch.from_numpy(their_nll), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(shown, their_shown, rtol=1e-5, atol=1e-6)


def saved_in_parts(engine: ModuleEngine, store: Store, step: int) -> Saved:
    """Commit a run's state as a pack does it, and return what is found then."""
    keys, whole = PackKeys("p"), dict[str, torch.Tensor]()
    parts = engine.take(Place(store.url, keys.pack_id), step, whole).committed(store, keys, step)
    one = Slice("r", 1, 0, slice_digest(whole, 0, parts), ())
    return read_saved(store, save(store, keys, step, "rolling", whole, [one], "e", parts).key)[0]


def test_each_process_of_fsdp_saves_its_part_and_any_number_of_processes_goes_on(
    tmp_path: Path, reads: dict[tuple[str, str], int]
) -> None:
    spec, half = made(NEOX, processes=2, sharding="fsdp"), STEPS // 2
    store = open_store(tmp_path / "store", create=True)
    with closing(engine_for(spec, 0)) as engine:
        middle = train(engine, range(half))
        saved = saved_in_parts(engine, store, half)
        assert saved.slice.sha256 == whole_digest(middle, 0, engine.cuts)
        end = train(engine, range(half, STEPS))
    sizes = [part["size_bytes"] for part in saved.manifest.extra["parts"]]
    assert len(sizes) == 2
    assert max(sizes) < 1.1 * min(sizes), "each has its half"
    row = read_slice(store, saved)
    assert all(torch.equal(row[name], tensor) for name, tensor in middle.items())
    reads.clear()
    with closing(engine_for(spec, 0)) as fresh:
        stored = stored_rows(store, [saved])
        fresh.load(stored)
        stored.finish()
        own, whole = (store.local(key).name for key in (PackKeys("p").part(half, 0, 2), saved.manifest.key))
        assert {file for file, _ in reads} == {own, whole}, "nothing of the other process's part"
        assert set(reads.values()) == {1}
        assert len(reads) == len(middle), "each tensor once, or its half"
        assert slice_digest(train(fresh, range(half, STEPS)), 0) == slice_digest(end, 0)
    for other in ({"processes": 1, "accumulate": 2}, {"processes": 4, "sharding": "fsdp"}):
        with closing(engine_for(made(NEOX, **other), 0)) as resharded:
            reads.clear()
            stored = stored_rows(store, [saved])
            resharded.load(stored)
            stored.finish()
            assert set(reads.values()) == {1}, "the first process reads all parts, each tensor once"
            assert slice_digest(resharded.state(), 0) == slice_digest(middle, 0)
            assert differences(train(resharded, range(half, STEPS)), end) < 2e-5


def test_a_part_that_another_process_reads_wrong_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    spec = made(NEOX, processes=2, sharding="fsdp")
    with closing(engine_for(spec, 0)) as engine:
        train(engine, range(1))
        saved = saved_in_parts(engine, store, 1)
        key = PackKeys("p").part(1, 1, 2)
        place = store.local(key)
        right = place.read_bytes()
        place.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
        stored = stored_rows(store, [saved])
        engine.load(stored)
        with pytest.raises(Corrupt, match="differs from its manifest") as told:
            stored.finish()
        assert told.value.key == key
        place.write_bytes(right)
        stored = stored_rows(store, [saved])
        engine.load(stored)
        stored.finish()
        place.write_bytes(right[: len(right) // 2])
        with pytest.raises(Corrupt, match="cannot be read") as told:
            engine.load(stored_rows(store, [saved]))
        assert told.value.key == key


def test_a_part_that_a_process_cannot_save_is_the_stores_fault(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    store.put(PackKeys("p").part(1, 1, 2), b"somebody else was here")
    with closing(engine_for(made(NEOX, processes=2, sharding="fsdp"), 0)) as engine:
        train(engine, range(1))
        with pytest.raises(StoreError, match=r"process 1 of 2 could not save its part: .*exists already"):
            saved_in_parts(engine, store, 1)
    assert store.keys(PackKeys("p").checkpoints) == []


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda it: it["sharding"])
def test_three_and_more_processes_go_on_bitwise(layout: dict[str, Any]) -> None:
    spec = made(GPT, **{**layout, "processes": 4})
    with closing(engine_for(spec, 0)) as engine:
        middle = train(engine, range(2))
        end = train(engine, range(2, 4))
    with closing(engine_for(spec, 0)) as fresh:
        fresh.load(middle)
        assert slice_digest(train(fresh, range(2, 4)), 0) == slice_digest(end, 0)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda it: it["sharding"])
def test_a_pack_of_two_runs_and_bf16_and_recomputation(layout: dict[str, Any]) -> None:
    spec = made(LLAMA, precision="bf16", recompute=True, **layout)
    alone = made(LLAMA, precision="bf16", accumulate=2)
    with closing(engine_for(spec, 0, 1)) as engine:
        for step in range(3):
            engine.train_step(step, *batch(step, 0, 1))
        both = {name: tensor.clone() for name, tensor in engine.state().items()}
    one = trained(alone, 0, 1, steps=3)
    one.pop("reported")
    assert differences(one, both) < 1e-4


def test_signals_mean_the_first_process_and_one_that_dies_is_an_error_at_once() -> None:
    engine = engine_for(made(NEOX, processes=2), 0)
    (here,) = engine._fellows.hosts
    assert isinstance(here, Here)
    fellow, folder = here.processes[1], here.folder
    train(engine, range(1))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        os.kill(fellow.pid, number)
    train(engine, range(1, 2))
    os.kill(fellow.pid, signal.SIGKILL)
    with pytest.raises(RankLost, match="process 1 of 2 ended with code -9"):
        train(engine, range(2, 4))
    engine.close()
    assert not folder.exists()
    assert not torch.distributed.is_initialized()
    with closing(engine_for(made(NEOX, processes=2), 0)) as another:
        train(another, range(1))
        with pytest.raises(ModelError, match="one of several that train a run"):
            engine_for(made(NEOX), 0)


def test_a_process_that_cannot_begin_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RankLost, match="process 1 of 2 ended with code 1"):
        engine_for(made(NEOX, processes=2), 0)
    assert not torch.distributed.is_initialized()
