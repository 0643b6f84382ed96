"""What a page may change, for who has a control token: stop, resume and extend a study.

Stop is a record in the store, heard by whoever drives the study, wherever that is. Resume and extend need a process
that drives: the server starts `seedbed resume` where it was told where (`seedbed serve --drive-at`); else the answer
is the command to run. A process that was started here outlives the server, and its log lies in the store.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from jobs.errors import Fault, QueryError, StudyError
from jobs.requests import request_stop, stops
from jobs.store import LocalStore, Store
from jobs.study_edit import extended
from jobs.study_file import parse_study
from jobs.study_files import laid_out
from orchestrator.declared import Declared, read_declared, register
from orchestrator.rounds import as_decided

HERE = ("inline", "ray")
_MOST_SEEDS = 1_000
_ROOT = Path(__file__).parents[2]
_START = "from orchestrator.cli import main; main()"


@dataclass(frozen=True, slots=True)
class Told:
    """What was done: in words, with the command that does the same or is still to be run, and where its log is."""

    study: str
    action: str
    says: str
    command: str = ""
    log: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


@dataclass(slots=True)
class Control:
    """Stops, resumes and extends the studies of a store.

    at  where drivers are started: `inline` or `ray` on this machine, a Ray's address, or empty for nowhere
    """

    store: Store
    at: str = ""
    _drivers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def act(self, name: str, form: Mapping[str, list[str]]) -> Told:
        """Return what was done for a form; raises QueryError, StudyError, NotFound."""
        action = form.get("action", [""])[0]
        if action not in ("stop", "resume", "extend"):
            raise QueryError(f"what to do is stop, resume or extend, not {action!r}")
        declared = read_declared(self.store, name)
        if declared.imported:
            raise QueryError(f"{name} was trained elsewhere and imported: nothing here drives it")
        if action == "stop":
            number = request_stop(self.store, name)
            says = f"asked whoever drives {name} to save and leave (request {number}); a driver hears it within seconds"
            return Told(name, action, says, self.commands(name)["stop"])
        return self._drive(name, action, "") if action == "resume" else self._extend(declared, _counts(form))

    def commands(self, name: str) -> dict[str, str]:
        """Return the same three as commands for a terminal."""
        study, store = shlex.quote(name), shlex.quote(self.store.url)
        address = f" --address {shlex.quote(self.at)}" if self.at and self.at not in HERE else ""
        return {
            "stop": f"seedbed stop {study} --store {store}",
            "resume": f"seedbed resume {study} --store {store}{address}",
            "extend": f"seedbed extend STUDY.yaml --seeds +8 --store {store}",
        }

    def _extend(self, declared: Declared, more: Mapping[str, int]) -> Told:
        file = declared.file
        text = extended(declared.text, file, more, {})
        with laid_out(declared.files, file) as folder:
            before, larger = parse_study(declared.text, file, folder), parse_study(text, file, folder)
            lost = {run.id for run in before.runs} - {run.id for run in larger.runs}
            if lost:
                raise StudyError((Fault(file, 0, "", f"{len(lost)} runs would have other ids: this is no extension"),))
            register(self.store, as_decided(larger, self.store, file), file)
        added = len(larger.runs) - len(before.runs)
        says = f"{added} more runs are declared; raise the count in your own copy of {Path(file).name}, too. "
        return self._drive(declared.name, "extend", says)

    def _drive(self, name: str, action: str, says: str) -> Told:
        command = self.commands(name)["resume"]
        if not self.at:
            return Told(name, action, f"{says}This server starts no drivers (--drive-at): run the command", command)
        running = self._drivers.get(name)
        if running is not None and running.poll() is None:
            if action == "extend":
                return Told(name, action, f"{says}Stop the study and resume it, to train them", command)
            raise QueryError(f"process {running.pid}, which this server started, still drives {name}")
        log = self._start(name)
        return Told(name, action, f"{says}A driver was started at {self.at}", command, log)

    def _start(self, name: str) -> str:
        seen = stops(self.store, name)  # a stop that is asked for from now on is meant for this driver
        place = ["--cluster", self.at] if self.at in HERE else ["--address", self.at]
        words = ["resume", "--store", self.store.url, *place, "--no-report", "--stops-seen", str(seen), "--", name]
        key = f"requests/{name}.drive.{len(self.store.keys(f'requests/{name}.drive.')) + 1:04d}.log"
        environment = _with_path(_ROOT)
        if isinstance(self.store, LocalStore):
            with self.store.log(key) as file:
                self._drivers[name] = _process(words, file, environment)
            return key
        with tempfile.NamedTemporaryFile("w", prefix="seedbed-drive-", suffix=".log", delete=False) as aside:
            self._drivers[name] = _process(words, aside, environment)
        return aside.name


def seed_counts(text: str) -> dict[str, int]:
    """Return the numbers of seeds of a study file that can be raised, by name: count, init, data."""
    try:
        seeds = (yaml.safe_load(text) or {}).get("seeds", {})
    except (yaml.YAMLError, AttributeError):
        return {}
    found = {name: seeds.get(name) for name in ("count", "init", "data")} if isinstance(seeds, dict) else {}
    return {name: number for name, number in found.items() if type(number) is int}


def _counts(form: Mapping[str, list[str]]) -> dict[str, int]:
    given = {name: form[name][0].strip() for name in ("count", "init", "data") if form.get(name, [""])[0].strip()}
    wrong = [text for text in given.values() if not re.fullmatch(r"[0-9]{1,4}", text) or int(text) > _MOST_SEEDS]
    if wrong:
        raise QueryError(f"more seeds are a whole number up to {_MOST_SEEDS:,}, not {wrong[0][:20]!r}")
    counts = {name: int(text) for name, text in given.items() if int(text)}
    if not counts:
        raise QueryError("say how many more seeds: at least 1")
    return counts


def _with_path(root: Path) -> dict[str, str]:
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{before}" if before else str(root)}


def _process(words: list[str], log: Any, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    # In a session of its own: Ctrl-C at the server's terminal is not meant for it.
    return subprocess.Popen(
        [sys.executable, "-c", _START, *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )
