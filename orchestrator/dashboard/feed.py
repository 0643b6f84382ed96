"""What the store shows now: one thread looks at it again and again, and collects what is new.

A study becomes a `Shelf`: its tables, its summary, and a version that grows with every change. Pages read shelves and
never the store's tables; listeners are told which study changed and, for each condition, from which step on.
"""

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from jobs.errors import NotFound, QueryError, SeedbedError
from jobs.records import Status
from jobs.scratch import Scratch
from orchestrator.collected import Collected, Tables, views_of
from orchestrator.dashboard.beside import Beside, Carried, give_back
from orchestrator.dashboard.sandbox import Limits, Sandbox
from orchestrator.dashboard.signs import Signs
from orchestrator.dashboard.summaries import Summaries
from orchestrator.declared import Declared
from orchestrator.library import NAMES_ESTIMATES, Library, standing_of
from orchestrator.query import sql
from orchestrator.summary import StudySummary
from orchestrator.verdicts import Judged, newest_verdict

_LEAST_PAUSE_S = 0.3
_SHARE = 0.5  # of one core's time that looking may take where the store is large
_TRIM_S = 5.0  # between two times at which freed memory is given back
_MOST_REMEMBERED = 200
_MOST_ANSWER_BYTES, _MOST_KEPT_BYTES = 8 * 1024**2, 16 * 1024**2
_MOST_ROWS = 2_000_000  # of an answer to one of the dashboard's own questions
_NAMES_METRICS = re.compile(r"\bmetrics\b")


