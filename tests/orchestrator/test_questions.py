"""Every question on made-up studies: what it answers, what it refuses, and that no order of rows moves a bit."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from jobs.errors import QueryError
from jobs.records import METRICS, Status
from jobs.seeds import Seeds
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import Cohort, Estimate, plain
from orchestrator.estimates.firth import fit
from orchestrator.estimates.modes import Verdict
from orchestrator.estimates.success import agresti_coull, clopper_pearson, jeffreys, wilson
from orchestrator.estimates.success_over_scale import success_over_scale
from orchestrator.questions.asked import Options, Question
from orchestrator.questions.lines import Grid, lines
from orchestrator.questions.registry import QUESTIONS, ask
from orchestrator.questions.standing import standing
from tests.orchestrator.dirty import ON_LINES
from tests.orchestrator.made import made

ACCURACY, CARRIES, LOSS = "heldout.accuracy", "heldout.carries", "train.loss"
WIDTHS = tuple(f"model.width={4 * 2**i}" for i in range(5))
Study = tuple[Declared, dict[str, pa.Table]]
CHOICES = {
    "order": Options(against=CARRIES, conditions=(WIDTHS[2],)),
    "states": Options(conditions=(WIDTHS[2],)),
    "clusters": Options(conditions=(WIDTHS[2],)),
    "modes": Options(conditions=(WIDTHS[2],)),
    "agreement": Options(metric="items"),
    "success": Options(conditions=(WIDTHS[2], WIDTHS[3])),
    "compare": Options(metric="items", conditions=(WIDTHS[1], WIDTHS[2])),
    "commitment": Options(tolerance=0.1, unstable=0.2),
    "difference": Options(against=CARRIES),
}
# Twins, and losses over N and D, are in test_every_question.py.
ASKED = [name for name in QUESTIONS if name not in ("twins", "loss-law", *ON_LINES)]


def study(shares: tuple[float, ...] = (0.1, 0.3, 0.7, 0.9), seeds: int = 16, **more: object) -> Study:
    """Return a study with a loss, carries that are learned a probe earlier, three items, nine probes, crossed seeds."""
    declared, tables = made(list(shares), seeds=seeds, **more)  # type: ignore[arg-type]
    rows = []
    for row in tables["metrics"].to_pylist():
        learned, seed = row["value"] > 0.9, int(row["run_id"][-3:])
        noise = ((seed * 7919 + row["step"]) % 17) / 200
        for step in (row["step"], row["step"] + 25) if row["step"] < 200 else (row["step"],):
            base = {**row, "step": step}
            rows.append(base)
            carries = learned or (row["step"] == 50 and _breaks_through(seed, seeds, shares, row["run_id"]))
            rows.append({**base, "metric": CARRIES, "value": 0.95 if carries else 0.3, "correct": None, "total": None})
            rows.append({**base, "metric": LOSS, "value": 2 - 1.5 * learned + noise, "correct": None, "total": None})
            for item in range(3):
                right = int(learned or (seed + item) % 3 == 0)
                rows.append({**base, "metric": f"items.{item}", "value": float(right), "correct": right, "total": 1})
    side = int(seeds**0.5)
    runs = tuple(replace(run, seeds=Seeds(i % seeds // side, i % side, 0, 0)) for i, run in enumerate(declared.runs))
    tables["metrics"] = pa.Table.from_pylist(rows, schema=METRICS)
    return replace(declared, runs=runs), tables


def _breaks_through(seed: int, seeds: int, shares: tuple[float, ...], run: str) -> bool:
    return seed % 2 == 1 and seed < round(shares[int(run[1:3])] * seeds)


@pytest.fixture(scope="module")
def whole() -> Study:
    return study()


def asked(name: str, found: Study, options: Options | None = None) -> object:
    return ask(name, *found, options or CHOICES.get(name, Options()))


@pytest.fixture(scope="module")
def answers(whole: Study) -> dict[str, object]:
    return {name: asked(name, whole) for name in ASKED}


@pytest.mark.parametrize("name", ASKED)
def test_every_question_has_lines_and_says_its_cohort(name: str, answers: dict[str, object]) -> None:
    told = lines(answers[name])
    assert told
    assert all(isinstance(line.value, Estimate | Grid | float | int | str) for line in told)
    assert "cohort" in str(plain(answers[name]))
    assert "run" in str(plain(answers[name]))


@pytest.mark.parametrize("name", ASKED)
def test_order_and_doubles_of_rows_change_no_bit(name: str, whole: Study, answers: dict[str, object]) -> None:
    declared, tables = whole
    shuffle = np.random.default_rng(3).permutation(tables["metrics"].num_rows)
    rows = tables["metrics"].take(pa.array(shuffle))
    other = {
        "runs": tables["runs"].take(pa.array(np.arange(tables["runs"].num_rows)[::-1])),
        "metrics": pa.concat_tables([rows, rows.slice(0, 40)]),
        "audit": tables["audit"],
    }
    assert plain(asked(name, (declared, other))) == plain(answers[name])


def test_success_is_wilsons_and_its_neighbours_of_the_counts(answers: dict[str, object]) -> None:
    found = answers["success"][WIDTHS[2]]  # type: ignore[index]
    assert found.successes == 11
    for name, interval in (("wilson", wilson), ("jeffreys", jeffreys), ("clopper_pearson", clopper_pearson)):
        one = getattr(found, name)
        assert (one.value, one.low, one.high) == (11 / 16, *interval(11, 16, 0.95))
    assert found.value == found.wilson
    assert found.true_accuracy.low < 11 / 16 < found.true_accuracy.high


def test_the_interval_is_that_of_the_studys_own_stop_rule(whole: Study) -> None:
    from jobs.stop import WidthStop

    rule = WidthStop(rule="width", half_width=0.1, every=4, most=64)
    declared = replace(whole[0], stop=(rule, 8))
    found = ask("success", declared, whole[1])[WIDTHS[2]].value
    assert (found.method, found.level) == ("agresti-coull", 0.96)
    assert (found.low, found.high) == agresti_coull(11, 16, 0.96)
    assert "0.1" in found.stopping_rule
    over = ask("success-over-scale", declared, whole[1])
    assert (over.midpoint.level, over.midpoint.stopping_rule) == (0.96, found.stopping_rule)


def test_the_midpoint_is_the_curves(whole: Study, answers: dict[str, object]) -> None:
    found = answers["success-over-scale"]
    direct = success_over_scale([4, 8, 16, 32], [2, 5, 11, 14], [16] * 4, Cohort.of(["x"], 1, 0))
    assert found.curve.midpoint.low == direct.midpoint.low  # type: ignore[attr-defined]
    assert found.midpoint.value == 10**direct.midpoint.value  # type: ignore[attr-defined]
    assert found.midpoint.low < 11 < found.midpoint.high  # type: ignore[attr-defined]
    intercept, slope, _ = fit(direct.counts)
    assert found.midpoint.value == pytest.approx(10 ** -(intercept[0] / slope[0]))  # type: ignore[attr-defined]
    read = ask("success-over-scale", *whole, Options(at=(64.0,)))
    assert read.at[64.0] == replace(direct, cohort=read.curve.cohort).at(64.0)
    assert read.shape.p_decreasing == found.shape.p_decreasing  # type: ignore[attr-defined]


def test_two_modes_are_seen_on_score_and_loss(answers: dict[str, object]) -> None:
    found = answers["modes"][WIDTHS[2]]  # type: ignore[index]
    assert found.score.method == "beta-binomial mixture"
    assert (found.score.verdict, found.loss.verdict) == (Verdict.TWO, Verdict.TWO)
    assert "power" not in found.score.says
    assert [row.success.value for row in found.sweep if 0.6 <= row.threshold <= 0.9] == [11 / 16] * 4


def test_carries_come_first(answers: dict[str, object]) -> None:
    order = answers["order"][WIDTHS[2]].order  # type: ignore[index]
    assert (order.first, order.last) == (0, 5), "accuracy is never first; of 11 runs the odd seeds' carries are earlier"
    assert order.tied == 11


def test_a_level_widens_and_a_seed_moves_intervals_but_no_value(whole: Study) -> None:
    one, other = (ask("scaling-law", *whole, Options(seed=seed)).change.share for seed in (0, 1))
    assert (one.value, one.low != other.low) == (other.value, True)
    narrow, wide = (ask("scaling-law", *whole, Options(level=level)).change.share for level in (0.8, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_where_a_law_is_read_moves_nothing(whole: Study, answers: dict[str, object]) -> None:
    law = ask("scaling-law", *whole, Options(at=(64.0, 5.0))).law
    assert law.at.tolist() == [4, 5, 8, 16, 32, 64]
    there = np.isin(law.at, [4, 8, 16, 32])
    assert np.array_equal(law.mean.low[there], answers["scaling-law"].law.mean.low)  # type: ignore[attr-defined]


def test_one_condition_has_the_answer_that_it_has_among_others(whole: Study, answers: dict[str, object]) -> None:
    alone = ask("mean", *whole, Options(conditions=(WIDTHS[1],)))
    assert alone[WIDTHS[1]] == answers["mean"][WIDTHS[1]]  # type: ignore[index]


def test_broken_runs_are_counted_and_conditions_without_an_answer_are_named() -> None:
    statuses = {(1, seed): Status.WAITING for seed in range(16)} | {(0, 0): Status.DIVERGED, (0, 1): Status.FAILED}
    found = study(statuses=statuses)
    first = ask("success", *found)[WIDTHS[0]]
    assert (first.value.cohort.diverged, first.value.cohort.censored, first.successes) == (1, 1, 0)
    assert first.if_censored == (0.0, 1 / 16)
    means = ask("mean", *found)
    assert means.left_out == {WIDTHS[1]: "no run has finished yet"}
    assert set(means.conditions) == {WIDTHS[0], WIDTHS[2], WIDTHS[3]}
    curve = ask("success-over-scale", *found).curve
    assert curve.counts.n[0].tolist() == [15, 16, 16]


REFUSED = {
    "success-over-scale": (made([0.5]), Options(), "needs a scale"),
    "predict": (made([0.1, 0.9]), Options(), "3 scales, and there are 2"),
    "scaling-law": (made([0.1, 0.9]), Options(), "three scales, not 2"),
    "quantile-laws": (made([0.5]), Options(), "needs a scale"),
    "distances": (made([0.5]), Options(), "needs a scale"),
    "order": (made([0.5]), Options(), "name a second metric"),
    "breaks": (made([0.5]), Options(), "judged on 8 probes or more, and there are 5"),
    "variance": (made([0.5]), Options(), "use the seed design `crossed`"),
    "agreement": (made([0.5]), Options(), "a metric of its own"),
    "states": (made([0.5, 0.6]), Options(), "of one condition: choose with --condition"),
    "modes": (made([0.5], seeds=3), Options(), "at least 4 are needed"),
    "clusters": (made([0.5], seeds=3), Options(), "4 runs or more|at least 4 runs"),
    "mean": (made([0.5], seeds=2, statuses={(0, 0): Status.WAITING, (0, 1): Status.FAILED}), Options(), "no run has"),
    "onset": (made([0.5], seeds=1, statuses={(0, 0): Status.WAITING}), Options(), "no run has ended yet"),
    "outliers": (made([0.5], seeds=2), Options(), "3 finished runs"),
    "instability": (made([0.5], seeds=1, statuses={(0, 0): Status.WAITING}), Options(), "probes in common"),
    "success": (made([0.5]), Options(metric="heldout.acuracy"), "did you mean 'heldout.accuracy'"),
    "survival-curve": (made([0.5]), Options(conditions=("depth",)), "no condition is called 'depth'"),
    "sucess": (made([0.5]), Options(), "did you mean 'success'"),
    "lineages": (made([0.5]), Options(), "needs a scale"),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_does_not_fit_a_study_says_what_it_needs(name: str) -> None:
    found, options, told = REFUSED[name]
    with pytest.raises(QueryError, match=told):
        ask(name, *found, options)


@pytest.mark.parametrize(
    ("options", "told"),
    [({"level": 1.5}, "between 0 and 1"), ({"gap": 0.0}, "gap"), ({"at": (-1.0,)}, "scale"), ({"seed": -1}, "seed")],
)
def test_bad_options_are_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(QueryError, match=told):
        Options(**options)  # type: ignore[arg-type]


def test_single_items_set_no_run_apart_and_are_no_part_of_a_state(whole: Study, answers: dict[str, object]) -> None:
    assert "items.0" in Question(*whole, Options()).metrics()
    every = [ACCURACY, CARRIES, LOSS]
    assert list(answers["outliers"][WIDTHS[2]].metrics) == every  # type: ignore[index]
    assert list(answers["states"].metrics) == every  # type: ignore[attr-defined]
    alone = asked("outliers", whole, Options(metric=LOSS))
    assert alone[WIDTHS[2]].metrics == (LOSS,)  # type: ignore[index]
    assert alone[WIDTHS[2]].outliers.z.shape[1] == 1  # type: ignore[index]


def test_standing_estimates_are_the_answers(whole: Study, answers: dict[str, object]) -> None:
    rows = standing(Question(*whole, Options())).to_pylist()
    by_name = {(row["question"], row["name"], row["condition"]): row for row in rows}
    assert len(by_name) == len(rows)
    success = answers["success"][WIDTHS[2]].value  # type: ignore[index]
    row = by_name["success", "P(success)", WIDTHS[2]]
    assert (row["value"], row["low"], row["high"], row["cohort"]) == (
        success.value,
        success.low,
        success.high,
        success.cohort.digest,
    )
    mean = answers["mean"][WIDTHS[1]].t  # type: ignore[index]
    assert by_name["mean", ACCURACY, WIDTHS[1]]["low"] == mean.low
    assert ("mean", LOSS, WIDTHS[1]) in by_name
    onset = answers["onset"].conditions[WIDTHS[0]].median  # type: ignore[attr-defined]
    assert (onset.value, by_name["onset", "median", WIDTHS[0]]["value"]) == (np.inf, np.inf)
    midpoint = answers["success-over-scale"].midpoint  # type: ignore[attr-defined]
    assert by_name["success-over-scale", "midpoint", ""]["high"] == midpoint.high


def test_standing_estimates_of_a_study_that_has_not_begun() -> None:
    found = made([0.5], seeds=2, statuses={(0, 0): Status.WAITING, (0, 1): Status.WAITING})
    (row,) = standing(Question(*found, Options())).to_pylist()
    assert (row["name"], row["value"], row["low"], row["high"], row["censored"]) == ("P(success)", None, 0.0, 1.0, 2)


def test_a_generator_is_keyed_by_the_question_and_its_runs(whole: Study) -> None:
    question = Question(*whole, Options())
    one, other = Cohort.of(["a", "b"], 2, 0), Cohort.of(["a", "c"], 2, 0)
    drawn = question.generator("mean", one).random()
    assert drawn == question.generator("mean", Cohort.of(["b", "a"], 2, 0)).random()
    assert drawn != question.generator("mean", other).random()
    assert drawn != question.generator("modes", one).random()
    assert drawn != replace(question, options=Options(seed=1)).generator("mean", one).random()
