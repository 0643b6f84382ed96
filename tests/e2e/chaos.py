"""A study on a real Ray, and what strikes it: processes that die or stop, a full disk, a store that does not answer.

The driver is the command line in a process of its own. Only processes are struck that wrote their number into the
study's own store, or that the test has started. Training is paced by a file, so that it lasts as long as the faults
do, on any machine.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jobs.claims import attempts_of
from jobs.layout import PackKeys
from jobs.pack import get_request
from jobs.process import is_surely_dead
from jobs.records import Status
from jobs.store import Store, get_record
from jobs.study import Study
from jobs.study_file import parse_study
from orchestrator.collector import Collector
from orchestrator.declared import declare
from orchestrator.store_state import read_standings
from tests.raylets import Raylets, children

PACE = "SEEDBED_CHAOS_PACE"
STEPS, WIDTH, SEEDS, SAVE_EVERY = 1500, 2, 6, 5
STUDY = f"""\
study: chaos
task: {{name: "paced.py:Paced", bits: 6, subset: 2, test_size: 32}}
model: {{family: gpt, layers: 1, width: 8, heads: 2}}
optimizer: {{learning_rate: 3e-3}}
training: {{steps: {STEPS}, batch_size: 8}}
probes: {{every: 50}}
checkpoints: {{rolling: {{every: {SAVE_EVERY}}}}}
seeds: {{design: paired, count: {SEEDS}}}
execution: {{pack_width: {WIDTH}, retries: 60}}
"""
TASK = f"""\
import os
import time
from pathlib import Path

from jobs.tasks.parity import Parity


class Paced(Parity):
    def batch(self, streams, step, size):
        if pace := os.environ.get("{PACE}"):
            time.sleep(float(Path(pace).read_text()))
        return super().batch(streams, step, size)
"""
SEEDBED = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
PAUSE_S, AWAY_S, CUT_S = 20.0, 5.0, 5.0
COLUMNS = ["run_id", "step", "metric", "value", "correct", "total"]


def write_study(folder: Path, text: str = STUDY) -> Path:
    """Write a study and its task; returns the study's file."""
    (folder / "paced.py").write_text(TASK)
    file = folder / "chaos.yaml"
    file.write_text(text)
    return file


def read_study(file: Path) -> Study:
    """Return the study of a file."""
    return parse_study(file.read_text(), file.name, file.parent)


def same_bytes(store: Store, calm: Store, made: Study) -> None:
    """Every run has finished, and rows and last weights are those of the calm store; no finding in `audit`."""
    standings = read_standings(store, [run.id for run in made.runs])
    assert Counter(standing.status for standing in standings.values()) == {Status.FINISHED: len(made.runs)}
    ours, theirs = (Collector(it, declare(made, "chaos.yaml")).collect() for it in (store, calm))
    assert ours["metrics"].select(COLUMNS).equals(theirs["metrics"].select(COLUMNS)), "a row is lost, doubled or other"
    ends = [
        {row["run_id"]: row["sha256"] for row in found["checkpoints"].to_pylist() if row["step"] == STEPS}
        for found in (ours, theirs)
    ]
    assert ends[0] == ends[1]
    assert len(ends[0]) == len(made.runs)
    assert ours["audit"].to_pylist() == []


@dataclass
class Pack:
    """A pack that trains: the names of its process, its runs, and the newest step that it has saved."""

    pack_id: str
    process: Mapping[str, Any]
    runs: tuple[str, ...]
    saved: int

    @property
    def pid(self) -> int:
        """Return the number of its process."""
        return int(self.process["pid"])


@dataclass
class Blow:
    """A pack that lost its process, and how many attempts its runs had by then."""

    what: str
    pack: Pack
    since: float
    attempts: dict[str, int]


