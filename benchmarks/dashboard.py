"""What the dashboard costs: bytes, seconds and memory for a made study of RUNS × STEPS.

    python -m benchmarks.dashboard [RUNS] [STEPS]

The server runs in this process with a made study in memory; a real Chromium opens it. Times are wall-clock and depend
on the machine's other load; goals are those for 10,000 runs × 1,000 steps.
"""

import gzip
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
from playwright.sync_api import sync_playwright

from jobs.identity import canonical_json
from jobs.records import METRICS, RUNS, TABLES
from jobs.seeds import Seeds
from jobs.store import open_store
from jobs.study import SuccessRule
from orchestrator.dashboard import charts, questions
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.pages.runs import matching_rows, run_rows
from orchestrator.dashboard.pages.study import study
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens
from orchestrator.declared import Declared, DeclaredCondition, DeclaredRun
from orchestrator.rollups import rollups_of
from orchestrator.summary import summarise

METRIC, CONDITIONS, REPEATS = "heldout.accuracy", 10, 5
STATIC = Path(charts.__file__).parent / "static"


def main() -> None:
    """Measure and print a table."""
    runs, steps = (int(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else (1_000, 1_000)
    folder = Path(tempfile.mkdtemp())
    dashboard = Dashboard(
        open_store(folder / "s", create=True), Settings(port=8798), load_tokens(folder / "tokens.json")
    )
    view = dashboard.view
    view.feed._shelves["made"] = made_shelf(runs, steps)  # noqa: SLF001  (a store of this size takes an hour to write)
    rows: list[tuple[str, float, str, str]] = []
    params = {"name": "made", "study": "made", "condition": "width=0", "px": "1200"}
    fan = questions.fan("made", METRIC).sql

    def forget() -> None:
        view.feed._answers.clear()  # noqa: SLF001

    rows.append(("roll-up query", timed(lambda: (forget(), view.feed.ask("made", fan))), "s", "0.3"))
    rows.append(("page of the study", timed(lambda: study(view, params)), "s", ""))
    rows.append(("lines of one condition", timed(lambda: charts.lines(view, params)), "s", ""))
    rows.append(("all rows of the table", timed(lambda: (forget(), run_rows(view, params))), "s", ""))
    numbers = iter(range(10**6))

    def filter_rows() -> None:
        matching_rows(view, params | {"filter": f"seed_init>={next(numbers)} width=3"})

    rows.append(("filter of the table", timed(filter_rows), "s", "0.1"))
    rows += in_browser(dashboard)
    rows.append(("server, most memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MB", "250"))
    print(f"{runs:,} runs × {steps:,} steps in {CONDITIONS} conditions")
    for what, value, unit, goal in rows:
        print(f"{what:28}{value:10.3f} {unit:3} {'goal ≤ ' + goal if goal else ''}")
    shutil.rmtree(folder)


def timed(call: Callable[[], object]) -> float:
    """Return the median seconds of a few calls after one that is not counted."""
    call()
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def in_browser(dashboard: Dashboard) -> list[tuple[str, float, str, str]]:
    """Return what a browser measures on the page of the study."""
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    while not dashboard.is_serving:
        time.sleep(0.01)
    token = dashboard.tokens[Scope.READ]
    address = "http://127.0.0.1:8798/study/made"
    request = urllib.request.Request(address, headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        html = len(gzip.compress(answer.read(), 5))
    modules = [
        p for p in STATIC.glob("*.js") if not p.name.startswith("page-") or p.name in ("page-study.js", "page-home.js")
    ]
    parts = [*modules, STATIC / "style.css", *(STATIC / "vendor").glob("*.min.*")]
    page_kb = (html + sum(len(gzip.compress(part.read_bytes(), 5)) for part in parts)) / 1000
    with sync_playwright() as playwright:
        chromium = shutil.which("chromium") or "chromium"
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--disable-accelerated-2d-canvas"]
        )
        page = browser.new_page()
        page.goto(dashboard.link(Scope.READ))
        page.wait_for_url("**:8798/")
        page.goto(address)
        page.wait_for_selector("html[data-ready=yes]")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        began = time.perf_counter()
        page.click('#fan [data-choice="both"]')
        page.wait_for_function("document.querySelector('#fan [data-count]').textContent.includes('n =')")
        lines = time.perf_counter() - began
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        browser.close()
    dashboard.stop()
    thread.join()
    return [
        ("page, compressed", page_kb, "kB", "150"),
        ("first paint", paint, "s", "0.5"),
        ("switch to every line", lines, "s", ""),
        ("heap of the page", heap, "MB", "150"),
    ]


def made_shelf(count: int, steps: int) -> Shelf:
    """Return a study of `count` runs whose curves rise at random times."""
    generator = np.random.default_rng(0)
    conditions = tuple(DeclaredCondition(f"c{i}", f"width={i}", {"width": i}, steps - 1) for i in range(CONDITIONS))
    runs = tuple(
        DeclaredRun(f"r1-{i:020x}", conditions[i % CONDITIONS], Seeds(i // CONDITIONS, i // CONDITIONS, 0, 0))
        for i in range(count)
    )
    onset = generator.exponential(steps / 2, count)
    values = 0.5 + 0.5 * (np.arange(steps) >= onset[:, None]) - 0.02 * generator.random((count, steps))
    ids = pa.DictionaryArray.from_arrays(np.repeat(np.arange(count, dtype=np.int32), steps), [r.id for r in runs])
    columns = {
        "run_id": ids.cast(pa.string()),
        "attempt": np.ones(count * steps, np.int32),
        "step": np.tile(np.arange(steps), count),
        "metric": pa.repeat(pa.scalar(METRIC), count * steps),
        "value": values.ravel(),
        "correct": pa.nulls(count * steps, pa.int64()),
        "total": pa.nulls(count * steps, pa.int64()),
    }
    metrics = pa.table([columns[name] for name in METRICS.names], schema=METRICS)
    table = pa.Table.from_pylist([_row(run, steps) for run in runs], schema=RUNS)
    rule = SuccessRule(metric=METRIC, threshold=0.9, sustained=2)
    declared = Declared("made", 1, "made.yaml", "study: made\n", "", "", "width", rule, conditions, runs)
    empty = {name: schema.empty_table() for name, schema in TABLES.items()}
    tables = empty | {"runs": table, "metrics": metrics, "rollups": rollups_of(table, metrics)}
    return Shelf(declared, tables, summarise(declared, tables), 1, time.time())


def _row(run: DeclaredRun, steps: int) -> dict[str, object]:
    seeds = {f"seed_{name}": seed for name, seed in run.seeds.as_dict().items()}
    zero: dict[str, object] = {f.name: "" if pa.types.is_string(f.type) else 0 for f in RUNS}
    own = {"study": "made", "run_id": run.id, "condition_id": run.condition.id, "condition": run.condition.label}
    factors = canonical_json(run.condition.factors).decode()
    ends = {"status": "finished", "attempts": 1, "last_step": steps - 1, "planned_steps": steps - 1}
    return zero | own | seeds | ends | {"factors": factors, "mixed_environment": False}


if __name__ == "__main__":
    main()
