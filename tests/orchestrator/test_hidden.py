"""Breakthroughs that a mean loss does not show: of hand-made curves with known breaks, and of made-up looks."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jobs.errors import QueryError
from jobs.records import METRICS
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import Estimate, plain
from orchestrator.estimates.hidden_breakthroughs import (
    Found,
    flat_from,
    late_breaks,
    places_and_kinds,
    purity,
    purity_by_chance,
)
from orchestrator.plots.kinds import KINDS
from orchestrator.plots.style import house_style
from orchestrator.questions.asked import Options, Question
from orchestrator.questions.hidden import Hidden
from orchestrator.questions.lines import lines
from orchestrator.questions.registry import ask
from orchestrator.questions.rows import rows_of_answer
from tests.orchestrator.made import made

STEPS = np.arange(0, 201, 5)
SEEDS = 8


def fall(at: float, by: float = 1.0, width: float = 5.0) -> np.ndarray:
    """Return a curve that falls by `by` about the step `at`."""
    found: np.ndarray = -by / (1 + np.exp(-(STEPS - at) / width))
    return found - found[0]


def clusters(*curves: np.ndarray, kind: list[list[int]], others: list[list[int]]) -> Found:
    counts = np.array(kind, np.int64), np.array(others, np.int64)
    return Found(np.array(curves), *counts, counts[0].sum(0), counts[1].sum(0))


def test_the_mean_loss_is_flat_from_the_last_step_outside_a_twentieth_of_its_fall() -> None:
    assert flat_from(STEPS, 3 + fall(50)) == 65  # 1 / (1 + e^3) = .047 is left of the fall
    assert flat_from(STEPS, np.full(len(STEPS), 2.0)) == 0
    wavering = 3 + fall(50)
    wavering[STEPS == 150] += 0.2
    assert flat_from(STEPS, wavering) == 155


def test_what_breaks_through_after_the_mean_is_flat_is_hidden() -> None:
    noise = 1e-3 * np.cumsum(np.random.default_rng(1).standard_normal(len(STEPS)))
    curves = fall(30), fall(140), noise, -fall(140)
    found = clusters(*curves, kind=[[1]] * 4, others=[[9]] * 4)
    late = late_breaks(STEPS, 3 + fall(50), [found], 20, np.random.default_rng(0))
    assert late.breaks[:2].tolist() == [20, 130], "about 1.3 widths before the middle"
    assert late.hidden.tolist() == [False, True, False, False]
    assert late.late[1]


def test_sums_of_noise_are_rarely_called_breakthroughs() -> None:
    draw, called = np.random.default_rng(7), 0
    for _ in range(60):
        walks = draw.standard_normal((5, len(STEPS))).cumsum(axis=1)
        found = clusters(*walks, kind=[[1]] * 5, others=[[1]] * 5)
        late = late_breaks(STEPS, 3 + fall(50), [found], 20, draw)
        called += bool((late.p * 5 <= 0.05).any())
    assert called <= 8, "5 % of 60 are 3; more than 8 happen once in 300"


def test_purity_leaves_out_clusters_whose_kind_stands_at_the_last_place() -> None:
    found = clusters(fall(1), fall(1), fall(1), kind=[[3, 0], [0, 9], [6, 1]], others=[[7, 0], [0, 0], [2, 1]])
    assert purity([found]) == pytest.approx(7 / 10), "of the second all stand at the last place, of the third 1 of 7"
    assert purity([]) == 0.0


def test_purity_by_chance_is_that_of_labels_dealt_anew() -> None:
    # Two clusters of ten among forty tokens of one place beside a last one, half of them of the kind.
    kind, others = np.array([[5, 0], [5, 0]]), np.array([[5, 0], [5, 0]])
    found = Found(np.zeros((2, 3)), kind, others, np.array([20, 0]), np.array([20, 0]))
    drawn = purity_by_chance([found], np.random.default_rng(0), 4000)
    tokens = np.repeat([1, 0], 20)
    rng = np.random.default_rng(5)
    shuffled = [rng.permutation(tokens)[:20].reshape(2, 10).mean(1).max() for _ in range(4000)]
    assert drawn.mean() == pytest.approx(np.mean(shuffled), abs=0.01)
    assert np.quantile(drawn, 0.95) == pytest.approx(np.quantile(shuffled, 0.95), abs=0.1)
    assert purity_by_chance([], np.random.default_rng(0), 5).tolist() == [0] * 5


def test_groups_have_a_place_and_a_kind() -> None:
    assert places_and_kinds(["place_1.carry", "place_0.no_carry"]) == (["place_0", "place_1"], ["carry", "no_carry"])


def looked_at(hidden: int) -> tuple[Declared, dict[str, pa.Table]]:
    """Return a study of 8 looks, of which the first `hidden` have a late cluster of carries along direction 00."""
    declared, tables = made([1.0], seeds=SEEDS)
    rows = tables["metrics"].to_pylist()
    for number, run in enumerate(declared.runs):
        base = {"run_id": run.id, "attempt": 1}

        def add(name: str, step: int, value: float, k: Any = None, m: Any = None, base: Any = base) -> None:
            metric = f"heldout.polca.{name}"
            rows.append({**base, "step": step, "metric": metric, "value": value, "correct": k, "total": m})

        late = 140 if number < hidden else 30
        for name, curve in {
            "loss": 3 + fall(50),
            "loss.cluster_0": 3 + fall(45),
            "00": fall(60, 0.2),
            "00.place_0.carry": fall(60, 0.2),
            "00.cluster_0": fall(30 + number % 3, 0.3),
            "00.cluster_1": fall(late + number % 3, 0.3),
            "01": -fall(60),
            "captured": np.where(STEPS, 0.25, 0.0),
        }.items():
            for step, value in zip(STEPS.tolist(), curve.tolist(), strict=True):
                add(name, step, value)
        add("set", 200, float(0xABCDEF))
        add("00.curvature", 100, 7.0)
        for label in ("00", "loss"):
            for group, k, m in (("place_0.carry", 20, 25), ("place_0.no_carry", 20, 25), ("place_1.no_carry", 10, 10)):
                add(f"{label}.kept.{group}", 200, k / m, k, m)
        for cluster, (carry, other) in enumerate(((2, 18), (18, 2))):
            for group, k in (("place_0.carry", carry), ("place_0.no_carry", other), ("place_1.no_carry", 0)):
                add(f"00.cluster_{cluster}.of.{group}", 200, k / 20, k, 20)
        for group, k in (("place_0.carry", 5), ("place_0.no_carry", 5), ("place_1.no_carry", 10)):
            add(f"loss.cluster_0.of.{group}", 200, k / 20, k, 20)
    tables["metrics"] = pa.Table.from_pylist(rows, schema=METRICS)
    return declared, tables


def found_in(declared: Declared, tables: dict[str, pa.Table], **options: str) -> Hidden:
    answer = ask("hidden", declared, tables, Options(window=20, **options))  # type: ignore[arg-type]
    (only,) = answer.conditions.values()
    assert isinstance(only, Hidden)
    return only


def test_seeds_are_the_unit_of_hidden_breakthroughs() -> None:
    found = found_in(*looked_at(6))
    assert (found.kind, found.tokens) == ("carry", "000000abcdef")
    assert (found.runs_with.value, found.runs_with.method, found.runs_with.cohort.launched) == (0.75, "wilson", SEEDS)
    assert found.runs_with_of_loss.value == 0.0
    assert found.part.value == pytest.approx(6 * 0.5 / 8)
    assert found.purity.value == pytest.approx(0.9)
    assert found.purity_of_loss.value == pytest.approx(0.25)
    assert found.captured.value == pytest.approx(0.25)
    assert [one.hidden for one in found.runs] == [1] * 6 + [0] * 2
    assert all(one.p <= 0.01 and one.purity > one.by_chance for one in found.runs)
    assert found.above_chance.low > 0
    assert found_in(*looked_at(6), against="no_carry").kind == "no_carry"


def test_no_order_of_rows_moves_a_bit_and_every_number_is_a_row() -> None:
    declared, tables = looked_at(4)
    order = np.random.default_rng(0).permutation(tables["metrics"].num_rows)
    mixed = {**tables, "metrics": tables["metrics"].take(order)}
    answer = ask("hidden", declared, tables, Options(window=20))
    assert plain(ask("hidden", declared, mixed, Options(window=20))) == plain(answer)
    rows = rows_of_answer(Question(declared, tables, Options()), "hidden", answer)
    by_name = {row["name"]: row for row in rows}
    assert by_name["runs_with"]["value"] == 0.5
    assert any(isinstance(line.value, Estimate) and line.name == "above_chance" for line in lines(answer))


def test_the_figure_shows_the_mean_and_the_clusters() -> None:
    declared, tables = looked_at(3)
    with house_style():
        figure = KINDS["hidden"].draw(Question(declared, tables, Options(window=20)))
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
    above, below = figure.axes
    assert len(above.lines) == 2 * SEEDS
    orange = [line for line in below.lines if line.get_zorder() == 3]
    assert len(orange) == 3
    assert "8 runs, 38%" in above.get_title(loc="left").replace("\n", " ")


def test_what_cannot_be_answered_is_told() -> None:
    with pytest.raises(QueryError, match="that is a study with `polca`"):
        ask("hidden", *made([1.0]))
    declared, tables = looked_at(1)
    with pytest.raises(QueryError, match="no kind of token is called 'vowel'; there are carry, no_carry"):
        ask("hidden", declared, tables, Options(against="vowel"))
    rows = tables["metrics"].to_pylist()
    third = [r for r in rows if r["metric"].endswith("polca.set") and r["run_id"].endswith("3")]
    other = [{**r, "value": 5.0} if r in third else r for r in rows]
    with pytest.raises(QueryError, match="different tokens"):
        ask("hidden", declared, {**tables, "metrics": pa.Table.from_pylist(other, schema=METRICS)})
