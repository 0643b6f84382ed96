"""Figures and report: every kind of study can be drawn, equal summaries give equal files, hostile text is text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from jobs.records import Status
from jobs.stop import WidthStop
from orchestrator import plots
from orchestrator.power_plan import bought
from orchestrator.questions.asked import Options, Question
from orchestrator.questions.headlines import Headline, Headlines, headlines
from orchestrator.questions.registry import ask
from orchestrator.report import render, write_report
from orchestrator.summary import StudySummary, summarise
from tests.orchestrator.made import made

HOSTILE = "<img src=x onerror=alert(1)>&\"'{{ 7*7 }}$\\frac{$"
STUDIES = {
    "four": lambda: made([0.1, 0.4, 0.7, 1.0]),
    "one": lambda: made([0.5]),
    "twelve": lambda: made(list(np.linspace(0, 1, 12)), seeds=6),
    "words": lambda: made([0.2, 0.8], factor="model.norm", values=["rmsnorm", "layernorm"]),
    "none": lambda: made([0.0, 0.0]),
    "all": lambda: made([1.0, 1.0]),
    "waiting": lambda: made([0.5], seeds=3, statuses={(0, seed): Status.WAITING for seed in range(3)}),
    "mixed": lambda: made(
        [0.5, 0.5], statuses={(0, 1): Status.FAILED, (1, 2): Status.DIVERGED, (1, 4): Status.RUNNING}
    ),
    "hostile": lambda: made([0.5, 0.5], factor=HOSTILE, name="safe", question=HOSTILE),
}


@pytest.fixture(params=sorted(STUDIES))
def summary(request: pytest.FixtureRequest) -> StudySummary:
    return summarise(*STUDIES[request.param]())


def test_every_figure_of_every_kind_of_study(summary: StudySummary, tmp_path: Path) -> None:
    for name, draw in plots.FIGURES.items():
        with plots.house_style():
            figure = draw(summary)
        png, svg = plots.save(figure, tmp_path / name)
        picture = imread(png)
        assert picture.shape[0] > 300
        assert picture[..., :3].std() > 0.02, "something was drawn"
        assert svg.read_text().startswith("<?xml")
        note = figure.get_supxlabel()
        assert "of" in note
        assert "cohort" in note


def report(name: str, folder: Path) -> str:
    question = Question(*STUDIES[name](), Options())
    return write_report(question, headlines(question), folder)[0].read_text()


def test_equal_summaries_give_equal_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        report("mixed", tmp_path / folder)
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        "curves.png",
        "curves.svg",
        "onsets.png",
        "onsets.svg",
        "report.html",
        "ridgeline.png",
        "ridgeline.svg",
        "scores.png",
        "scores.svg",
        "success.png",
        "success.svg",
    ]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def test_the_page_is_one_file_without_script_or_network(tmp_path: Path) -> None:
    page = report("four", tmp_path)
    parsed = Page(page)
    assert "script" not in {tag for tag, _ in parsed.tags}
    sources = [value for _, attributes in parsed.tags for name, value in attributes.items() if name in ("src", "href")]
    assert len(sources) == 6, "five figures, and the law"
    assert all(str(source).startswith("data:image/svg+xml;base64,") for source in sources)
    assert not re.search(r"url\(|@import", page)
    assert all(attributes.get("alt") for tag, attributes in parsed.tags if tag == "img")


def test_the_page_says_the_numbers_of_the_summary(tmp_path: Path) -> None:
    summary = summarise(*STUDIES["mixed"]())
    page = Page(report("mixed", tmp_path))
    text = " ".join(page.words)
    for condition in summary.conditions:
        known = condition.success.cohort.finished + condition.success.cohort.diverged
        assert f"{condition.successes}/{known} = " in text
        assert condition.success.cohort.digest in text
    assert "2 runs have not ended or have failed" in text
    assert "38 of 40 runs have a known outcome" in text


def test_hostile_names_are_text() -> None:
    shown = Headlines((Headline(HOSTILE),), {HOSTILE: (HOSTILE, HOSTILE)}, (), ())
    page = render(summarise(*STUDIES["hostile"]()), shown, [(HOSTILE, HOSTILE, "data:image/svg+xml;base64,")])
    parsed = Page(page)
    assert [attributes for tag, attributes in parsed.tags if tag == "img" and "onerror" in attributes] == []
    assert HOSTILE in parsed.words
    assert "{{ 7*7 }}" in page, "a name is no template either"


def test_the_page_says_what_the_study_shows_and_what_it_cannot(tmp_path: Path) -> None:
    question = Question(*STUDIES["four"](), Options())
    page = Page(report("four", tmp_path))
    text = " ".join(page.words)
    found = ask("success-over-scale", question.declared, question.tables)
    exact = [attributes for tag, attributes in page.tags if tag == "data"]
    for estimate in (found.midpoint, found.slope, ask("scaling-law", question.declared, question.tables).change.share):
        numbers = {"value": estimate.value, "data-low": estimate.low, "data-high": estimate.high}
        assert any({name: float(shown[name] or "") for name in numbers} == numbers for shown in exact)
    assert f"Half of the runs succeed at model.width = {found.midpoint.value:.3g} [" in text
    for label, one in ask("modes", question.declared, question.tables).conditions.items():
        assert one.score.says in text, label
    assert "two modes (ΔBIC" in text
    assert "no metric is called 'train.loss'" not in text
    for row in bought(question.summary(), 8):
        cells = [f"{row[name]:.3f}" for name in ("now", "expected", "least", "most")]
        assert f"{row['condition']} {row['successes']} of {row['known']} {' '.join(cells)}" in " ".join(text.split())
    assert "With 20 seeds a condition P(success) is known to ± 0.20 at worst" in text


@pytest.mark.parametrize("name", ["one", "words", "waiting", "none"])
def test_what_a_study_does_not_answer_is_left_out(name: str, tmp_path: Path) -> None:
    shown = headlines(Question(*STUDIES[name](), Options()))
    assert bool(shown.over_scale) is (name == "none")
    assert not shown.law
    assert bool(shown.seeds) is (name != "waiting")
    if name == "none":
        assert shown.over_scale[0].text.startswith("The data do not bound the model.width")


def test_the_interval_has_its_own_name_and_level() -> None:
    declared, tables = STUDIES["four"]()
    stop = WidthStop(rule="width", half_width=0.1, every=4, most=64), 20
    for chosen, name in ((declared, "Wilson 95 %"), (replace(declared, stop=stop), "Agresti-Coull 96 %")):
        summary = summarise(chosen, tables)
        assert f"<th>{name}</th>" in render(summary, Headlines((), {}, (), ()), [])
        with plots.house_style():
            assert f"bar: {name}, band" in plots.FIGURES["success"](summary).get_supxlabel().replace("\n", " ")
