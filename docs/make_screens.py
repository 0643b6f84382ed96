"""Make the pictures of dashboard.md from a store's demo study: python docs/make_screens.py demo-store [light|dark]."""

import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import sync_playwright

from jobs.store import open_store
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-accelerated-2d-canvas")
SQL = quote("SELECT step, condition, n, q05, q50, q95 FROM rollups\nWHERE metric = 'heldout.accuracy' ORDER BY ALL")


def main() -> None:
    """Serve the store, visit each page, and write a picture of each."""
    scheme = sys.argv[2] if len(sys.argv) > 2 else "light"
    tokens = load_tokens(Path(tempfile.mkdtemp()) / "tokens.json")
    dashboard = Dashboard(open_store(sys.argv[1]), Settings(port=8799), tokens)
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    while not dashboard.is_serving:
        time.sleep(0.05)
    try:
        _visit(dashboard, scheme)
    finally:
        dashboard.stop()
        thread.join()


def _visit(dashboard: Dashboard, scheme: str) -> None:
    shelf = dashboard.view.feed.shelf("demo")
    run = shelf.declared.runs[45].id
    pages = {
        "home": "/",
        "study": "/study/demo",
        "runs": "/runs?study=demo&group=model.width",
        "run": f"/run/{run}",
        "cluster": "/cluster",
        "sql": f"/sql?study=demo&q={SQL}",
        "compare": "/compare",
    }
    suffix = "" if scheme == "light" else f"-{scheme}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(ARGUMENTS))
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.goto(dashboard.link(Scope.READ))
        page.wait_for_url("**:8799/")
        for name, path in pages.items():
            page.goto(f"http://127.0.0.1:8799{path}")
            page.wait_for_selector("html[data-ready=yes]")
            page.wait_for_selector("#live.on")
            page.screenshot(path=str(IMAGES / f"dashboard-{name}{suffix}.png"), full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