@dataclass(frozen=True, slots=True)
class Shelf:
    """One study as it was at one look.

    version  grows with every change, and over restarts of the server
    at       seconds since 1970 of the look
    last     the rows of the rule's metric at the last step of their runs; None: they are looked up
    verdict  what `seedbed verify` found last; None: never, or nothing that can be read
    bought   what MORE_SEEDS more seeds would do to each condition, as `power_plan.bought` says it
    """

    declared: Declared
    tables: Tables
    summary: StudySummary
    version: int
    at: float
    last: pa.Table | None = None
    verdict: Judged | None = None
    bought: tuple[dict[str, object], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Return how many runs stand in each status."""
        return {str(s): sum(c.counts[s] for c in self.summary.conditions) for s in Status}

    @property
    def launched(self) -> int:
        """Return how many runs were declared."""
        return len(self.declared.runs)


@dataclass(frozen=True, slots=True)
class News:
    """What changed in a study: for each changed condition the first step at which it did."""

    shelf: Shelf
    before: Shelf | None
    changed: dict[str, int]


Listener = Callable[[News], None]


@dataclass(slots=True)
class Feed:
    """Looks at a store in a thread of its own.

    wall  seconds since 1970
    """

    library: Library
    wall: Callable[[], float] = time.time
    beside: Beside = field(default_factory=Beside)
    trouble: str = ""
    signs: Signs = field(init=False)
    _shelves: dict[str, Shelf] = field(default_factory=dict)
    _seen: dict[str, int] = field(default_factory=dict)
    _listeners: list[Listener] = field(default_factory=list)
    _answers: dict[tuple[str, int, str], pa.Table] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _folder: Scratch | None = None
    _summaries: Summaries = field(init=False)
    _asker: Sandbox = field(init=False)

    def __post_init__(self) -> None:
        self.library.map = self.beside.map
        self.signs = Signs(self.library.store, time.monotonic)
        self._summaries = Summaries(self.beside.map)
        # The dashboard's own questions to large tables: other processes, since DuckDB takes what it is given.
        self._asker = Sandbox(Limits(seconds=120.0, memory_bytes=2 * 1024**3, rows=_MOST_ROWS), width=2)

    def listen(self, listener: Listener) -> None:
        """Call `listener` with all that changes, in the order in which it was seen."""
        self._listeners.append(listener)

    def names(self) -> list[str]:
        """Return the studies that were seen, sorted."""
        return sorted(self._shelves)

    def versions(self) -> dict[str, int]:
        """Return the version of each study."""
        return {name: self._shelves[name].version for name in self.names()}

    def shelf(self, name: str) -> Shelf:
        """Return a study as it was last seen; raises NotFound."""
        try:
            return self._shelves[name]
        except KeyError:
            raise NotFound(name, "is no study of this store") from None

    def ask(self, name: str, text: str, *, at_last: bool = False) -> pa.Table:
        """Return the answer of one of the dashboard's own questions; equal ones are answered once a version.

        at_last  of `metrics` it needs no rows but those of the rule's metric at the last step; raises QueryError
        """
        shelf = self.shelf(name)
        key = (name, shelf.version, text)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._answer(shelf, text, at_last=at_last)
            if answer.nbytes <= _MOST_ANSWER_BYTES:
                self._remember(key, answer)
        return answer

    def _answer(self, shelf: Shelf, text: str, *, at_last: bool) -> pa.Table:
        carried = Carried.of(shelf.tables)
        by_last = at_last and shelf.last is not None
        if carried.size_bytes > self.beside.few_bytes:
            wanted = bool(NAMES_ESTIMATES.search(text))
            files = dict(self.files(shelf.declared.name, with_estimates=wanted))
            if by_last:
                files["metrics"] = [files["runs"][0].with_name("last")]
            return self._whole(text, {table: paths for table, paths in files.items() if table in text})
        # A table that the text does not name is not shown to DuckDB: factors of 10,000 runs take time.
        named = {table: rows for table, rows in _small(shelf.tables).items() if table in text and table != "metrics"}
        if NAMES_ESTIMATES.search(text):
            named["estimates"] = _estimates(shelf.declared, carried)
        if _NAMES_METRICS.search(text):
            named["metrics"] = shelf.last if by_last else views_of(shelf.tables)["metrics"]
        return sql(named, text)

    def ask_rows(self, name: str, rows: pa.Table, text: str) -> pa.Table:
        """Return the answer over these rows of a study, in SQL the table `scored`; raises QueryError."""
        shelf = self.shelf(name)
        if Carried.of(shelf.tables).size_bytes <= self.beside.few_bytes:
            return sql({"scored": rows}, text)
        path = self.files(name)["runs"][0].with_name("scored")
        with self._lock:
            if not path.exists():
                _write(rows, path)
        return self._whole(text, {"scored": [path]})

    def _whole(self, text: str, files: Mapping[str, Sequence[Path]]) -> pa.Table:
        found = self._asker.ask(text, files)
        if found.cut:
            raise QueryError(f"more than {_MOST_ROWS:,} rows: `seedbed query --out FILE` writes them all")
        return found.table

    def _remember(self, key: tuple[str, int, str], answer: pa.Table) -> None:
        with self._lock:
            self._answers[key] = answer
            kept = sum(table.nbytes for table in self._answers.values())
            for oldest in list(self._answers)[:-1]:
                if kept <= _MOST_KEPT_BYTES and len(self._answers) <= _MOST_REMEMBERED:
                    break
                kept -= self._answers.pop(oldest).nbytes

    def files(self, name: str, *, with_estimates: bool = False) -> Mapping[str, Sequence[Path]]:
        """Return files of the study's tables: Arrow in a folder that only this user reads, `metrics` in Parquet.

        They last as long as the study's shelf does.
        """
        shelf = self.shelf(name)
        parts = shelf.tables.parts if isinstance(shelf.tables, Collected) else None
        whole = {table: rows for table, rows in _small(shelf.tables).items() if parts is None or table != "metrics"}
        with self._lock:
            if self._folder is None:
                self._folder = Scratch("dashboard")
            number = self.names().index(name)
            folder = self._folder.folder / f"{number}.{shelf.version}"
            if not folder.exists():
                aside = folder.with_suffix(".part")
                aside.mkdir()
                last = {} if shelf.last is None else {"last": shelf.last}
                for table, rows in (whole | last).items():
                    _write(rows, aside / table)
                aside.rename(folder)
                self._drop_older(number)
            if with_estimates and not (folder / "estimates").exists():
                carried = Carried.of(shelf.tables)
                rows = self.beside.call(carried.size_bytes, _estimates, shelf.declared, carried)
                _write(rows, folder / "estimates")
        found = {table: [folder / table] for table in whole}
        if parts is not None:
            found["metrics"] = [placed.path() for placed in parts]
        return found | ({"estimates": [folder / "estimates"]} if with_estimates else {})

    def _drop_older(self, number: int) -> None:
        # The newest two stay: a query may be reading the one before.
        folders = sorted(self._folder.folder.glob(f"{number}.*")) if self._folder else []
        for old in folders[:-2]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    def look(self) -> float:
        """Collect what is new and tell the listeners; returns the seconds that it took."""
        began = time.monotonic()
        try:
            names = self.library.names()
            for name in names:
                self._look_at(name)
            self.signs.look(names)
            self.trouble = ""
        except SeedbedError as error:  # a store that is being moved or cut off: say so, look again
            self.trouble = str(error)
        return time.monotonic() - began

    def _look_at(self, name: str) -> None:
        mark = self._mark(name)
        if self._seen.get(name) == mark:
            return
        declared = self.library.declared(name)
        tables = self.library.tables(name)
        before = self._shelves.get(name)
        verdict = newest_verdict(self.library.store, name)
        self._seen[name] = mark
        same = before is not None and before.declared == declared and before.verdict == verdict
        if before and same and _is_same(tables, before.tables):
            return
        version = max(int(self.wall() * 1000), before.version + 1 if before else 0)
        summary, last, bought = self._summaries.of(declared, tables)
        shelf = Shelf(declared, tables, summary, version, self.wall(), last, verdict, bought)
        self._shelves[name] = shelf
        give_back()
        for listener in self._listeners:
            listener(News(shelf, before, _changed(before, shelf)))

    def _mark(self, name: str) -> int:
        """Return a number that changes whenever something was committed that can change the study's tables."""
        store = self.library.store
        keys = [key for part in ("studies/", "attempts/", "packs/", "proofs/", "verdicts/") for key in store.keys(part)]
        return hash((name, *(key for key in keys if not key.endswith("log.txt"))))

    def start(self) -> None:
        """Look once, then go on in a thread until `stop`."""
        self.look()
        self._thread = threading.Thread(target=self._go_on, name="seedbed-feed", daemon=True)
        self._thread.start()

    def _go_on(self) -> None:
        pause, trimmed = _LEAST_PAUSE_S, 0.0
        while not self._stop.wait(pause):
            pause = max(_LEAST_PAUSE_S, self.look() * (1 / _SHARE - 1))
            self.beside.rest()
            if self.beside.clock() - trimmed > _TRIM_S:
                give_back()
                trimmed = self.beside.clock()

    def stop(self) -> None:
        """End the thread and the processes, and remove the files."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        self.beside.close()
        self._asker.close()
        if self._folder:
            self._folder.close()


def _estimates(declared: Declared, carried: Carried) -> pa.Table:
    return standing_of(declared, carried.tables())


def _small(tables: Tables) -> Mapping[str, pa.Table]:
    return tables.small if isinstance(tables, Collected) else tables


def _write(rows: pa.Table, path: Path) -> None:
    """Write the rows; the file is there when it is whole."""
    part = path.with_suffix(".part")
    with pa.ipc.new_file(str(part), rows.schema) as writer:
        writer.write_table(rows)
    part.rename(path)


def _is_same(tables: Collected, before: Tables) -> bool:
    """Return whether two looks gave the same tables; files are told apart by their hashes and not read."""
    if not isinstance(before, Collected) or len(tables.parts) != len(before.parts):
        return False
    hashes = [[placed.part.sha256 for placed in each.parts] for each in (tables, before)]
    return hashes[0] == hashes[1] and all(tables.small[name].equals(before.small[name]) for name in tables.small)


def _changed(before: Shelf | None, after: Shelf) -> dict[str, int]:
    """Return condition → the first step at which the number of measured runs, or any count, changed."""
    old = {c.condition.id: c for c in before.summary.conditions} if before else {}
    known = _measured(before) if before else {}
    now = _measured(after)
    found: dict[str, int] = {}
    for condition in after.summary.conditions:
        former = old.get(condition.condition.id)
        mine = now.get(condition.condition.id, {})
        if former is None:
            found[condition.condition.label] = 0
            continue
        then = known.get(condition.condition.id, {})
        news = [step for (metric, step), n in mine.items() if then.get((metric, step)) != n]
        if news:
            found[condition.condition.label] = min(news)
        elif former.counts != condition.counts:
            found[condition.condition.label] = max((step for _, step in mine), default=0)
    return found


def _measured(shelf: Shelf) -> dict[str, dict[tuple[str, int], int]]:
    """Return condition → (metric, step) → how many runs were measured there, from the roll-ups."""
    rollups = shelf.tables.get("rollups")
    found: dict[str, dict[tuple[str, int], int]] = {}
    if rollups is None:
        return found
    columns = (rollups[name].to_pylist() for name in ("condition_id", "metric", "step", "n"))
    for condition_id, metric, step, n in zip(*columns, strict=True):
        found.setdefault(condition_id, {})[metric, step] = n
    return found
