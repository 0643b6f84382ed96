"""The dashboard as a scientist meets it: in a real browser, with the numbers of SQL, by keyboard, live, in the dark."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from playwright.sync_api import Browser, expect

import seedbed
from jobs.claims import FRESH, claim
from jobs.layout import PackKeys
from jobs.parquet import write_table
from jobs.records import METRICS
from jobs.requests import stops
from jobs.store import LocalStore, commit
from jobs.study_file import parse_study
from orchestrator.dashboard.tokens import Scope
from orchestrator.declared import declare, register
from tests.browser.conftest import SHARED, Served, Watched, watch
from tests.orchestrator.conftest import STUDY

AXE = Path(__file__).parent / "vendor/axe.min.js"
SQL = quote("SELECT condition, status, count(*) AS n FROM runs GROUP BY ALL ORDER BY ALL")


def run_of(served: Served) -> str:
    return str(seedbed.open(served.store.root).runs().arrow()["run_id"][0].as_py())


def paths(served: Served) -> list[str]:
    run = run_of(served)
    return ["/", "/study/tiny", "/runs?group=status", f"/run/{run}", "/cluster", f"/sql?q={SQL}", "/compare"]


def test_all_pages_without_an_error_a_violation_or_a_foreign_request(visitor: Watched, served: Served) -> None:
    for path in paths(served):
        visitor.open(served.url + path)
        expect(visitor.page.locator("#live")).to_have_text("live")
    assert visitor.faults == []


def test_numbers_on_the_page_are_those_of_sql(visitor: Watched, served: Served) -> None:
    page, results = visitor.page, seedbed.open(served.store.root)
    visitor.open(served.url + "/study/tiny")
    page.locator("#fan details.behind summary").click()
    sql = page.locator("#fan details.behind code").first.inner_text()
    answer = results.sql(sql).arrow().to_pylist()
    assert answer
    lines = page.locator("#fan [data-table] tbody tr")
    expect(lines).to_have_count(len(answer))  # they are laid out when the table is opened
    shown = lines.all_inner_texts()
    for line, row in zip(shown, answer, strict=True):
        cells = dict(
            zip(("condition", "step", "n", "launched", "mean", "q05", "q25", "q50"), line.split("\t"), strict=False)
        )
        assert (cells["condition"], int(cells["step"]), int(cells["n"])) == (row["condition"], row["step"], row["n"])
        assert float(cells["q50"]) == pytest.approx(row["q50"], rel=1e-5)
    for condition, estimate in results.success_probability().items():
        cell = page.locator(f'#conditions tr[data-condition="{condition}"] [data-p]').inner_text()
        assert float(cell) == pytest.approx(estimate.value, abs=0.005)
    page.locator("#fan details.behind a").click()
    page.wait_for_selector("html[data-ready=yes]")
    assert f"{len(answer)} rows" in page.locator("main").inner_text()
    assert visitor.faults == []


def test_a_link_is_the_view(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/study/tiny")
    page.keyboard.press("v")
    page.keyboard.press("v")
    page.keyboard.press("d")
    expect(page.locator('#fan [data-choice="both"]')).to_have_attribute("aria-pressed", "true")
    address = page.url
    assert "view=both" in address
    assert "scores=histogram" in address
    visitor.open(address)
    expect(page.locator('#fan [data-choice="both"]')).to_have_attribute("aria-pressed", "true")
    expect(page.locator('#scores [data-choice="histogram"]')).to_have_attribute("aria-pressed", "true")
    visitor.open(served.url + "/study/tiny?from=4&to=8")
    assert page.locator("#fan .panel canvas").count() == 2
    assert visitor.faults == []


def test_charts_go_out_as_png_svg_and_csv(visitor: Watched, served: Served, tmp_path: Path) -> None:
    page = visitor.page
    visitor.open(served.url + "/study/tiny?view=both")
    for chart in ("fan", "scores", "success", "onsets", "grid"):
        for kind in ("png", "svg", "csv"):
            with page.expect_download() as download:
                page.locator(f'#{chart} [data-export="{kind}"]').click()
            file = tmp_path / f"{chart}.{kind}"
            download.value.save_as(file)
            if kind == "png":
                assert file.read_bytes().startswith(b"\x89PNG")
            elif kind == "svg":
                drawn = ElementTree.fromstring(file.read_text())  # noqa: S314
                assert drawn.tag.endswith("svg")
                assert len(list(drawn.iter())) >= 8
            else:
                assert len(list(csv.DictReader(io.StringIO(file.read_text())))) > 0
    assert visitor.faults == []


def test_figures_come_by_themselves_and_fit_the_page(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/study/tiny")
    for kind in ("ridgeline", "onsets"):
        figure = page.locator(f'[data-picture="{kind}"]')
        figure.scroll_into_view_if_needed()
        expect(figure.locator("img")).to_be_visible(timeout=20_000)
        assert figure.locator("img").evaluate("image => image.naturalWidth") > 200
    assert visitor.faults == []


def test_a_journey_without_a_mouse(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("s")
    page.wait_for_url("**/study/tiny")
    page.wait_for_selector("html[data-ready=yes]")
    page.locator("#grid svg").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#grid svg")).to_contain_text("model.width=8, run 2 of 3: finished")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/r1-*")
    page.keyboard.press("g")
    page.keyboard.press("r")
    page.wait_for_url("**/runs?study=tiny")
    page.wait_for_selector("html[data-ready=yes]")
    page.keyboard.press("/")
    page.keyboard.type("width=8")
    expect(page.locator("#matching")).to_have_text("3")
    page.locator("#table").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run/r1-*")
    page.keyboard.press("g")
    page.keyboard.press("q")
    page.wait_for_url("**/sql?study=tiny")
    page.wait_for_selector("html[data-ready=yes]")
    page.keyboard.press("/")
    page.keyboard.type("SELECT count(*) AS n FROM runs")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#answer")).to_contain_text("6", timeout=20_000)  # the first query starts a process
    assert visitor.faults == []


def put_shard(store: LocalStore, run_id: str, step: int) -> None:
    """Begin an attempt of a waiting run and commit one row of it, as a worker does."""
    claim(store, run_id, "late", (FRESH, ""), {}, after=0)
    row = {
        "run_id": run_id,
        "attempt": 1,
        "step": step,
        "metric": "heldout.accuracy",
        "value": 0.75,
        "correct": 24,
        "total": 32,
    }

    def write(path: Path) -> dict[str, int]:
        write_table(pa.Table.from_pylist([row], schema=METRICS), path)
        return {"rows": 1, "first_step": step, "last_step": step}

    commit(store, PackKeys("late").shard(0), write)


def test_a_shard_that_lands_is_seen_within_two_seconds(visitor: Watched, served: Served) -> None:
    page = visitor.page
    larger = parse_study((STUDY + SHARED).replace("count: 3", "count: 4"), "tiny.yaml", Path())
    register(served.store, larger, "tiny.yaml")
    visitor.open(served.url + "/study/tiny")
    expect(page.locator("[data-progress]")).to_contain_text("6 of 8", timeout=5_000)
    expect(page.locator("#live")).to_have_text("live")
    new = next(run.id for run in declare(larger, "tiny.yaml").runs if run.seeds.init == 3)
    page.evaluate("window.sameDocument = true")
    put_shard(served.store, new, 12)
    expect(page.locator('[data-panel="model.width=4"] h3')).to_contain_text("n = 4 of 4", timeout=2_000)
    expect(page.locator("[data-counts]")).to_contain_text("1 running", timeout=2_000)
    assert page.evaluate("window.sameDocument") is True, "without a reload"
    assert visitor.faults == []


def test_a_stopped_server_is_said_and_a_restart_is_survived(visitor: Watched, served: Served) -> None:
    page = visitor.page
    visitor.open(served.url + "/study/tiny")
    expect(page.locator("#live")).to_have_text("live")
    page.evaluate("window.sameDocument = true")
    served.stop()
    expect(page.locator("#stopped")).to_be_visible(timeout=5_000)
    expect(page.locator("#live")).to_have_text("not live")
    served.start()
    expect(page.locator("#stopped")).to_be_hidden(timeout=10_000)
    expect(page.locator("#live")).to_have_text("live")
    assert page.evaluate("window.sameDocument") is True
    assert not [fault for fault in visitor.faults if "ERR_" not in fault], "only the browser's own words on the gap"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, served: Served, scheme: Any) -> None:
    # axe is put into the page by the debugger, past the policy; the policy itself has other tests.
    context = browser.new_context(color_scheme=scheme, bypass_csp=True, viewport={"width": 1280, "height": 900})
    watched = watch(context, served.url)
    watched.page.goto(served.dashboard.link(Scope.READ))
    watched.page.wait_for_url(served.url + "/")
    for path in [*paths(served), "/login"]:
        watched.page.goto(served.url + path)
        if path != "/login":
            watched.page.wait_for_selector("html[data-ready=yes]")
        watched.page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        watched.page.add_script_tag(path=str(AXE))
        found = watched.page.evaluate("axe.run({resultTypes: ['violations']}).then(r => r.violations)")
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        told = [(v["id"], [n["html"][:160] + " " + n["failureSummary"][:160] for n in v["nodes"][:3]]) for v in serious]
        assert told == [], (path, json.dumps(told, indent=1))
    context.close()


def test_who_may_control_stops_a_study_and_who_reads_sees_the_command(browser: Browser, served: Served) -> None:
    context = browser.new_context()
    watched = watch(context, served.url)
    page = watched.page
    page.goto(served.url + "/login")
    page.fill("input[name=token]", served.tokens[Scope.READ])
    page.keyboard.press("Enter")
    page.wait_for_url(served.url + "/")
    watched.open(served.url + "/study/tiny")
    assert page.locator("#control button").count() == 0
    expect(page.locator("#control")).to_contain_text("seedbed stop tiny")
    page.goto(served.dashboard.link(Scope.CONTROL))
    page.wait_for_url(served.url + "/")
    watched.open(served.url + "/study/tiny")
    page.locator("form[data-control=stop] button").click()
    assert stops(served.store, "tiny") == 0, "a first press only asks"
    page.locator("form[data-control=stop] button").click()
    expect(page.locator("#control-told")).to_contain_text("request 1")
    assert stops(served.store, "tiny") == 1
    assert watched.faults == []
    context.close()


def test_a_hostile_query_and_an_error_are_text(visitor: Watched, served: Served) -> None:
    text = "SELECT '<img src=x onerror=alert(1)>' AS \"<script>alert(2)</script>\""
    visitor.open(f"{served.url}/sql?q={quote(text)}")
    expect(visitor.page.locator("#answer")).to_contain_text("<img src=x onerror=alert(1)>")
    visitor.open(f"{served.url}/sql?q={quote('SELECT <script>alert(3)</script>')}")
    expect(visitor.page.locator("#error")).to_be_visible()
    assert visitor.faults == []