@dataclass
class Chaos:
    """Strikes a study until the plan is used up, and notes how long each recovery took.

    figures   what was measured → seconds, or steps
    relayed   what the way to the store does with a request; unused where there is none
    disk      the folder of the store, where it lies on a disk that may be filled
    fast_s    seconds of a batch while training lags behind the plan; else it takes slow_s
    singly    whether each fault waits until all have recovered from the one before
    """

    rays: Raylets
    store: Store
    file: Path
    pace_file: Path
    rng: np.random.Generator
    plan: list[str]
    figures: dict[str, list[float]]
    relayed: list[str] = field(default_factory=lambda: ["pass"])
    disk: Path | None = None
    fast_s: float = 0.01
    slow_s: float = 0.1
    singly: bool = False
    study_packs: int = SEEDS // WIDTH
    struck: Counter[str] = field(default_factory=Counter)
    driver: subprocess.Popen[bytes] | None = None
    _blows: list[Blow] = field(default_factory=list)
    _hit: set[str] = field(default_factory=set)
    _wakes: dict[int, tuple[float, str]] = field(default_factory=dict)
    _hung: dict[str, float] = field(default_factory=dict)
    _claims: dict[str, tuple[Mapping[str, Any], tuple[str, ...]]] = field(default_factory=dict)

    def run(self) -> None:
        """Let the study train under all faults of the plan, and then to its end."""
        with self._driver_ended():
            self._run()

    def run_alone(self, seconds: float) -> None:
        """Let the packs train for so long without GCS and driver, bring both back, and let the study end."""
        with self._driver_ended():
            self._run_alone(seconds)

    @contextmanager
    def _driver_ended(self) -> Iterator[None]:
        """Leave no driver behind where something was not as it should be."""
        try:
            yield
        finally:
            if self.driver is not None and self.driver.poll() is None:
                self.driver.kill()
                self.driver.wait()

    def _run(self) -> None:
        began = time.monotonic()
        self.pace(self.fast_s)
        self.start_driver()
        for done, what in enumerate(self.plan):
            self.until(lambda: bool(self.targets()) and (not self.singly or self._all_train()))
            strikes: dict[str, Callable[[], None]] = {
                "worker": self.kill_worker,
                "pause": self.pause_worker,
                "hang": self.hang_worker,
                "raylet": lambda: self.kill_node(orphans=True),
                "node": lambda: self.kill_node(orphans=False),
                "gcs": self.kill_gcs,
                "driver": self.kill_driver,
                "disk": self.fill_disk,
                "cut": lambda: self.disturb("lose-request"),
                "lost": lambda: self.disturb("lose-reply"),
                "503": lambda: self.disturb("503"),
            }
            print(f"{time.monotonic() - began:.0f} s: {done + 1} of {len(self.plan)}: {what}", flush=True)  # noqa: T201
            strikes[what]()
            self.struck[what] += 1
            ahead = max((pack.saved for pack in self.packs()), default=0) / STEPS - done / len(self.plan)
            self.pace(self.fast_s if ahead < 0 else self.slow_s)
        self.finish()

    def _run_alone(self, seconds: float) -> None:
        self.pace(0.4)
        self.start_driver()
        self.until(lambda: len(self.targets()) == self.study_packs)
        driver, self.driver = self.driver, None
        assert driver is not None
        driver.kill()
        driver.wait()
        self.rays.kill_gcs()
        before = {pack.pack_id: pack.saved for pack in self.packs()}
        self.hold(seconds)
        after = {pack.pack_id: pack.saved for pack in self.packs()}
        assert after.keys() == before.keys()
        assert all(after[pack_id] > before[pack_id] for pack_id in before), "they train on"
        self.figures["steps trained without GCS and driver"] += [float(after[it] - before[it]) for it in before]
        self.rays.start_gcs()
        self._without("GCS and driver started again → a run that lost its worker meanwhile trains", self.start_driver)
        self.finish()

    def finish(self) -> None:
        """Wait until all have recovered, and let the study end."""
        self.until(lambda: not self._ailing)
        self.pace(0.0)
        driver = self.driver
        assert driver is not None
        self.until(lambda: driver.poll() is not None)
        assert driver.returncode == 0, self.told()

    # What is watched

    def packs(self) -> list[Pack]:
        """Return the packs whose process lives and has saved something, and which nobody has given up."""
        keys = self.store.keys("packs/")
        over = {key.split("/")[1] for key in keys if key.endswith(("/outcome.json", "/given-up.json"))}
        saved: dict[str, int] = {}
        for key in keys:
            if key.endswith(".safetensors.manifest.json"):
                pack_id, step = key.split("/")[1], int(key.rpartition("/")[2].partition(".")[0])
                saved[pack_id] = max(saved.get(pack_id, 0), step)
        found = []
        for pack_id in sorted(set(saved) - over):
            if pack_id not in self._claims:
                claim = get_record(self.store, PackKeys(pack_id).claim)
                runs = tuple(run.run_id for run in get_request(self.store, pack_id).runs)
                self._claims[pack_id] = claim, runs
            process, runs = self._claims[pack_id]
            if not is_surely_dead(process):
                found.append(Pack(pack_id, process, runs, saved[pack_id]))
        return found

    def targets(self) -> list[Pack]:
        """Return the packs that were not struck yet."""
        return [pack for pack in self.packs() if pack.pack_id not in self._hit]

    def until(self, ready: Callable[[], bool]) -> None:
        """Look after everything until something holds; the test's own timeout is the limit."""
        while True:
            self.watch()
            if ready():
                return
            time.sleep(0.1)

    @property
    def _ailing(self) -> bool:
        return bool(self._blows or self._wakes or self._hung)

    def _all_train(self) -> bool:
        # A pack that crashed twice was split, and runs that have ended are in none.
        return not self._ailing and len(self.packs()) >= self.study_packs - 1

    def hold(self, seconds: float) -> None:
        """Look after everything for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= end)

    def watch(self) -> None:
        """Wake who sleeps, and note who has recovered."""
        now = time.monotonic()
        for pid in [pid for pid, (wake, _) in self._wakes.items() if wake <= now]:
            self._hit.discard(self._wakes.pop(pid)[1])
            send(pid, signal.SIGCONT)
        for pack_id in [it for it in self._hung if self.store.exists(PackKeys(it).given_up)]:
            self.figures["a process that stands still → found"].append(now - self._hung.pop(pack_id))
        self._blows = [blow for blow in self._blows if not self._recovered(blow, now)]
        if self.driver is not None and self.driver.poll() not in (None, 0):
            raise AssertionError(f"the driver ended by itself: {self.told()}")

    def _recovered(self, blow: Blow, now: float) -> bool:
        later = [attempts_of(self.store, run)[number:] for run, number in blow.attempts.items()]
        if not all(later):
            return False
        self.figures[blow.what].append(now - blow.since)
        for claims in later:
            assert claims[0].resumed_step >= blow.pack.saved, "what was saved when the fault struck is not lost"
            self.figures["steps gone on from, beyond what was saved at the fault"].append(
                claims[0].resumed_step - blow.pack.saved
            )
        return True

    def told(self) -> str:
        """Return the end of what drivers have said."""
        return (self.file.parent / "driver.log").read_text(errors="replace")[-3000:]

    # What is done

    def pace(self, seconds: float) -> None:
        """Let each batch of a run take at least so long."""
        staged = self.pace_file.with_suffix(".new")
        staged.write_text(str(seconds))
        staged.replace(self.pace_file)

    def start_driver(self) -> None:
        """Start the command that goes on with the study."""
        where = ["--store", self.store.url, "--address", self.rays.address]
        with (self.file.parent / "driver.log").open("ab") as log:
            command = [*SEEDBED, "run", str(self.file), *where, "--no-report", "--json"]
            self.driver = subprocess.Popen(command, stdout=log, stderr=log)

    def _pick(self) -> Pack:
        found = self.targets()
        pack = found[int(self.rng.integers(len(found)))]
        self._hit.add(pack.pack_id)
        return pack

    def _blow(self, what: str, pack: Pack) -> Blow:
        return Blow(what, pack, time.monotonic(), {run: len(attempts_of(self.store, run)) for run in pack.runs})

    def kill_worker(self) -> None:
        """Kill the process of a pack."""
        pack = self._pick()
        self._blows.append(self._blow("a worker killed → its runs train again", pack))
        send(pack.pid, signal.SIGKILL)

    def pause_worker(self) -> None:
        """Stop the process of a pack for 20 s: it may well be replaced, and writes on when it wakes."""
        pack = self._pick()
        send(pack.pid, signal.SIGSTOP)
        self._wakes[pack.pid] = time.monotonic() + PAUSE_S, pack.pack_id

    def hang_worker(self) -> None:
        """Stop it for ever."""
        pack = self._pick()
        self._blows.append(self._blow("a process that stands still → its runs train again", pack))
        self._hung[pack.pack_id] = time.monotonic()
        send(pack.pid, signal.SIGSTOP)

    def kill_node(self, *, orphans: bool) -> None:
        """Kill the raylet under a pack, with its workers or without, and start another node."""
        pid = self._pick().pid
        node = next(node for node in self.rays.nodes if pid in children(self.rays.raylet(node)))
        here = children(self.rays.raylet(node))
        what = "a raylet killed, its workers going on" if orphans else "a node killed"
        for pack in [pack for pack in self.packs() if pack.pid in here]:
            self._hit.add(pack.pack_id)
            self._blows.append(self._blow(f"{what} → its runs train elsewhere", pack))
        self.rays.kill(node, orphans=orphans)
        self.rays.add()

    def _without(self, what: str, back: Callable[[], None]) -> None:
        """Kill a worker while nobody can replace it, let the others train on, and bring back who was killed."""
        blow = self._blow(what, self._pick())
        send(blow.pack.pid, signal.SIGKILL)
        others = {pack.pack_id: pack.saved for pack in self.targets()}
        self.hold(AWAY_S)
        self.until(lambda: all(pack.saved > others.get(pack.pack_id, -1) for pack in self.targets()))
        back()
        blow.since = time.monotonic()
        self._blows.append(blow)

    def kill_gcs(self) -> None:
        """Kill the GCS, and start it again."""
        self.rays.kill_gcs()
        self._without("the GCS started again → a run that lost its worker meanwhile trains", self.rays.start_gcs)

    def kill_driver(self) -> None:
        """Kill the driver, and start another."""
        driver, self.driver = self.driver, None
        assert driver is not None
        driver.kill()
        driver.wait()
        self._without("a driver started again → a run that lost its worker meanwhile trains", self.start_driver)

    def fill_disk(self) -> None:
        """Fill the disk of the store until the driver gives up, make room, and go on by the same command."""
        assert self.disk is not None
        filler, (driver, self.driver) = self.disk / "filler", (self.driver, None)
        assert driver is not None
        with filler.open("wb") as file:
            while True:
                try:
                    os.write(file.fileno(), bytes(1 << 16))
                except OSError:
                    break
        self.until(lambda: driver.poll() is not None)
        assert driver.returncode != 0, "a full disk is an error"
        filler.unlink()
        self.start_driver()

    def disturb(self, verdict: str) -> None:
        """Let the way to the store do this with every other request for a while, or lose all of them."""
        self.relayed[0] = verdict
        self.hold(CUT_S)
        self.relayed[0] = "pass"


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def figures() -> dict[str, list[float]]:
    """Return an empty collection of measurements."""
    return defaultdict(list)


def as_lines(measured: Mapping[str, list[float]]) -> list[str]:
    """Return count, median and longest of each figure."""
    lines = []
    for what, values in sorted(measured.items()):
        unit = "steps" if what.startswith("steps") else "s"
        ordered = sorted(values)
        middle = ordered[len(ordered) // 2]
        lines.append(f"{what}: {middle:.1f} {unit} (median of {len(values)}), {ordered[-1]:.1f} {unit} (longest)")
    return lines
