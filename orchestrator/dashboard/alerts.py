"""What a scientist wants to be told of without looking: pure, from two looks at a study.

Divergence, failed runs, findings, a verification that failed, packs and studies that say nothing any more, a study that
ended, and one that fell behind its own pace. Each is said once for what is new in it: on the page, in a file, to a
webhook.
"""

import json
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from jobs.records import Status
from orchestrator.dashboard.feed import News, Shelf

_MOST_KEPT = 200
_MOST_NAMED = 5
_SLOW = 0.5  # of the study's own mean pace


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that happened; `at` is in seconds since 1970."""

    kind: str
    study: str
    message: str
    at: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)


def alerts_of(before: Shelf | None, after: Shelf) -> list[Alert]:
    """Return what is new in `after`; at the first look at a study, what stands there already."""
    name, at = after.declared.name, after.at
    found: list[Alert] = []
    for status, kind in ((Status.DIVERGED, "diverged"), (Status.FAILED, "failed")):
        new = sorted(_in_status(after, status) - (_in_status(before, status) if before else set()))
        if new:
            more = f" and {len(new) - _MOST_NAMED} more" if len(new) > _MOST_NAMED else ""
            runs = "1 run" if len(new) == 1 else f"{len(new)} runs"
            found.append(Alert(kind, name, f"{runs} {kind}: {', '.join(new[:_MOST_NAMED])}{more}", at))
    findings = after.summary.findings - (before.summary.findings if before else 0)
    if findings > 0:
        found.append(Alert("finding", name, f"{findings} new findings in the table audit", at))
    verdict, former = after.verdict, before.verdict if before else None
    if verdict is not None and verdict.findings and (former is None or verdict.number > former.number):
        worst = verdict.first[0]
        told = f"`seedbed verify` found {verdict.findings}: {worst.kind} {worst.key or worst.run_id}: {worst.detail}"
        found.append(Alert("verification", name, told, at))
    if _ended(after) and not (before and _ended(before)):
        found.append(Alert("finished", name, f"all {after.launched} runs have ended", at))
    return found


def _in_status(shelf: Shelf, status: Status) -> set[str]:
    runs = shelf.tables["runs"]
    return set(runs.filter(pc.field("status") == str(status))["run_id"].to_pylist())


def _ended(shelf: Shelf) -> bool:
    return not shelf.counts[str(Status.WAITING)] and not shelf.counts[str(Status.RUNNING)]


@dataclass(slots=True)
class Pace:
    """Whether a study with running runs stands still or is slow, from how far it was when.

    stall_s  after so many seconds without news it stands still
    """

    stall_s: float
    _first: tuple[float, int] | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=deque)
    _said: str = ""

    def judge(self, shelf: Shelf, now: float) -> Alert | None:
        """Return an alert when the study has just begun to stand still or to be slow, else None."""
        done = max(int(pc.sum(pc.max_element_wise(shelf.tables["runs"]["last_step"], 0)).as_py() or 0), 0)
        self._first = self._first or (now, done)
        self._recent.append((now, done))
        while len(self._recent) > 1 and now - self._recent[1][0] > self.stall_s:
            self._recent.popleft()
        state = self._state(shelf, now, done) if shelf.counts[str(Status.RUNNING)] else ""
        is_news, self._said = state != self._said, state
        if not state or not is_news:
            return None
        told = {
            "stalled": f"no news for {now - shelf.at:,.0f} s, and {shelf.counts[str(Status.RUNNING)]} runs are running",
            "behind": f"trains at less than {_SLOW:.0%} of its own mean pace since it is watched",
        }
        return Alert(state, shelf.declared.name, told[state], now)

    def _state(self, shelf: Shelf, now: float, done: int) -> str:
        if now - shelf.at > self.stall_s:
            return "stalled"
        began, at_first = self._first or (now, done)
        then, at_then = self._recent[0]
        if now - began < 2 * self.stall_s or now <= then:
            return ""
        return "behind" if (done - at_then) / (now - then) < _SLOW * (done - at_first) / (now - began) else ""


@dataclass(slots=True)
class Stalls:
    """Which packs of a study have fallen silent, each said once."""

    _said: set[str] = field(default_factory=set)

    def judge(self, shelf: Shelf, stalled: set[str], now: float) -> Alert | None:
        """Return an alert of this study's packs among `stalled` that were not told of, else None."""
        new = (stalled - self._said) & set(pc.unique(shelf.tables["attempts"]["pack_id"]).to_pylist())
        self._said = stalled
        if not new:
            return None
        named = ", ".join(sorted(new)[:_MOST_NAMED])
        told = f"{len(new)} pack{'' if len(new) == 1 else 's'} beat no more: {named}"
        return Alert("stalled", shelf.declared.name, told, now)


@dataclass(slots=True)
class Alarm:
    """Keeps the newest alerts and sends each one on.

    file     gets a line of JSON for each; None: no file
    webhook  gets a POST of JSON for each; empty: none
    send     further receivers
    """

    file: Path | None = None
    webhook: str = ""
    send: list[Callable[[Alert], None]] = field(default_factory=list)
    kept: deque[Alert] = field(default_factory=lambda: deque(maxlen=_MOST_KEPT))
    trouble: str = ""

    def on_news(self, news: News) -> None:
        """Raise what is new in the news."""
        for alert in alerts_of(news.before, news.shelf):
            self.raise_(alert, is_old=news.before is None)

    def raise_(self, alert: Alert, *, is_old: bool = False) -> None:
        """Keep an alert; one of what stood there before the server began goes nowhere else."""
        self.kept.appendleft(alert)
        if is_old:
            return
        for receiver in self.send:
            receiver(alert)
        body = json.dumps(alert.as_dict(), ensure_ascii=False)
        if self.file is not None:
            try:
                with self.file.open("a", encoding="utf-8") as file:
                    file.write(body + "\n")
            except OSError as error:
                self.trouble = f"{self.file}: {error.strerror}"
        if self.webhook:
            threading.Thread(target=self._post, args=(body.encode(),), daemon=True).start()

    def _post(self, body: bytes) -> None:
        headers = {"content-type": "application/json"}
        request = urllib.request.Request(self.webhook, body, headers)  # noqa: S310  (the scheme was checked)
        try:
            urllib.request.urlopen(request, timeout=5).close()  # noqa: S310
        except (urllib.error.URLError, OSError) as error:
            self.trouble = f"the webhook did not take an alert: {error}"
