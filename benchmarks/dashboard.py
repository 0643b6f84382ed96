"""What the dashboard costs: bytes, seconds and memory over a store of RUNS × 1,000 steps, of one metric.

    python -m benchmarks.dashboard [RUNS] [--store FOLDER]

The store is a real one (claims, verified shards, committed tables; the values are made up), the server a process of its
own, and a real Chromium opens it. Times are wall-clock and depend on the machine's other load. Goals are those for
10,000 runs.
"""

import argparse
import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np
from playwright.sync_api import Page, sync_playwright

from benchmarks.statistics import fill, study
from jobs.store import open_store
from orchestrator.dashboard import charts
from orchestrator.dashboard.tokens import Scope, load_tokens, make_link_code
from orchestrator.declared import register
from orchestrator.library import Library

METRIC, PORT, REPEATS = "heldout.accuracy", 8798, 20
STATIC = Path(charts.__file__).parent / "static"
SERVE = "from orchestrator.cli import main; main()"
CONDITION = "model.width=16"
DRAW = """async ({view, study, condition, metric}) => {
  const {Panel, fetchLines, range} = await import("/static/curves.js");
  const {fetchJson, rows} = await import("/static/state.js");
  const path = `/study/${study}`, query = `metric=${metric}&condition=${encodeURIComponent(condition)}`;
  const fan = rows(await fetchJson(`${path}/fan.json?metric=${metric}`)).filter((r) => r.condition === condition);
  const lines = view === "lines" ? await fetchLines(`${path}/lines.bin?${query}&px=8000`) : null;
  const seconds = [];
  for (let i = 0; i < 5; i += 1) {
    const panel = new Panel("measured", {launched: 1000, onPick() {}, onZoom() {}, height: 400});
    document.body.append(panel.root);
    Object.assign(panel, {view, fan, lines});
    const began = performance.now();
    panel.draw([-0.03, 1.03]);
    await new Promise((done) => queueMicrotask(done));  // uPlot draws in a microtask
    panel.root.querySelector("canvas").getContext("2d").getImageData(0, 0, 1, 1);
    seconds.push((performance.now() - began) / 1000);
    panel.plot.destroy();
    panel.root.remove();
  }
  const points = lines ? lines.values.length * lines.steps.length : fan.length;
  return {seconds: seconds.sort((a, b) => a - b)[2], points};
}"""


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[bytes]
    token: str
    peak: dict[str, float] = field(default_factory=dict)

    def get(self, path: str) -> bytes:
        """Return the answer to a request, as it is after decompression."""
        headers = {"authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}", headers=headers)
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return bytes(answer.read())

    def memory_mb(self, what: str) -> float:
        """Return VmRSS or VmHWM (the most so far) of the server, in MB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(what)) * 1024 / 1e6


@contextmanager
def served(store: Path, tokens: Path) -> Iterator[Served]:
    """Serve the store until the context is left; waits until a study is shown."""
    words = ["serve", str(store), "--port", str(PORT), "--tokens", str(tokens), "--json"]
    process = subprocess.Popen([sys.executable, "-c", SERVE, *words], stdout=subprocess.DEVNULL)
    found = Served(process, load_tokens(tokens)[Scope.READ])
    try:
        while True:
            assert process.poll() is None, "the server has ended"
            try:
                if json.loads(found.get("/home.json"))["studies"]:
                    break
            except OSError:
                pass
            time.sleep(0.05)
        yield found
    finally:
        process.terminate()
        process.wait()


def timed(call: Callable[[int], object], repeats: int = REPEATS) -> tuple[float, float]:
    """Return the median and the 95th percentile of the seconds of calls, after one that is not counted."""
    call(-1)
    seconds = []
    for number in range(repeats):
        began = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), float(np.quantile(seconds, 0.95))


def main() -> None:
    """Make a store, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=int, nargs="?", default=1_000)
    parser.add_argument("--store", type=Path, help="a folder that keeps the store for the next time")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="seedbed-dashboard-bench-"))
    place, tokens = given.store or folder / "store", folder / "tokens.json"
    try:
        if not (place / "tables").exists():
            make(place, given.runs)
        began = time.perf_counter()
        with served(place, tokens) as server:
            rows = [("start, until the study is shown", time.perf_counter() - began, "s", "")]
            rows += measure(server, tokens)
    finally:
        shutil.rmtree(folder)
    print(f"{given.runs:,} runs × 1,000 steps in 10 conditions; load average {os.getloadavg()[0]:.1f}")
    for what, value, unit, goal in rows:
        print(f"{what:44}{value:10.3f} {unit:3} {'goal ≤ ' + goal if goal else ''}")


