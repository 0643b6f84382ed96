"""One pack, end to end: what it leaves in the store, and what kills, faults and full disks do to it."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch

from jobs.beats import newest_beats
from jobs.claims import attempts_of
from jobs.errors import (
    AlreadyExists,
    Corrupt,
    LeaseLost,
    OutOfMemory,
    RunEnded,
    SpecMismatch,
    StoreFull,
    StudyInterrupted,
    Superseded,
)
from jobs.layout import DriverKeys, PackKeys, attempt_key
from jobs.pack import get_outcome, get_request, put_request
from jobs.records import Status
from jobs.store import LocalStore, committed, put_record
from jobs.study import Study
from tests.workers.conftest import Pack, put_sources
from workers import batches
from workers.memory import is_out_of_memory
from workers.pack import run_pack

MakeStudy = Callable[..., Study]


class StopAt(threading.Event):
    """A stop signal that arrives when the loop has asked for it so many times: at a step, and not at a time."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_pack_leaves_rows_checkpoints_and_an_outcome(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    runs = list(study().runs)
    pack_id = pack.request(runs)
    outcome = run_pack(store.url, pack_id)
    assert get_outcome(store, pack_id) == outcome
    assert [(r.status, r.step, r.attempt) for r in outcome.runs] == [(Status.FINISHED, 12, 1)] * 4
    assert pack.steps(pack_id) == [0, 6, 12], "milestones stay, rolling checkpoints go"
    files = [store.local(key) for key in committed(store, PackKeys(pack_id).checkpoints)]
    assert outcome.saves.count == 5, "milestones, and those that went"
    assert outcome.saves.size_bytes * 3 == sum(path.stat().st_size for path in files) * 5, "all of one size"
    assert outcome.saves.seconds > 0
    rows = pack.rows(pack_id)
    assert set(rows["run_id"].to_pylist()) == {run.id for run in runs}
    assert sorted(set(rows["step"].to_pylist())) == [0, 5, 10, 12]
    assert set(rows["metric"].to_pylist()) == {
        "heldout.accuracy",
        "heldout.token_accuracy",
        "heldout.loss",
        "train.loss",
        "train.grad_norm",
    }
    accuracy = rows.filter(pc.field("metric") == "heldout.accuracy")
    assert accuracy["total"].to_pylist() == [32] * 16
    assert accuracy["value"].to_pylist() == [k / 32 for k in accuracy["correct"].to_pylist()]
    assert rows.filter((pc.field("metric") == "train.loss") & (pc.field("step") == 0)).num_rows == 0
    assert len(set(pack.slices(pack_id, 12).values())) == 4, "four seeds, four sets of weights"


def test_the_same_study_twice_gives_the_same_bytes(tmp_path: Path, pack: Pack, study: MakeStudy) -> None:
    from jobs.store import open_store

    other = Pack(open_store(tmp_path / "other", create=True))
    for each in (pack, other):
        run_pack(each.store.url, each.request(list(study().runs)))
    assert pack.rows("pack.0001").equals(other.rows("pack.0001"))
    for step in (0, 6, 12):
        assert pack.slices("pack.0001", step) == other.slices("pack.0001", step)


def test_a_run_does_not_depend_on_its_company(pack: Pack, study: MakeStudy, tmp_path: Path) -> None:
    from jobs.store import open_store

    runs = list(study().runs)
    run_pack(pack.store.url, pack.request(runs))
    alone = Pack(open_store(tmp_path / "alone", create=True))
    for number, slots in enumerate(([2], [3, 0, 1]), start=1):
        run_pack(alone.store.url, alone.request([runs[slot] for slot in slots], threads=2))
        for step in (0, 6, 12):
            assert alone.slices(f"pack.{number:04d}", step).items() <= pack.slices("pack.0001", step).items()


@pytest.mark.parametrize("stopped_at", range(12))
def test_stopped_at_any_step_and_taken_up_again_it_ends_with_the_same_bytes(
    store: LocalStore, pack: Pack, study: MakeStudy, tmp_path: Path, stopped_at: int
) -> None:
    from jobs.store import open_store

    whole = Pack(open_store(tmp_path / "whole", create=True))
    runs = list(study().runs)
    run_pack(whole.store.url, whole.request(runs))
    first = pack.request(runs)
    with pytest.raises(StudyInterrupted):
        run_pack(store.url, first, StopAt(stopped_at))
    with pytest.raises(Exception, match="is not in the store"):
        get_outcome(store, first)
    second = pack.request([runs[2], runs[0]])
    outcome = run_pack(store.url, second)
    assert [run.status for run in outcome.runs] == [Status.FINISHED] * 2
    assert [a.resumed_step for a in attempts_of(store, runs[0].id)] == [-1, stopped_at]
    ends = whole.slices("pack.0001", 12)
    got = pack.slices(second, 12)
    assert {run: got[run] for run in (runs[0].id, runs[2].id)} == {run: ends[run] for run in (runs[0].id, runs[2].id)}
    rows = set(map(str, whole.rows("pack.0001").drop(["attempt"]).to_pylist()))
    again = set(map(str, pack.rows(second).drop(["attempt"]).to_pylist()))
    assert again <= rows


