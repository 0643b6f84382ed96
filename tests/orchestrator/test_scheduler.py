"""The drive: what is trained, how often, and what a store that fails or a user who stops does to it."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.claims import attempts_of
from jobs.errors import SpecMismatch, StoreFull, StudyInterrupted
from jobs.layout import attempt_key
from jobs.records import Status
from jobs.store import LocalStore, get_record, open_store, put_record
from jobs.study import Study
from orchestrator.clusters.inline import InlineCluster, prove_here
from orchestrator.declared import read_declared, register, studies
from orchestrator.scheduler import drive
from orchestrator.state import State
from orchestrator.store_state import read_standings
from tests.fakes import FakeCluster

MakeStudy = Callable[..., Study]


def trained(cluster: FakeCluster) -> Counter[str]:
    return Counter(run for _, runs in cluster.launched for run in runs)


def test_every_declared_run_once_and_the_same_again_trains_nothing(store: LocalStore, study: MakeStudy) -> None:
    first, again = FakeCluster(), FakeCluster()
    state = drive(study(), store, first)
    assert trained(first) == Counter(run.id for run in study().runs)
    assert state.counts() == {Status.FINISHED: 6}
    drive(study(), store, again)
    assert again.launched == []


def test_more_seeds_and_conditions_train_only_the_new_runs(store: LocalStore, study: MakeStudy) -> None:
    drive(study(), store, FakeCluster())
    wider = study(grid="{model.width: [4, 8, 16]}", seeds="{design: paired, count: 4}")
    cluster = FakeCluster()
    drive(wider, store, cluster)
    assert set(trained(cluster)) == {r.id for r in wider.runs} - {r.id for r in study().runs}


def test_a_run_that_kills_its_process_takes_no_neighbour_down(store: LocalStore, study: MakeStudy) -> None:
    poison = study().runs[1].id
    cluster = FakeCluster(verdict=lambda run, attempt: None if run == poison else Status.FINISHED)
    state = drive(study(), store, cluster)
    assert {run: s.status for run, s in state.runs.items() if s.status is not Status.FINISHED} == {
        poison: Status.FAILED
    }
    assert trained(cluster)[poison] == 3, "one attempt and two retries"
    standing = read_standings(store, [poison])[poison]
    assert standing.status is Status.FAILED
    assert "process ended" in standing.reason


def test_the_same_command_tries_failed_runs_anew_and_never_diverged_ones(store: LocalStore, study: MakeStudy) -> None:
    bad, wild = study().runs[0].id, study().runs[5].id
    verdicts = {bad: Status.FAILED, wild: Status.DIVERGED}
    drive(study(), store, FakeCluster(verdict=lambda run, attempt: verdicts.get(run, Status.FINISHED)))
    cluster = FakeCluster()
    state = drive(study(), store, cluster)
    assert set(trained(cluster)) == {bad}
    assert state.runs[bad].status is Status.FINISHED
    assert state.runs[wild].status is Status.DIVERGED


def test_a_full_disk_ends_the_drive_with_that_error(store: LocalStore, study: MakeStudy) -> None:
    error = StoreFull("packs/x")
    with pytest.raises(StoreFull):
        drive(study(), store, FakeCluster(cpus=1, verdict=lambda run, attempt: error))


def test_a_stored_spec_that_does_not_match_its_id_is_refused_and_left_alone(
    store: LocalStore, study: MakeStudy
) -> None:
    run = study().runs[0]
    body = {"run_id": run.id, "attempt": 1, "pack_id": "p", "resumed_step": -1, "resumed_pack": "", "spec": {"a": 1}}
    put_record(store, attempt_key(run.id, 1), body)
    before = {key: store.get(key) for key in store.keys("")}
    with pytest.raises(SpecMismatch, match=run.id):
        drive(study(), store, FakeCluster())
    assert {key: store.get(key) for key in store.keys("") if not key.startswith("drivers/")} == before


def test_at_most_so_many_packs_train_at_once(store: LocalStore, study: MakeStudy, tmp_path: Path) -> None:
    def most_at_once(where: LocalStore, execution: str) -> int:
        seen: list[int] = []
        drive(study(execution=execution), where, FakeCluster(cpus=2), lambda state: seen.append(len(state.live)))
        return max(seen)

    assert most_at_once(store, "{pack_width: 2, packs_at_once: 1}") == 1
    assert most_at_once(open_store(tmp_path / "other", create=True), "{pack_width: 2}") == 2


def test_on_change_sees_every_state_up_to_the_end(store: LocalStore, study: MakeStudy) -> None:
    seen: list[State] = []
    drive(study(), store, FakeCluster(), seen.append)
    done = [state.counts()[Status.FINISHED] for state in seen]
    assert done == sorted(done)
    assert done[-1] == 6
    assert seen[-1].finished


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_saves_and_the_same_command_goes_on(store: LocalStore, study: MakeStudy, sent: signal.Signals) -> None:
    long = study(training="{steps: 3000, batch_size: 8}", execution="{pack_width: 6, retries: 0}")
    cluster = InlineCluster(cpus=1)
    told: list[None] = []

    def interrupt(state: State) -> None:
        if not told and any(key.endswith(".safetensors") for key in store.keys("packs/")):
            told.append(os.kill(os.getpid(), sent))

    with pytest.raises(StudyInterrupted, match="the same command goes on"):
        drive(long, store, cluster, interrupt, calibrate=False)
    cluster.close()
    standings = read_standings(store, [run.id for run in long.runs])
    resumable = [s.step for s in standings.values() if s.step >= 0]
    assert resumable
    assert not any(s.is_done for s in standings.values())
    second = FakeCluster()
    second.prove = prove_here  # type: ignore[method-assign]  # the seeds must make what they made before
    drive(long, store, second)
    assert sum(trained(second).values()) == 6
    assert {len(attempts_of(store, run.id)) for run in long.runs} <= {1, 2}


def test_real_packs_in_this_process_end_to_end(store: LocalStore, study: MakeStudy) -> None:
    cluster = InlineCluster(cpus=2)
    state = drive(study(), store, cluster)
    cluster.close()
    assert state.counts() == {Status.FINISHED: 6}


def test_a_study_is_registered_once_and_every_change_anew(store: LocalStore, study: MakeStudy) -> None:
    first = register(store, study(), "tiny.yaml")
    assert register(store, study(), "tiny.yaml") == first
    assert first.revision == 1
    second = register(store, study(seeds="{design: paired, count: 4}"), "tiny.yaml")
    assert (second.revision, len(second.runs)) == (2, 8)
    assert read_declared(store, "tiny") == second
    assert studies(store) == ["tiny"]
    assert get_record(store, "studies/tiny.0001.json")["text"] == study().text
    assert [run.id for run in first.runs] == [run.id for run in study().runs]
    assert first.success == study().settings.success
    assert first.conditions[1].factors == {"model.width": 8}
