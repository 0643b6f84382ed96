"""Does a pack move? The rule, the beats that tell it, and a pack that really stands still."""

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from jobs.beats import Heart, Pulse, newest_beats, stalled
from jobs.layout import PackKeys
from jobs.records import Status
from jobs.store import LocalStore, open_store
from jobs.study import Study
from tests.bitwise.drives import one_command
from tests.workers.conftest import Pack
from workers import batches
from workers.crew import Crew
from workers.pack import run_pack
from workers.progress import BEGIN_S, FIRST_S, LEAST_S, MOST_TIMES, Progress, Signs

MakeStudy = Callable[..., Study]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def did(made: Progress, clock: Clock, *things: tuple[str, float]) -> None:
    for what, seconds in things:
        made.begin(what)
        clock.now += seconds


def is_stalled_after(made: Progress, clock: Clock, seconds: float) -> bool:
    clock.now += seconds - 0.1
    before = made.stalled()
    clock.now += 0.2
    assert not before
    return bool(made.stalled())


def test_what_was_never_done_has_ten_minutes_and_what_comes_before_the_loop_half_an_hour(clock: Clock) -> None:
    made = Progress(clock)
    assert is_stalled_after(made, clock, BEGIN_S)
    made.begin("a step")
    assert is_stalled_after(made, clock, FIRST_S)


def test_quick_steps_have_a_minute_whatever_the_first_took(clock: Clock) -> None:
    made = Progress(clock)
    did(made, clock, ("a step", 300.0), ("a step", 0.1), ("a step", 0.2))
    made.begin("a step")
    assert is_stalled_after(made, clock, LEAST_S)
    assert "the longest before took 0.2 s" in made.stalled()


def test_the_first_is_a_measure_for_the_second_alone(clock: Clock) -> None:
    # The probe of a model with 302 million parameters took minutes at step 0, and had one minute the second time.
    made = Progress(clock)
    did(made, clock, ("a probe", 210.0), ("a step", 1.0))
    assert made.patience_s("a probe") == MOST_TIMES * 210
    did(made, clock, ("a probe", 30.0), ("a step", 1.0))
    assert made.patience_s("a probe") == MOST_TIMES * 30
    did(made, clock, ("a probe", 8.0), ("a step", 1.0))
    assert made.patience_s("a probe") == MOST_TIMES * 30, "from then on the longest"


def test_slow_things_have_ten_times_as_long_as_their_kind_has_taken(clock: Clock) -> None:
    made = Progress(clock)
    did(made, clock, *[("a step", 0.5), ("a checkpoint", 40.0)] * 3)
    made.begin("a checkpoint")
    assert is_stalled_after(made, clock, MOST_TIMES * 40)
    made.begin("a step")
    assert is_stalled_after(made, clock, LEAST_S), "slow checkpoints make nobody patient with steps"


def test_each_attempt_is_twice_as_patient(clock: Clock) -> None:
    made = Progress(clock)
    did(made, clock, ("a step", 1.0), ("a step", 1.0))
    for attempt, factor in ((1, 1), (2, 2), (4, 8), (9, 16)):
        made.trust(attempt)
        assert made.patience_s("a step") == LEAST_S * factor


def test_a_pack_that_stands_still_says_so_once_and_beats_again_when_it_moves(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path / "store", create=True)
    made = Progress(clock)
    signs = Signs(Pulse(store, "p.0001"), made)
    did(made, clock, ("a step", 1.0), ("a step", 1.0))
    made.begin("a step")
    numbers = []
    for _ in range(20):
        clock.now += 5.0
        signs.beat(3)
        numbers.append(newest_beats(store)["p.0001"])
    assert numbers[13:] == [14] * 7, "sixty seconds, looked at twice; then silence"
    assert stalled(store, "p.0001", 14).startswith("a step has not ended for 70 s")
    assert caplog.text.count("test_progress.py") == 1, "where each thread stands, once"
    made.begin("a step")
    signs.beat(4)
    assert stalled(store, "p.0001", 15) == ""


def test_a_process_that_was_stopped_is_not_called_stalled_when_it_wakes_up(tmp_path: Path, clock: Clock) -> None:
    store = open_store(tmp_path / "store", create=True)
    made = Progress(clock)
    signs = Signs(Pulse(store, "p.0001"), made)
    did(made, clock, ("a step", 1.0), ("a step", 1.0), ("a step", 3600.0))
    signs.beat(3)
    made.begin("a step")
    clock.now += 5.0
    signs.beat(4)
    assert stalled(store, "p.0001", 1) == stalled(store, "p.0001", 2) == ""


def test_a_loop_that_stands_still_is_told_while_its_heart_beats(
    store: LocalStore, pack: Pack, study: MakeStudy, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, stands, goes_on = batches.Batches.at, threading.Event(), threading.Event()

    def deadlocked(self: batches.Batches, step: int) -> batches.Stacked:
        if step == 4:
            stands.set()
            goes_on.wait()
        return draw(self, step)

    monkeypatch.setattr(batches.Batches, "at", deadlocked)
    monkeypatch.setattr("workers.pack.Heart", partial(Heart, every_s=0.02))
    monkeypatch.setattr("workers.pack.Crew", partial(Crew, progress=Progress(clock)))
    pack_id = pack.request(list(study().runs))
    ends = []
    trains = threading.Thread(target=lambda: ends.append(run_pack(store.url, pack_id)), daemon=True)
    trains.start()
    stands.wait()
    clock.now += LEAST_S + 1
    said = ""
    while not said:
        said = stalled(store, pack_id, newest_beats(store).get(pack_id, 0))
    assert said == "a step has not ended for 61 s; the longest before took 0.0 s"
    log = PackKeys(pack_id).log
    while "deadlocked" not in store.local(log).read_text(encoding="utf-8"):
        pass
    goes_on.set()
    trains.join()
    assert {run.status for run in ends[0].runs} == {Status.FINISHED}, "whoever thought it dead has a fence"


MEASURED = """\
study: measured
task: {name: dependencies, objective: next, objects: plain, test_size: 4, trees: 8}
model: {family: lstm, layers: 1, width: 4}
optimizer: {learning_rate: 1e-2}
training: {steps: 1, batch_size: 2}
probes: {every: 1}
measure: [weights, interdependence]
seeds: {design: paired, count: 2}
execution: {pack_width: 2}
"""
FITTED = MEASURED.replace("family: lstm, layers: 1,", "family: gpt, layers: 1, heads: 2,").replace(
    "[weights, interdependence]", "[structural-probe, linear-probe]"
)


SETS = ("agreement", "attractor", "heldout", "trees")
NAMED = [f"the set {name}" for name in SETS]
MATRICES = {"a matrix of 4 by 16": 4, "a matrix of 83 by 4": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MEASURED, MATRICES | {"all weights": 2, "the words of a run in trees": 2} | dict.fromkeys(NAMED, 1)),
        (FITTED, {f"the fits of a run in {name}": 2 for name in SETS} | dict.fromkeys(NAMED, 1)),
    ],
    ids=["weights and words", "fits"],
)
def test_long_measurements_say_each_run(
    text: str, told: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, heard = Progress.begin, list[str]()

    def listen(self: Progress, what: str) -> None:
        heard.append(what)
        begin(self, what)

    monkeypatch.setattr(Progress, "begin", listen)
    one_command(tmp_path / "store", text)
    assert {what: heard.count(what) / 2 for what in told} == told, (
        "of each run, at both probes, by what decides how long it takes"
    )
