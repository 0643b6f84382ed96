"""Every question on runs that were trained elsewhere, dirty as they come: an answer, and what it rests on."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jobs.errors import QueryError
from jobs.records import ESTIMATES
from jobs.stop import WidthStop
from jobs.store import open_store
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate, plain, under
from orchestrator.estimates.icc import twins
from orchestrator.library import Library
from orchestrator.plots.kinds import KINDS
from orchestrator.plots.style import house_style
from orchestrator.questions.asked import Options, Question
from orchestrator.questions.lines import lines
from orchestrator.questions.registry import QUESTIONS, ask
from orchestrator.questions.rows import rows_of_answer
from orchestrator.questions.standing import STANDING
from orchestrator.stop_rules import rule_id
from tests.orchestrator.dirty import MANY, ON_LINES, ONE, RUNS, imported, options

HERE = [name for name in QUESTIONS if name not in ON_LINES]
DRAWN = [kind for kind in KINDS if kind not in ON_LINES]
WITH_INTERVAL = ("low", "high", "interval", "band")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("dirty")
    return imported(open_store(folder / "s", create=True), folder)


@pytest.fixture(scope="module")
def question(library: Library) -> Question:
    return library.question("dirty")


@pytest.fixture(scope="module")
def answers(question: Question) -> dict[str, Any]:
    return {name: ask(name, question.declared, question.tables, options(name)) for name in HERE}


def parts_of(found: Any) -> Iterator[Any]:
    """Yield every dataclass in an answer."""
    if isinstance(found, dict | tuple | list):
        for part in found.values() if isinstance(found, dict) else found:
            yield from parts_of(part)
    elif is_dataclass(found) and not isinstance(found, type):
        yield found
        for field in fields(found):
            yield from parts_of(getattr(found, field.name))


def test_the_export_is_dirty(question: Question) -> None:
    findings = question.tables["audit"]["finding"].to_pylist()
    assert {"lineages", "disagreement", "duplicates"} <= set(findings)
    status = question.tables["runs"]["status"].to_pylist()
    assert (status.count("failed"), len(status)) == (2, 8 * RUNS + 2)
    counted = question.rows()
    assert counted["total"].null_count == 0
    assert counted["value"].to_numpy() == pytest.approx(counted["correct"].to_numpy() / 100, abs=0)


@pytest.mark.parametrize("name", HERE)
def test_every_answer_says_what_it_rests_on(name: str, answers: dict[str, Any], question: Question) -> None:
    told = [part for part in parts_of(answers[name]) if isinstance(getattr(part, "cohort", None), Cohort)]
    assert told
    launched = len(question.declared.runs)
    for part in told:
        assert len(part.cohort.digest) == 64
        assert 0 < part.cohort.launched <= launched
        assert part.cohort.finished + part.cohort.diverged + part.cohort.censored == part.cohort.launched
        assert part.method
        assert "run" in part.unit
        assert part.stopping_rule == FIXED
        has_interval = isinstance(part, Estimate) or any(hasattr(part, each) for each in WITH_INTERVAL)
        if has_interval and type(part).__name__ != "Modes":  # its low and high are the two modes
            assert part.level == 0.95, type(part).__name__
    for one in (part for part in told if isinstance(part, Estimate)):
        assert isnan(one.value) or one.low <= one.high or isnan(one.low), one


@pytest.mark.parametrize("name", HERE)
def test_every_answer_names_the_rule_that_gave_the_seeds(name: str, answers: dict[str, Any]) -> None:
    ruled = under(answers[name], "until it was narrow")
    rules = {part.stopping_rule for part in parts_of(ruled) if hasattr(part, "stopping_rule")}
    assert rules == {"until it was narrow"}
    assert under(ruled, "another") is ruled, "what is said is said"


def test_a_question_asked_of_a_study_with_a_rule_says_the_rule(question: Question) -> None:
    stop = WidthStop(rule="width", half_width=0.1, every=4, most=64), 8
    found = ask("order", replace(question.declared, stop=stop), question.tables, options("order"))
    assert {part.stopping_rule for part in parts_of(found) if hasattr(part, "stopping_rule")} == {rule_id(*stop)}


@pytest.mark.parametrize("name", HERE)
def test_every_number_is_a_row_of_sql(name: str, answers: dict[str, Any], question: Question) -> None:
    rows = rows_of_answer(question, name, answers[name])
    shown = [line for line in lines(answers[name]) if isinstance(line.value, Estimate)]
    by_name = {(row["condition"], row["name"]): row for row in rows}
    assert rows
    assert len(by_name) == len(rows)
    assert all(set(row) == set(ESTIMATES.names) for row in rows)
    for line in shown:
        row = by_name[line.condition, line.name]
        for side in ("value", "low", "high"):
            number = getattr(line.value, side)
            assert row[side] == number or (row[side] is None and isnan(number))
        assert row["cohort"] == line.value.cohort.digest


def test_a_statement_asks_what_it_names(library: Library, answers: dict[str, Any]) -> None:
    icc = answers["twins"][ONE]["init"].icc
    rows = library.sql("SELECT * FROM estimates WHERE question = 'twins' AND name = 'init.icc'", "dirty").to_pylist()
    (row,) = (row for row in rows if row["condition"] == ONE)
    assert (row["value"], row["low"], row["high"]) == (icc.value, icc.low, icc.high)
    standing = library.sql("SELECT DISTINCT question FROM estimates ORDER BY 1", "dirty")["question"].to_pylist()
    assert set(standing) <= set(STANDING)
    with pytest.raises(QueryError, match=r"asks for 'states', which has no answer here; dirty: .*--condition"):
        library.sql("SELECT * FROM estimates WHERE question = 'states'", "dirty")


def test_twins_are_those_of_the_scores(answers: dict[str, Any], question: Question) -> None:
    (name, found), *more = answers["twins"][ONE].items()
    assert (name, more, found.groups) == ("init", [], 8)
    chosen = replace(question, options=Options(conditions=(ONE,)))
    (condition,) = chosen.summary().conditions
    seed = {run.id: run.seeds.init for run in question.declared.runs}
    scores = dict(zip(chosen.scored(condition), condition.scores.tolist(), strict=True))
    pairs = [[scores[run] for run in sorted(scores) if seed[run] == init] for init in range(8)]
    assert found.icc == twins(np.array(pairs), condition.success.cohort)
    assert any("crossed" in why for why in answers["twins"].left_out.values())


@pytest.mark.parametrize("name", ["twins", "loss-law"])
def test_no_order_of_rows_moves_a_bit(name: str, question: Question, answers: dict[str, Any]) -> None:
    draw = np.random.default_rng(0)
    mixed = {table: question.tables[table] for table in ("runs", "metrics", "audit")}
    mixed = {table: rows.take(pa.array(draw.permutation(rows.num_rows))) for table, rows in mixed.items()}
    assert plain(ask(name, question.declared, mixed, options(name))) == plain(answers[name])


def test_groups_are_counted_and_crossed_ones_are_noted(answers: dict[str, Any]) -> None:
    found = answers["groups"][ONE]["init"]
    assert (found.groups, found.mean.unit, found.mean.note) == (8, "group of runs", "")
    crossed = answers["groups"][f"model.width=8 {MANY}"]
    assert set(crossed) == {"init", "data"}
    assert "not independent" in crossed["init"].mean.note


def test_a_comparison_pairs_equal_seeds(question: Question, answers: dict[str, Any]) -> None:
    found = answers["compare"]
    assert (found.seeds, found.items, found.left_out, found.found.is_paired) == ((16, 16), 5, 0, True)
    assert found.found.delta.value == pytest.approx(found.found.other.value - found.found.base.value)
    asked = Options(metric="items", conditions=(f"model.width=8 {MANY}", ONE))
    unlike = ask("compare", question.declared, question.tables, asked)
    assert not unlike.found.is_paired


def test_the_law_of_losses_takes_d_from_steps_or_a_factor(question: Question, answers: dict[str, Any]) -> None:
    found = answers["loss-law"]
    assert (found.parameters, found.tokens, found.metric) == ("model.width", "data.tokens", "train.loss")
    assert (found.conditions, found.runs) == (8, 8 * RUNS)
    assert found.law.alpha.low < found.law.alpha.high < np.inf
    with pytest.raises(QueryError, match="two of tokens"):
        ask("loss-law", question.declared, question.tables, Options())


@pytest.mark.parametrize(
    ("name", "asked", "told"),
    [
        ("loss-law", Options(tokens="data.token"), "no factor is called 'data.token'"),
        ("commitment", Options(), "give --tolerance"),
        ("commitment", Options(tolerance=0.7, unstable=0.1), "a tolerance in"),
        ("difference", Options(), "say --against, one of"),
        ("compare", Options(metric="items"), "a comparison is of two conditions"),
        ("compare", Options(metric="train.loss"), "the study has none"),
        ("twins", Options(conditions=(f"model.width=4 {MANY}",)), "ask for `variance`"),
        ("twins", Options(shared="data"), "no runs share one seed"),
        ("groups", Options(shared="evaluation"), "no two groups"),
    ],
)
def test_what_a_study_has_not_is_told(name: str, asked: Options, told: str, question: Question) -> None:
    with pytest.raises(QueryError, match=told):
        ask(name, question.declared, question.tables, asked)


FIGURES = {
    "order": Options(against="heldout.carries"),
    "map": Options(conditions=(ONE,)),
    "distances": Options(conditions=("model.width=8", ONE)),
    "probability": Options(conditions=(MANY,)),
    "law": Options(conditions=(MANY,)),
    "numbered": Options(metric="items.*"),
    "steps": Options(metric="items.*"),
    "spent": Options(conditions=(MANY,)),
}


@pytest.mark.parametrize("kind", DRAWN)
def test_every_figure_is_drawn_and_no_title_lies_on_another_panel(kind: str, question: Question) -> None:
    with house_style():
        figure = KINDS[kind].draw(replace(question, options=FIGURES.get(kind, Options())))
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        assert re.search(
            r"dirty: \d+ of \d+ runs ended; cohort [0-9a-f]{8}; ", figure.get_supxlabel().replace("\n", " ")
        )
        shown = [axes for axes in figure.axes if axes.get_visible()]
        for axes in shown:
            if not axes.get_title(loc="left"):
                continue
            title = axes._left_title.get_window_extent()  # type: ignore[attr-defined]
            assert title.x1 <= figure.bbox.x1 + 1
            assert title.y1 <= figure.bbox.y1 + 1
            others = [other for other in shown if other is not axes]
            assert not [other for other in others if title.overlaps(other.get_window_extent()) and title.width > 1]


def test_seeds_go_by_their_names() -> None:
    with pytest.raises(QueryError, match="no seed is called 'order'; there are init, data"):
        Options(shared="order")
