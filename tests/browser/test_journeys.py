"""More of the dashboard in a real browser: chosen runs, zooms, hostile names, paper, and what goes out as CSV."""

import csv
import io
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, expect

import seedbed
from jobs.layout import PackKeys
from jobs.records import TABLES, Status
from jobs.store import open_store
from orchestrator.dashboard.alerts import Alert
from orchestrator.dashboard.feed import News, Shelf
from orchestrator.dashboard.server import Dashboard, Settings
from orchestrator.dashboard.tokens import Scope, load_tokens
from orchestrator.rollups import rollups_of
from orchestrator.summary import summarise
from tests.browser.conftest import Served, Watched, free_port, watch
from tests.dashboard.conftest import with_factors
from tests.orchestrator.made import made

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'{{ 7*7 }}"


def downloaded(visitor: Watched, selector: str, folder: Path) -> list[dict[str, str]]:
    with visitor.page.expect_download() as download:
        visitor.page.locator(selector).click()
    file = folder / re.sub(r"\W", "", selector)
    download.value.save_as(file)
    return list(csv.DictReader(io.StringIO(file.read_text())))


def test_chosen_runs_drive_the_charts_by_keyboard(visitor: Watched, served: Served, tmp_path: Path) -> None:
    page, results = visitor.page, seedbed.open(served.store.root)
    visitor.open(served.url + "/runs?study=tiny")
    expect(page.locator("#chosen [data-count]")).to_contain_text("n = 6 of 6 at the last step; 6 of 6 runs")
    page.locator("#filter").fill("width=4")
    expect(page.locator("#chosen [data-count]")).to_contain_text("n = 3 of 3 at the last step; 3 of 6 runs")
    expect(page.locator("#finals [data-count]")).to_contain_text("3 runs that pass the filter")
    page.locator("#table").focus()
    for key in ("ArrowDown", "Space", "ArrowDown", "Space"):
        page.keyboard.press(key)
    expect(page.locator("#ticked")).to_have_text("2 chosen")
    expect(page.locator("#chosen [data-count]")).to_contain_text("n = 2 of 2")
    chosen = page.url.split("run=")[1].split("&")[0].split("%2C")
    rows = downloaded(visitor, "#chosen [data-export=csv]", tmp_path)
    listed = ", ".join(f"'{run}'" for run in chosen)
    sql = (
        f"SELECT step, median(value) AS q50 FROM metrics WHERE metric = 'heldout.accuracy' AND run_id IN ({listed}) "  # noqa: S608
        "GROUP BY step ORDER BY step"
    )
    answer = results.sql(sql).arrow().to_pylist()
    assert [(int(r["step"]), float(r["q50"])) for r in rows] == [(r["step"], r["q50"]) for r in answer]
    scores = downloaded(visitor, "#finals [data-export=csv]", tmp_path)
    assert sorted(row["run_id"] for row in scores) == sorted(chosen)
    visitor.open(page.url)
    expect(page.locator("#ticked")).to_have_text("2 chosen")
    page.locator("#mark").click()
    page.wait_for_url("**/study/tiny?view=both&run=*")
    page.wait_for_selector("html[data-ready=yes]")
    expect(page.locator("#fan [data-count]")).to_contain_text(chosen[0])
    assert visitor.faults == []


