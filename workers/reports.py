"""What a script reports: lines of JSON in a file, checked one by one.

    {"step": 100, "train.loss": 0.52, "heldout.accuracy": [45, 50]}    measured at step 100; 45 of 50 were right
    {"checkpoint": 100}                                                 the files in checkpoints/100 are whole
    {"proof": {"init": "9f86d0…"}}                                      a digest of what a seed made, before any step
    {"diverged": 120, "reason": "the loss is 10^9"}                     the run is of no more use

Steps never go back; what is measured at a step is reported before its checkpoint, so that no row is lost when the run
goes on from there; a metric has one value at a step.
"""

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.records import FACTORS

_LOSSES = ("train.loss", "loss")  # not finite: the run has diverged
_SHOWN = 120
_DIGEST = re.compile(r"[0-9a-f]{16,64}")


class ReportRefused(Exception):
    """A report that breaks the rules; says which line, and what is wrong."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement; k correct of m where it counts something."""

    metric: str
    value: float
    correct: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Rows of one step, perhaps none."""

    step: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint whose files are whole."""

    step: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """The end of a run that is of no more use."""

    step: int
    reason: str


@dataclass(frozen=True, slots=True)
class Proven:
    """Digests of what the seeds made, by factor."""

    digests: dict[str, str]
    step: int = 0


Said = Measured | Kept | Diverged | Proven


@dataclass(slots=True)
class Reports:
    """Reads what is new in a script's report.

    resumed  the step of the checkpoint from which the script goes on; -1: none
    steps    the last step that the study declares
    step     the newest step that was reported; -1 before the first
    """

    path: Path
    resumed: int
    steps: int
    step: int = -1
    _kept: int = -1
    _lines: int = 0
    _offset: int = 0
    _tail: bytes = b""
    _at_step: dict[str, Row] = field(default_factory=dict)

    def read(self, *, is_whole: bool = False) -> Iterator[Said]:
        """Yield what was said since the last call; raises ReportRefused, once, where it breaks the rules.

        is_whole  nothing more will be written: what stands after the last line's end is a line, too
        """
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        self._offset += len(new)
        *lines, self._tail = (self._tail + new).split(b"\n")
        if is_whole and self._tail:
            lines, self._tail = [*lines, self._tail], b""
        for line in lines:
            self._lines += 1
            if line.strip():
                yield self._parsed(line)

    def _parsed(self, line: bytes) -> Said:
        try:
            body = json.loads(line)
        except ValueError:
            raise self._refused(f"is no JSON: {_shown(line)}") from None
        if isinstance(body, dict):
            if "step" in body:
                return self._measured(self._step_of(body, "step"), body)
            if "checkpoint" in body:
                return self._keeps(self._step_of(body, "checkpoint"))
            if "diverged" in body:
                return Diverged(self._step_of(body, "diverged"), str(body.get("reason", "")) or "it said so")
            if "proof" in body:
                return self._proves(body["proof"])
        raise self._refused(f"says neither step, checkpoint, proof nor diverged: {_shown(line)}")

    def _step_of(self, body: dict[str, Any], key: str) -> int:
        step = body[key]
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise self._refused(f"{key} is a whole number from 0 on, not {step!r}")
        if step > self.steps:
            raise self._refused(f"{key} is {step}, and the study declares {self.steps} steps")
        if step < self.resumed:
            told = "whose files are in SEEDBED_RESUME"
            raise self._refused(f"{key} is {step}, but the run goes on from its checkpoint at {self.resumed}, {told}")
        return step

    def _measured(self, step: int, body: dict[str, Any]) -> Measured | Diverged:
        if step < self.step:
            raise self._refused(f"step is {step} after {self.step}: steps never go back")
        if step <= self._kept:
            told = "what is measured at a step is reported before its checkpoint"
            raise self._refused(f"step is {step} after the checkpoint at {self._kept}: {told}")
        if step > self.step:
            self.step = step
            self._at_step.clear()
        rows = []
        for metric, value in body.items():
            if metric == "step":
                continue
            row = self._row(metric, value)
            before = self._at_step.setdefault(metric, row)
            if before is row:
                rows.append(row)
            elif (before.value, before.total) != (row.value, row.total) and not math.isnan(row.value):
                raise self._refused(f"{metric} is {value} at step {step}, where it was {before.value} before")
        for row in rows:
            if row.metric in _LOSSES and not math.isfinite(row.value):
                return Diverged(step, f"{row.metric} stopped being finite")
        return Measured(step, tuple(rows))

    def _row(self, metric: str, value: Any) -> Row:
        if not metric:
            raise self._refused("a metric has a name")
        try:
            if isinstance(value, list) and len(value) == 2:
                correct, total = value
                if all(type(count) is int for count in value) and 0 <= correct <= total and total > 0:
                    return Row(metric, correct / total, correct, total)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                return Row(metric, float(value))
        except OverflowError:
            pass
        raise self._refused(f"{metric} is a number, or [k, m] with k of m right, not {value!r:.{_SHOWN}}")

    def _keeps(self, step: int) -> Kept:
        if step <= max(self._kept, self.resumed):
            raise self._refused(f"checkpoint is {step} after {max(self._kept, self.resumed)}: they never go back")
        self._kept = step
        return Kept(step)

    def _proves(self, digests: Any) -> Proven:
        if not isinstance(digests, dict) or not digests or set(digests) - set(FACTORS):
            raise self._refused(f"proof has digests of {', '.join(FACTORS)}")
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in digests.values()):
            raise self._refused("a digest of a proof is 16 to 64 hexadecimal digits")
        if self.step >= 0:
            raise self._refused("a proof comes before the first step: it is of what a run begins with")
        return Proven(digests)

    def _refused(self, told: str) -> ReportRefused:
        return ReportRefused(f"line {self._lines} of its report: {told}")


def _shown(line: bytes) -> str:
    return repr(line[:_SHOWN].decode(errors="replace"))
