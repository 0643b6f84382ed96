"""Onset brackets by hand, their median, and the traps."""

from math import inf, nan

import numpy as np
import pytest

from jobs.records import ONSETS
from jobs.study import SuccessRule
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.onset import Bracket, MedianOnset, median_onset, onset, onsets
from orchestrator.onsets import onsets_of
from orchestrator.summary import Curves

STEPS = np.array([0, 10, 20, 40, 80])


@pytest.mark.parametrize(
    ("values", "sustained", "low", "high"),
    [
        ([0.1, 0.2, 0.95, 0.96, 0.97], 3, 10, 20),
        ([0.1, 0.95, 0.2, 0.95, 0.96], 2, 20, 40),  # a flicker is no onset
        ([0.1, 0.95, 0.2, 0.95, 0.96], 1, 0, 10),
        ([0.1, 0.2, 0.3, 0.4, 0.95], 3, 40, 80),  # holds up to the last probe
        ([0.1, 0.2, 0.3, 0.95, 0.4], 3, 80, inf),  # crossed, not sustained
        ([0.1, 0.2, 0.3, 0.4, 0.5], 1, 80, inf),
        ([0.9, 0.9, 0.9, 0.9, 0.9], 3, -inf, 0),  # there at the first probe; the threshold itself counts
        ([0.1, nan, 0.95, nan, 0.97], 2, 0, 20),  # a probe that was not taken widens the bracket
        ([nan] * 5, 1, -inf, inf),
    ],
)
def test_brackets_by_hand(values: list[float], sustained: int, low: float, high: float) -> None:
    assert onset(STEPS, np.array(values), 0.9, sustained) == Bracket(high, low)


def slow_onset(steps: np.ndarray, values: np.ndarray, threshold: float, sustained: int) -> tuple[float, float]:
    """The definition, read aloud."""
    probes = [(float(s), v) for s, v in zip(steps, values, strict=True) if not np.isnan(v)]
    for index, (step, _) in enumerate(probes):
        if all(value >= threshold for _, value in probes[index : index + sustained]):
            return (probes[index - 1][0] if index else -inf), step
    return (probes[-1][0] if probes else -inf), inf


def test_all_runs_at_once_are_as_each_by_the_definition() -> None:
    generator = np.random.default_rng(3)
    for sustained in (1, 2, 3, 7):
        values = generator.uniform(size=(300, 6))
        values[generator.uniform(size=values.shape) < 0.3] = nan
        steps = np.array([0, 1, 2, 4, 8, 16])
        low, high = onsets(steps, values, 0.4, sustained)
        assert list(zip(low, high, strict=True)) == [slow_onset(steps, v, 0.4, sustained) for v in values]
        mirrored = onsets(steps, -values, -0.4, sustained, "down")
        assert np.array_equal(mirrored, (low, high)), "a loss that falls is an accuracy that rises"


@pytest.mark.parametrize(
    ("steps", "sustained", "direction", "message"),
    [
        ([0, 10, 10], 1, "up", "ascend"),
        ([0, 10], 1, "up", "shape"),
        ([0, 10, 20], 0, "up", "at least 1"),
        ([0, 10, 20], 1, "sideways", "sideways"),
    ],
)
def test_what_makes_no_sense_is_refused(steps: list[int], sustained: int, direction: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        onsets(np.array(steps), np.zeros((2, 3)), 0.5, sustained, direction)  # type: ignore[arg-type]


def test_the_table_has_a_row_per_run_and_says_how_each_is_censored() -> None:
    values = np.array([[0.1, 0.2, 0.95], [0.95, 0.95, 0.95], [0.1, 0.2, 0.3], [nan, nan, nan]])
    curves = Curves(("a", "b", "c", "d"), np.array([0, 10, 20]), values)
    table = onsets_of(curves, SuccessRule(metric="m", threshold=0.9, sustained=2))
    assert table.schema == ONSETS
    assert table.select(["run_id", "low", "high", "censored"]).to_pylist() == [
        {"run_id": "a", "low": 10, "high": 20, "censored": "interval"},
        {"run_id": "b", "low": -inf, "high": 0, "censored": "left"},
        {"run_id": "c", "low": 20, "high": inf, "censored": "right"},
        {"run_id": "d", "low": -inf, "high": inf, "censored": "whole"},
    ]
    assert table.select(["metric", "threshold", "sustained", "direction"]).to_pylist()[0] == {
        "metric": "m",
        "threshold": 0.9,
        "sustained": 2,
        "direction": "up",
    }
    assert onsets_of(Curves((), curves.steps[:0], np.zeros((0, 0))), SuccessRule()).num_rows == 0


def test_the_truth_is_inside_its_bracket_for_any_grid() -> None:
    generator = np.random.default_rng(0)
    for _ in range(200):
        steps = np.unique(generator.integers(0, 2000, size=30))
        truth = generator.uniform(1, 2500)
        found = onset(steps, np.where(steps >= truth, 1.0, 0.0), 0.9, 3)
        assert found.low < truth <= found.high


def brackets(*highs: float) -> list[Bracket]:
    return [Bracket(high, high - 10 if high < inf else 100.0) for high in highs]


def median(found: list[Bracket]) -> MedianOnset:
    return median_onset(found, Cohort.of([str(i) for i in range(len(found))], len(found), 0))


def test_the_median_counts_runs_without_onset_as_later() -> None:
    assert median(brackets(30, 10, inf)).bracket == Bracket(30, 20)
    assert median(brackets(10, 20, 30, inf)).bracket == Bracket(20, 10), "the lower of two middles"
    assert median(brackets(10, inf, inf)).bracket.high == inf
    assert median([]).runs == 0


def test_a_run_that_was_lost_early_is_late_at_the_latest_and_not_for_sure() -> None:
    lost = [*brackets(30, 40, 50), Bracket(inf, 5.0), Bracket(inf, -inf)]
    assert median(lost).bracket == Bracket(50, 20), "if both were early the median is in (20, 30], if late in (40, 50]"
    assert median([Bracket(inf, 5.0)] * 3 + brackets(30, 40)).bracket == Bracket(inf, 5.0)


def test_a_crossing_that_a_lost_run_did_not_confirm_bounds_nothing() -> None:
    values = np.array([[0.1, 0.2, 0.95, nan, nan]] * 2 + [[0.1, 0.95, 0.95, nan, nan]])
    low, high = onsets(STEPS, values, 0.9, 2, ended=np.array([True, False, False]))
    assert low.tolist() == [10, 10, 0]
    assert high.tolist() == [20, inf, 10]


@pytest.mark.parametrize(("n", "low", "high"), [(10, 2, 9), (20, 6, 15), (50, 18, 33)])
def test_the_interval_is_between_the_published_order_statistics(n: int, low: int, high: int) -> None:
    found = median(brackets(*(100.0 * i for i in range(1, n + 1))))
    assert found.interval == (100.0 * low - 10, 100.0 * high)
    assert (found.note, found.cohort.launched, found.runs) == ("", n, n)


def test_five_runs_are_too_few_for_an_interval() -> None:
    found = median(brackets(1, 2, 3, 4, 5))
    assert found.interval == (-inf, inf)
    assert found.note == "5 runs do not bound a median at 0.95"
