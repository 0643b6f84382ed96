"""Make the pictures of dashboard.md from a store: python docs/make_screens.py STORE [light|dark] [FOLDER].

The first study of the store is shown (of its runs the one with most attempts), and compared with the others.
"""

import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Page, sync_playwright

from jobs.store import open_store
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-accelerated-2d-canvas")
SQL = quote("SELECT step, condition, n, q05, q50, q95 FROM rollups\nWHERE metric = 'heldout.accuracy' ORDER BY ALL")
PORT = 8799


def main() -> None:
    """Serve the store, visit each page, and write a picture of each."""
    scheme = sys.argv[2] if len(sys.argv) > 2 else "light"
    folder = Path(sys.argv[3]) if len(sys.argv) > 3 else IMAGES
    tokens = load_tokens(Path(tempfile.mkdtemp()) / "tokens.json")
    dashboard = Dashboard(open_store(sys.argv[1]), Settings(port=PORT), tokens)
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    while not dashboard.is_serving:
        time.sleep(0.05)
    try:
        _visit(dashboard, scheme, folder)
    finally:
        dashboard.stop()
        thread.join()


def _pages(dashboard: Dashboard) -> dict[str, str]:
    feed = dashboard.view.feed
    name = "demo" if "demo" in feed.names() else feed.names()[0]
    others = [other for other in feed.names() if other != name]
    runs = sorted(feed.shelf(name).tables["runs"].to_pylist(), key=lambda row: (-row["attempts"], row["run_id"]))
    ended = [(n, c) for n in (name, *others) for c in feed.shelf(n).summary.conditions if len(c.scores)]
    with_these = [f"{n}|{c.condition.label}" for n, c in ended][:8]
    study = f"study={quote(name)}"
    return {
        "home": "/",
        "study": f"/study/{quote(name)}",
        "lines": f"/study/{quote(name)}?view=both&scores=ridgeline",
        "runs": f"/runs?{study}&group=model.width&filter=score%3C0.9&columns=run_id,condition,status,score,attempts",
        "run": f"/run/{runs[0]['run_id']}?{study}",
        "cluster": f"/cluster?{study}",
        "sql": f"/sql?{study}&q={SQL}",
        "compare": f"/compare?with={quote(chr(10).join(with_these))}",
    }


def _visit(dashboard: Dashboard, scheme: str, folder: Path) -> None:
    suffix = "" if scheme == "light" else f"-{scheme}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme)
        page = context.new_page()
        page.goto(dashboard.link(Scope.READ))
        page.wait_for_url(f"**:{PORT}/")
        for name, path in _pages(dashboard).items():
            page.goto(f"http://127.0.0.1:{PORT}{path}")
            page.wait_for_selector("html[data-ready=yes]")
            page.wait_for_selector("#live.on")
            _wait_for_figures(page)
            page.screenshot(path=str(folder / f"dashboard-{name}{suffix}.png"), full_page=True)
        browser.close()


def _wait_for_figures(page: Page) -> None:
    """Bring every figure that the server draws into view, and wait until each is there or cannot be."""
    for figure in page.locator("[data-picture]").all():
        figure.scroll_into_view_if_needed()
        page.wait_for_function("f => ['ready', 'impossible'].includes(f.dataset.state)", arg=figure.element_handle())
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_timeout(500)  # images that have just come are laid out


if __name__ == "__main__":
    main()
