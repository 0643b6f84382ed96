"""What runs save: by hand on three curves, through questions and figures, and the interval's coverage."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import QueryError
from jobs.origin import Origin
from jobs.records import METRICS, Status
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.order_statistics import exact_level
from orchestrator.estimates.savings import savings, spent_until
from orchestrator.plots.kinds import KINDS
from orchestrator.plots.style import house_style
from orchestrator.questions.asked import Options, Question
from orchestrator.questions.registry import ask
from tests.orchestrator.made import STEPS, made

FLOPS, LOSS = "cost.flops", "test.loss"
PLAIN, FAST = "model.width=4", "model.width=8"
Tables = dict[str, pa.Table]


def cohort(n: int, diverged: int = 0) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n - diverged, diverged=diverged)


def test_a_run_is_charged_what_it_had_spent_when_it_was_first_there() -> None:
    losses = np.array([[3.0, 2.0, 1.0, 1.5], [3.0, nan, 2.0, 1.0], [3.0, 2.5, 2.0, 1.9], [3.0, 1.0, nan, 2.0]])
    spent = np.array([[0.0, 10, 20, 30], [0, nan, 25, 40], [0, 1, 2, 3], [0, 5, 10, nan]])
    goals = np.array([1.5, 1.0, 1.5, 1.0])
    assert spent_until(losses, spent, goals, "down").tolist() == [20, 40, inf, 5]
    assert spent_until(-losses, spent, -goals, "up").tolist() == [20, 40, inf, 5]
    with pytest.raises(ValueError, match=r"only grows from 0 on"):
        spent_until(losses, spent[:, ::-1], goals, "down")


def test_who_never_arrives_has_saved_nothing_that_could_be_told() -> None:
    found = savings(np.array([20.0, 50.0, inf, 10.0]), np.array([40.0, 40.0, 40.0, 40.0]), (cohort(5, 1), cohort(5, 1)))
    # 1/2, -1/4, never, 3/4, and one that diverged: the third of five in order.
    assert found.saved.value == -0.25
    assert (found.reached.value, found.spent.value, found.partner.value) == (3 / 5, 50.0, 40.0)
    assert (found.saved.low, found.saved.high) == (-inf, inf), "five pairs bound no median at 95 %"
    nothing = savings(np.array([0.0, 0.0, 5.0]), np.zeros(3), (cohort(3), cohort(3)))
    assert nothing.saved.value == 0, "of nothing nothing is saved, and 5 of nothing are more than any part"
    with pytest.raises(ValueError, match="at its end was not measured"):
        savings(np.ones(2), np.array([1.0, inf]), (cohort(2), cohort(2)))
    with pytest.raises(ValueError, match="no run has finished whose partner"):
        savings(np.ones(0), np.ones(0), (cohort(3), cohort(3)))


@pytest.mark.parametrize("n", [6, 12, 16])
def test_the_interval_of_the_median_covers_as_often_as_it_says(n: int) -> None:
    """Of savings 1 - exp(N(-1, 1)), whose median is 1 - 1/e; the exact level is known."""
    draw, repetitions = np.random.default_rng(n), 4000
    held = 0
    for _ in range(repetitions):
        found = savings(np.exp(draw.normal(-1, 1, n)), np.ones(n), (cohort(n), cohort(n))).saved
        held += found.low <= 1 - np.exp(-1) <= found.high
    level = exact_level(n, 0.5)
    assert level >= 0.95
    assert held / repetitions == pytest.approx(level, abs=4 * (level * (1 - level) / repetitions) ** 0.5)


def study(seeds: int = 8, **more: object) -> tuple[Declared, Tables]:
    """Return a study of two conditions: losses fall by .5 a probe in both, in the second for half of the FLOPs.

    A run's loss begins at 3 + seed/10, so that each pair has a goal of its own.
    """
    declared, tables = made([0.5, 0.5], seeds=seeds, **more)  # type: ignore[arg-type]
    rows = []
    for row in tables["metrics"].to_pylist():
        which, seed, probe = int(row["run_id"][1:3]), int(row["run_id"][-3:]), STEPS.index(row["step"])
        plain = {**row, "correct": None, "total": None}
        rows += [row, {**plain, "metric": LOSS, "value": 3 + seed / 10 - 0.5 * probe}]
        rows.append({**plain, "metric": FLOPS, "value": float((100, 50)[which] * probe)})
    tables["metrics"] = pa.Table.from_pylist(rows, schema=METRICS)
    return declared, tables


BY_FLOPS = Options(metric=LOSS, against=FLOPS, falling=True)


def test_half_of_the_flops_are_saved_and_none_of_the_steps() -> None:
    declared, tables = study()
    found = ask("saving", declared, tables, BY_FLOPS)
    assert list(found.conditions) == [FAST]
    assert (found.left_out, found[FAST].beside) == ({}, PLAIN)
    saved = found[FAST].saved
    assert (saved.value, saved.low, saved.high) == (0.5, 0.5, 0.5)
    assert (found[FAST].spent.value, found[FAST].partner.value, found[FAST].reached.value) == (200, 400, 1)
    assert ask("saving", declared, tables, replace(BY_FLOPS, against=""))[FAST].saved.value == 0


def test_pairs_have_the_same_seeds_and_lost_runs_have_none() -> None:
    declared, tables = study(statuses={(0, 1): Status.FAILED, (1, 2): Status.DIVERGED, (1, 3): Status.FAILED})
    found = ask("saving", declared, tables, BY_FLOPS)[FAST]
    assert found.reached.value == 5 / 6, "seeds 0, 4 to 7, and 2, which diverged"
    other = replace(
        declared,
        runs=tuple(replace(r, seeds=replace(r.seeds, data=9)) if r.id == "r01.004" else r for r in declared.runs),
    )
    assert ask("saving", other, tables, BY_FLOPS)[FAST].reached.value == 4 / 5


def test_steps_are_counted_from_where_a_run_begins() -> None:
    declared, tables = study()
    at = Origin(run_id="r1-parent", step=0)
    forked = replace(declared, runs=tuple(replace(run, origin=replace_step(at, -1000)) for run in declared.runs))
    found = ask("saving", forked, tables, replace(BY_FLOPS, against=""))[FAST]
    assert (found.spent.value, found.saved.value) == (1200, 0)


def replace_step(origin: Origin, step: int) -> Origin:
    return origin.model_copy(update={"step": step})


def test_what_cannot_be_asked_is_told() -> None:
    declared, tables = study()
    for options, told in (
        (replace(BY_FLOPS, conditions=(PLAIN,)), "of one condition beside another"),
        (replace(BY_FLOPS, against=LOSS), "what is spent only grows"),
        (replace(BY_FLOPS, against="cost.flop"), "did you mean 'cost.flops'"),
    ):
        with pytest.raises(QueryError, match=told):
            ask("saving", declared, tables, options)


def test_the_figure_has_a_line_for_each_run_over_what_it_spent() -> None:
    declared, tables = study()
    with house_style():
        figure = KINDS["spent"].draw(Question(declared, tables, BY_FLOPS))
    (axes,) = figure.axes
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
    assert len(lines) == 16
    assert [float(line.get_xdata()[-1]) for line in lines] == [400.0] * 8 + [200.0] * 8
    assert axes.get_xlabel() == FLOPS
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [PLAIN, FAST]