def make(place: Path, runs: int) -> None:
    """Fill a store with a study of so many runs, and collect it."""
    store = open_store(place, create=True)
    made = study(runs)
    register(store, made, "many.yaml")
    fill(store, made, np.random.default_rng(0), metric_count=1)
    Library(store).collect("many")


def measure(server: Served, tokens: Path) -> list[tuple[str, float, str, str]]:
    """Return rows of what was measured: what, value, unit, goal."""
    rows = [("server after its start", server.memory_mb("VmRSS"), "MB", "")]
    fan = "SELECT step, n, q05, q25, q50, q75, q95 FROM rollups WHERE metric = '{}' AND condition = '{}' AND step >= {}"

    def roll_up(number: int) -> bytes:
        return server.get(f"/answer.json?study=many&q={quote(fan.format(METRIC, CONDITION, number))}")

    median, p95 = timed(roll_up)
    rows += [("roll-up query, a new one each time", median, "s", ""), ("the same, p95", p95, "s", "0.3")]
    median, p95 = timed(lambda n: server.get(f"/places.json?study=many&filter={quote(f'seed_init>={n} width=16')}"))
    rows += [("filter of the table", median, "s", "0.1"), ("the same, p95", p95, "s", "")]
    rows.append(("the study's page as JSON", timed(lambda _: server.get("/study/many.json"), 5)[0], "s", ""))
    rows.append(("all rows of the table", timed(lambda _: server.get("/rows.json?study=many"), 5)[0], "s", ""))
    lines = f"/study/many/lines.bin?condition={quote(CONDITION)}&px=1200"
    rows.append(("lines of one condition", timed(lambda _: server.get(lines), 5)[0], "s", ""))
    rows += in_browser(server, tokens)
    rows.append(("server, with all that was asked", server.memory_mb("VmRSS"), "MB", "250"))
    rows.append(("server, the most at any time", server.memory_mb("VmHWM"), "MB", "250"))
    return rows


def in_browser(server: Served, tokens: Path) -> list[tuple[str, float, str, str]]:
    """Return what a browser measures on the page of the study."""
    modules = [
        p for p in STATIC.glob("*.js") if not p.name.startswith("page-") or p.name in ("page-study.js", "page-home.js")
    ]
    parts = [*modules, STATIC / "style.css", *(STATIC / "vendor").glob("*.min.*")]
    whole = [server.get("/study/many"), *(part.read_bytes() for part in parts)]
    page_kb = sum(len(gzip.compress(part, 5)) for part in whole) / 1000
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-accelerated-2d-canvas", "--enable-precise-memory-info"]
        chromium = shutil.which("chromium") or "chromium"
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        code = make_link_code(load_tokens(tokens), Scope.READ, time.time())
        page.goto(f"http://127.0.0.1:{PORT}/login?once={code}")
        page.wait_for_url(f"**:{PORT}/")
        page.goto(f"http://127.0.0.1:{PORT}/study/many")
        page.wait_for_selector("html[data-ready=yes]")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
        fan, lines = drawn(page, "fan"), drawn(page, "lines")
        page.reload()
        page.wait_for_selector("html[data-ready=yes]")
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        browser.close()
    return [
        ("page, compressed", page_kb, "kB", "150"),
        ("first paint", paint, "s", "0.5"),
        ("fan of one condition", fan["seconds"], "s", "0.05"),
        (f"{lines['points']:,.0f} points as lines", lines["seconds"], "s", "0.6 for a million"),
        ("heap of the page", heap, "MB", "150"),
    ]


def drawn(page: Page, view: str) -> dict[str, float]:
    """Return the median seconds that a panel takes until its pixels are there, and of how many points."""
    asked = {"view": view, "study": "many", "condition": CONDITION, "metric": METRIC}
    found: dict[str, float] = page.evaluate(DRAW, asked)
    return found


if __name__ == "__main__":
    main()