def test_columns_and_groups_are_chosen(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/runs?study=tiny&group=model.width")
    page.locator(".columns summary").click()
    page.get_by_label("model.width", exact=True).check()
    page.get_by_label("status", exact=True).uncheck()
    heads = page.locator("#table thead th").all_inner_texts()
    assert "model.width" in heads
    assert "status" not in heads
    visitor.open(page.url)
    assert page.locator("#table thead th").all_inner_texts() == heads
    groups = page.locator("#groups thead th").all_inner_texts()
    assert {"model.width", "runs", "n", "mean", "sd", "q05", "q25", "q50", "q75", "q95"} <= set(groups)
    assert page.locator("#groups tbody tr").count() == 2
    assert "by model.width" in page.locator("#finals [data-count]").inner_text()
    assert visitor.faults == []


def test_a_zoom_asks_again_for_fewer_steps(visitor: Watched, served: Served, tmp_path: Path) -> None:
    page = visitor.page
    heads: list[bytes] = []
    page.on("response", lambda r: heads.append(r.body()) if "lines.bin" in r.url and "from=4" in r.url else None)
    visitor.open(served.url + "/study/tiny?view=lines")
    box = page.locator('[data-panel="model.width=4"] .u-over').bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 4.4 / 12, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 7.6 / 12, box["y"] + 60, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=4&to=8**")
    expect(page.locator("#fan a[data-export=csv]")).to_have_attribute("href", re.compile("values.csv.*from=4&to=8"))
    rows = downloaded(visitor, "#fan a[data-export=csv]", tmp_path)
    assert {int(row["step"]) for row in rows} == {4, 8}
    assert len(rows) == 12
    assert heads
    length = struct.unpack("<I", heads[0][:4])[0]
    assert b'"steps":[4,8]' in heads[0][4 : 4 + length]
    page.keyboard.press("0")
    expect(page.locator("#fan a[data-export=csv]")).not_to_have_attribute("href", re.compile("from="))
    assert visitor.faults == []


def test_every_chart_of_every_page_goes_out(visitor: Watched, served: Served, tmp_path: Path) -> None:
    page = visitor.page
    run = page.evaluate("fetch('/rows.json').then(a => a.json()).then(t => t.data[t.columns.indexOf('run_id')][0])")
    sql = quote("SELECT step, condition, n, q50 FROM rollups WHERE metric = 'heldout.loss' ORDER BY ALL")
    for path in ("/cluster", f"/run/{run}", "/compare", "/compare?view=side+by+side&scores=ridgeline", f"/sql?q={sql}"):
        visitor.open(served.url + path)
        for chart in page.locator("figure.chart").all():
            name = chart.get_attribute("id")
            for kind in ("png", "svg"):
                with page.expect_download() as download:
                    chart.locator(f'[data-export="{kind}"]').click()
                download.value.save_as(tmp_path / kind)
                start = (tmp_path / kind).read_bytes()[:4]
                assert start == (b"\x89PNG" if kind == "png" else b"<svg"), (path, name, kind)
            rows = downloaded(visitor, f"#{name} [data-export=csv]", tmp_path)
            assert rows or name == "faults", (path, name)
            assert chart.locator("[data-count]").inner_text(), "n of N"
    assert visitor.faults == []


def test_lines_are_walked_and_marked_without_a_mouse(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/study/tiny?view=both")
    panel = page.locator('[data-panel="model.width=4"]')
    panel.locator("[role=img]").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowUp")
    said = panel.locator("h3 .soft").inner_text()
    assert "at step 8" in said
    run = said.rpartition("run ")[2]
    page.keyboard.press("Enter")
    expect(page.locator("#fan [data-count]")).to_contain_text(f"marked: {run}")
    assert f"run={run}" in page.url
    assert visitor.faults == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_paper_is_white_and_has_the_numbers_alone(browser: Browser, served: Served, scheme: str) -> None:
    context = browser.new_context(color_scheme=scheme)  # type: ignore[arg-type]
    watched = watch(context, served.url)
    watched.page.goto(served.dashboard.link(Scope.READ))
    watched.page.wait_for_url(served.url + "/")
    watched.open(served.url + "/study/tiny")
    watched.page.emulate_media(media="print", color_scheme=scheme)  # type: ignore[arg-type]
    for gone in (".top", "#fan .tools", "#control .actions, #control pre"):
        assert not any(part.is_visible() for part in watched.page.locator(gone).all()), gone
    for there in ("#conditions", "#fan canvas", "#scores svg", "#grid svg"):
        assert watched.page.locator(there).first.is_visible(), there
    assert watched.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    wide = watched.page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert wide, "nothing is cut at the right"
    assert len(watched.page.pdf()) > 20_000
    assert watched.faults == []
    context.close()


@pytest.fixture
def hostile(browser: Browser, tmp_path: Path) -> Iterator[tuple[Watched, str]]:
    """Return a visitor of a study whose names, labels, reasons, log and alerts are markup, and its address."""
    name, statuses = HOSTILE.replace("/", ""), {(0, 0): Status.FAILED}
    declared, tables = made([0.5, 0.5], factor=HOSTILE, values=[HOSTILE, "b"], seeds=4, statuses=statuses, name=name)
    store = open_store(tmp_path / "s", create=True)
    store.put(PackKeys("p").log, f"{HOSTILE}\x1b[31m\n".encode())
    attempt = {"run_id": declared.runs[0].id, "attempt": 1, "pack_id": "p", "first_step": 0, "resumed_pack": ""}
    more = {"environment": "", "status": "failed", "reason": HOSTILE}
    tables["attempts"] = TABLES["attempts"].empty_table().from_pylist([attempt | more], schema=TABLES["attempts"])
    tables["runs"] = with_factors(declared, tables["runs"])
    tables["rollups"] = rollups_of(tables["runs"], tables["metrics"])
    whole = {key: schema.empty_table() for key, schema in TABLES.items()} | tables
    dashboard = Dashboard(store, Settings(port=free_port()), load_tokens(tmp_path / "t.json"))
    shelf = Shelf(declared, whole, summarise(declared, whole), 1, 0.0)
    dashboard.view.feed._shelves[name] = shelf
    dashboard.view.alarm.on_news(News(shelf, None, {}))
    dashboard.view.alarm.raise_(Alert("finding", name, HOSTILE, 0.0))
    thread = threading.Thread(target=dashboard.serve)
    thread.start()
    while not dashboard.is_serving:
        assert thread.is_alive()
    url = f"http://127.0.0.1:{dashboard.settings.port}"
    context = browser.new_context()
    watched = watch(context, url)
    watched.page.goto(dashboard.link(Scope.READ))
    watched.page.wait_for_url(url + "/")
    yield watched, url
    context.close()
    dashboard.stop()
    thread.join()


def test_hostile_texts_are_text_in_a_browser(hostile: tuple[Watched, str]) -> None:
    watched, url = hostile
    name, run = quote(HOSTILE.replace("/", "")), "r00.000"
    paths = ("/", f"/study/{name}?view=both", f"/runs?group={quote(HOSTILE)}", f"/run/{run}", "/compare", "/cluster")
    for path in (*paths, "/sql?q=FROM+runs", f"/runs?filter={quote(HOSTILE)}"):
        watched.open(url + path)
        for details in watched.page.locator("details").all():
            details.evaluate("d => { d.open = true }")
        assert watched.page.locator("img[src=x]").count() == 0, path
    watched.open(f"{url}/run/{run}")
    assert HOSTILE in watched.page.locator("pre.log").inner_text()
    # The browser's console says that a filter which makes no sense was answered with 400.
    assert [fault for fault in watched.faults if "400" not in fault] == []
