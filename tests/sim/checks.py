"""What must hold in every history, looked at whenever something was put that could break it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from jobs import claims
from jobs.claims import Attempt
from jobs.layout import parse_attempt_key, parse_driver_key
from jobs.pack import get_request
from jobs.records import Status
from orchestrator.state import State
from orchestrator.store_state import read_standings
from tests.sim.worker import Worker, value

if TYPE_CHECKING:
    from tests.sim.world import World


class Checks:
    """Watches one history. Raises AssertionError where something that was promised does not hold."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.attempts: dict[str, list[Attempt]] = defaultdict(list)
        self.rows: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self.saved: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.crashed: Counter[tuple[int, str]] = Counter()
        self.epoch = 0

    def on_put(self, key: str) -> None:
        """Hear of a record, and look at the runs that it is about."""
        if key.startswith("drivers/"):
            parsed = parse_driver_key(key)
            if parsed and parsed[2] == "json":
                assert parsed[1] == self.epoch + 1, "epochs have no gaps"
                self.epoch = parsed[1]
        elif key.startswith("attempts/"):
            self._on_claim(key)
        elif key.endswith(".manifest.json"):
            self._on_manifest(key)

    def _on_claim(self, key: str) -> None:
        run_id, number = parse_attempt_key(key) or ("", 0)
        body = self._body(key)
        assert number == len(self.attempts[run_id]) + 1, "attempts have no gaps"
        self.attempts[run_id].append(Attempt.model_validate(body))
        self._look(run_id)

    def _on_manifest(self, key: str) -> None:
        extra = self._body(key)["extra"]
        if "rows" in extra:
            for run_id, attempt, step, measured in extra["rows"]:
                self.rows[run_id].append((step, attempt, measured))
            touched = {row[0] for row in extra["rows"]}
        else:
            for part in extra["runs"]:
                self.saved[part["run_id"]].append((extra["step"], part["attempt"]))
            touched = {part["run_id"] for part in extra["runs"]}
        for run_id in sorted(touched):
            self._look(run_id)

    def _look(self, run_id: str) -> None:
        """Each step of a run counts at most once, with the right value, and without gaps up to what was saved."""
        counted = self.counted(run_id)
        assert all(len(values) == 1 for values in counted.values()), f"run {run_id}: a row counts twice"
        assert all(values == [value(run_id, step)] for step, values in counted.items())
        of_run = self.attempts[run_id]
        saved = [step for step, attempt in self.saved[run_id] if claims.counts(step, attempt, of_run)]
        missing = set(range(max(saved, default=-1) + 1)) - set(counted)
        assert not missing, f"run {run_id}: acknowledged rows of steps {sorted(missing)} are lost"

    def counted(self, run_id: str) -> dict[int, list[str]]:
        """Return the rows of a run that count, by step; equal ones of attempts before a resume are one."""
        of_run = self.attempts[run_id]
        found: dict[int, list[str]] = defaultdict(list)
        for step, attempt, measured in self.rows[run_id]:
            if claims.counts(step, attempt, of_run):
                found[step].append(measured)
        return found

    def on_launch(self, pack_id: str) -> None:
        """A driver that was replaced launches nothing."""
        request = get_request(self.world.store, pack_id)
        assert request.epoch == self.epoch, f"driver {request.epoch} launched {pack_id} after epoch {self.epoch} began"

    def on_crash(self, worker: Worker) -> None:
        """Count who lost its process, by the driver that had launched it."""
        epoch = get_request(self.world.store, worker.pack_id).epoch
        self.crashed.update((epoch, run_id) for run_id in worker.members)

    def on_finish(self, epoch: int, state: State) -> None:
        """Nobody is given up who has not crashed as often as its budget says."""
        from tests.sim.world import RETRIES

        for run_id, run in state.runs.items():
            if run.status is Status.FAILED:
                most = max((n for (_, of), n in self.crashed.items() if of == run_id), default=0)
                total = sum(n for (_, of), n in self.crashed.items() if of == run_id)
                assert total >= RETRIES + 1, f"run {run_id} was given up after {most} crashes: {run.reason}"

    def at_the_end(self) -> None:
        """The tables are those of a history without faults."""
        world, study = self.world, self.world.study
        standings = read_standings(world.store, [run.id for run in study.runs])
        for run in study.runs:
            status, last = standings[run.id].status, run.point.condition.training.steps
            expected, steps = Status.FINISHED, range(last + 1)
            if run.id in world.poison:
                expected, steps = Status.FAILED, range(0)
            elif run.id in world.diverging:
                expected, steps = Status.DIVERGED, range(3)
            assert status is expected, f"run {run.id} is {status} at the end, not {expected}"
            counted = self.counted(run.id)
            assert counted == {step: [value(run.id, step)] for step in steps}, f"run {run.id}: other rows than wanted"

    def _body(self, key: str) -> dict[str, Any]:
        body = json.loads(self.world.store.objects[key])
        del body["self_sha256"]
        return dict(body)