def test_a_process_that_dies_loses_at_most_the_work_since_its_last_checkpoint(
    store: LocalStore, pack: Pack, study: MakeStudy
) -> None:
    runs = list(study().runs)
    first = pack.request(runs, rolling_every=4)
    pid = os.fork()
    if pid == 0:  # the child is killed for real, in the middle of step 9, without any clean-up
        batches.Batches.at = _killing(batches.Batches.at, 9)  # type: ignore[method-assign]
        run_pack(store.url, first)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    last = pack.steps(first)[-1]
    assert pack.steps(first) in ([0, 4, 6, 8], [0, 4, 6]), "at most the one that was being written is missing"
    second = pack.request(runs)
    run_pack(store.url, second)
    assert {a.resumed_step for a in attempts_of(store, runs[0].id)} == {-1, last}
    assert pack.steps(second)[-1] == 12


def _killing(at: Callable[..., batches.Stacked], step: int) -> Callable[..., batches.Stacked]:
    def killed(self: batches.Batches, now: int) -> batches.Stacked:
        if now == step:
            os.kill(os.getpid(), 9)
        return at(self, now)

    return killed


def test_a_broken_checkpoint_is_left_out_for_the_one_before_it(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    runs = list(study().runs)
    with pytest.raises(StudyInterrupted):
        run_pack(store.url, pack.request(runs), StopAt(10))
    path = store.local(PackKeys("pack.0001").checkpoint(10))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    second = pack.request(runs)
    run_pack(store.url, second)
    assert attempts_of(store, runs[0].id)[-1].resumed_step == 8
    assert "left out" in store.local(PackKeys(second).log).read_text()


FAULTY = """
from jobs.seeds import Streams
from jobs.tasks import Batch
from jobs.tasks.parity import Parity

class Faulty(Parity):
    def batch(self, streams: Streams, step: int, size: int) -> Batch:
        if streams.seeds.data == 1 and step == 3:
            raise RuntimeError("no more data")
        return super().batch(streams, step, size)
"""


def test_a_task_that_raises_ends_its_own_run_and_no_other(
    store: LocalStore, pack: Pack, study: MakeStudy, tmp_path: Path
) -> None:
    (tmp_path / "faulty.py").write_text(FAULTY)
    own = study(tmp_path, task='{name: "faulty.py:Faulty", bits: 6, subset: 2, test_size: 32}')
    put_sources(store, own)
    runs = list(own.runs)
    pack_id = pack.request(runs)
    outcome = run_pack(store.url, pack_id)
    assert [run.status for run in outcome.runs] == [Status.FINISHED, Status.FAILED, *[Status.FINISHED] * 2]
    failed = outcome.runs[1]
    assert (failed.step, failed.reason) == (3, "task: RuntimeError: no more data")
    log = store.local(PackKeys(pack_id).log).read_text()
    assert f"run {runs[1].id}, step 3" in log
    assert "Traceback" in log
    built_in = Pack(store)
    built_in.launched = 10
    run_pack(store.url, built_in.request(list(study().runs)))
    same = built_in.slices("pack.0011", 12)
    ours = pack.slices(pack_id, 12)
    assert ours.keys() == {runs[slot].id for slot in (0, 2, 3)}
    assert set(ours.values()) <= set(same.values()), "the neighbours did not notice"


def test_a_run_that_diverges_ends_as_an_outcome(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    wild = study(optimizer="{learning_rate: 1e30, grad_clip_norm: null}")
    pack_id = pack.request(list(wild.runs))
    outcome = run_pack(store.url, pack_id)
    assert {run.status for run in outcome.runs} == {Status.DIVERGED}
    assert all(0 < run.step <= 12 for run in outcome.runs)
    last = max(run.step for run in outcome.runs)
    assert max(pack.rows(pack_id)["step"].to_pylist()) <= last


def test_one_launch_is_carried_out_once(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    pack_id = pack.request(list(study().runs))
    run_pack(store.url, pack_id)
    with pytest.raises(AlreadyExists):
        run_pack(store.url, pack_id)
    assert len(attempts_of(store, study().runs[0].id)) == 1


def test_a_run_that_has_ended_is_claimed_no_more(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    runs = list(study().runs)
    run_pack(store.url, pack.request(runs))
    with pytest.raises(RunEnded, match=runs[0].id):
        run_pack(store.url, pack.request(runs))
    assert [len(attempts_of(store, run.id)) for run in runs] == [1] * len(runs)


def test_a_superseded_attempt_stops_at_its_next_checkpoint(
    store: LocalStore, pack: Pack, study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list(study().runs)
    draw = batches.Batches.at

    def overtaken(self: batches.Batches, step: int) -> batches.Stacked:
        if step == 5:
            while pack.steps("pack.0001") != [0, 4]:  # it is made durable beside the loop
                threading.Event().wait(0.01)
            put_record(store, attempt_key(runs[1].id, 2), {})
        return draw(self, step)

    monkeypatch.setattr(batches.Batches, "at", overtaken)
    with pytest.raises(Superseded, match=runs[1].id):
        run_pack(store.url, pack.request(runs))
    assert pack.steps("pack.0001") == [0, 4]


def test_a_request_whose_ids_do_not_fit_is_refused(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    one, two = study().runs[0], study(training="{steps: 3, batch_size: 8}").runs[1]
    pack_id = pack.request([two, one])
    with pytest.raises(SpecMismatch):
        run_pack(store.url, pack_id)
    assert store.keys("attempts/") == []


def test_a_changed_request_is_refused(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    pack_id = pack.request(list(study().runs))
    path = store.local(PackKeys(pack_id).request)
    path.write_bytes(path.read_bytes().replace(b'"width":8', b'"width":9'))
    with pytest.raises(Corrupt):
        run_pack(store.url, pack_id)


def test_a_full_disk_is_told_and_what_was_committed_stays(
    store: LocalStore, pack: Pack, study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = list(study().runs)
    first = pack.request(runs)
    sync, left = os.fsync, [25]

    def full(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreFull, match="free some space"):
            run_pack(store.url, first)
    second = pack.request(runs)
    assert [run.status for run in run_pack(store.url, second).runs] == [Status.FINISHED] * 4


_LIMITED = """
import resource, sys
from jobs.errors import StoreError
from workers.pack import run_pack
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    run_pack(sys.argv[1], sys.argv[2])
except StoreError as error:
    print(type(error).__name__, "|", error.key)
"""


@pytest.mark.parametrize(("most_bytes", "kind"), [(2_000, "shards"), (8_000, "checkpoints")])
def test_the_kernels_refusal_of_a_write_is_the_stores_error_whoever_writes(
    store: LocalStore, pack: Pack, study: MakeStudy, most_bytes: int, kind: str
) -> None:
    made = study(training="{steps: 200, batch_size: 8}", probes="{every: 1}")
    pack_id = pack.request(list(made.runs))
    command = [sys.executable, "-c", _LIMITED, store.url, pack_id, str(most_bytes)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert f"StoreError | packs/{pack_id}/{kind}/" in said.stdout, said.stderr


def test_a_pack_beats_while_it_trains_and_leaves_no_beat(store: LocalStore, pack: Pack, study: MakeStudy) -> None:
    pack_id = pack.request(list(study().runs))
    seen: list[dict[str, int]] = []

    class Look(StopAt):
        def is_set(self) -> bool:
            while not seen or pack_id not in seen[-1]:
                seen.append(newest_beats(store))
            return False

    run_pack(store.url, pack_id, Look(0))
    assert seen[-1][pack_id] >= 1
    assert newest_beats(store) == {}


def test_a_request_of_a_driver_that_was_replaced_is_void_unless_it_was_begun(
    store: LocalStore, pack: Pack, study: MakeStudy
) -> None:
    asked = get_request(store, pack.request(list(study().runs)))
    late = asked.model_copy(update={"pack_id": "late.0001", "study": "tiny", "epoch": 3})
    put_request(store, late)
    put_record(store, DriverKeys("tiny", 4).claim, {})
    with pytest.raises(LeaseLost, match="driver 3 was replaced"):
        run_pack(store.url, "late.0001")
    assert not store.exists(PackKeys("late.0001").claim)
    assert attempts_of(store, asked.runs[0].run_id) == []


def test_a_pack_that_does_not_fit_says_so(
    store: LocalStore, pack: Pack, study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object) -> None:
        torch.empty(1 << 60)  # the allocator's own words, whatever they are in this version

    monkeypatch.setattr("workers.pack._restore", allocate)
    with pytest.raises(OutOfMemory, match="4 runs do not fit on cpu"):
        run_pack(store.url, pack.request(list(study().runs)))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
