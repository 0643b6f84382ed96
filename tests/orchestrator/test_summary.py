"""The summary: counts, scores and onsets by hand, whatever the order of rows, and for unfinished studies."""

import json
from math import inf

import numpy as np
import pyarrow as pa
import pytest

from jobs.records import Status
from orchestrator.estimates.success import jeffreys, wilson
from orchestrator.summary import summarise
from tests.orchestrator.made import made


def test_numbers_by_hand() -> None:
    summary = summarise(*made([0.25, 0.5]))
    one, two = summary.conditions
    assert (one.launched, one.successes, one.success.value) == (20, 5, 0.25)
    assert (one.success.low, one.success.high) == wilson(5, 20)
    assert one.jeffreys == jeffreys(5, 20)
    assert one.bounds == (0.25, 0.25)
    assert one.mean_of_successes == pytest.approx(0.98)
    assert one.mean_of_failures == np.mean([(45 + s % 10) / 100 for s in range(5, 20)])
    assert one.onset.bracket.high == inf
    assert (two.onset.bracket.low, two.onset.bracket.high) == (100.0, 150.0)
    assert two.latest == (10, 20)
    assert two.curves.values.shape == (20, 5)
    assert two.curves.measured.tolist() == [20] * 5


def test_the_order_of_rows_changes_nothing() -> None:
    declared, tables = made([0.3, 0.7], statuses={(0, 3): Status.DIVERGED})
    expected = summarise(declared, tables)
    generator = np.random.default_rng(0)
    for _ in range(5):
        mixed = {name: table.take(pa.array(generator.permutation(table.num_rows))) for name, table in tables.items()}
        found = summarise(declared, mixed)
        assert found.as_dict() == expected.as_dict()
        for one, other in zip(found.conditions, expected.conditions, strict=True):
            assert np.array_equal(one.scores, other.scores)
            assert np.array_equal(one.curves.values, other.curves.values, equal_nan=True)


def test_diverged_runs_count_and_failed_and_running_ones_are_bounded() -> None:
    statuses = {(0, 0): Status.DIVERGED, (0, 1): Status.FAILED, (0, 2): Status.RUNNING, (0, 3): Status.WAITING}
    condition = summarise(*made([0.5], statuses=statuses)).conditions[0]
    assert condition.counts == {
        Status.WAITING: 1,
        Status.RUNNING: 1,
        Status.FINISHED: 16,
        Status.DIVERGED: 1,
        Status.FAILED: 1,
    }
    assert (condition.successes, condition.success.value) == (6, 6 / 17)
    assert condition.bounds == (6 / 20, 9 / 20)
    assert condition.success.cohort.censored == 3
    assert condition.curves.measured.tolist() == [19, 19, 16, 16, 16]
    assert condition.onset.runs == 20, "of the four that were lost some may have been early, some late"
    assert (condition.onset.bracket.low, condition.onset.bracket.high) == (100.0, inf)
    assert condition.onset.cohort == condition.success.cohort


def test_a_finished_run_without_its_last_probe_is_censored_and_not_a_failure() -> None:
    declared, tables = made([1.0], seeds=4)
    rows = tables["metrics"]
    keep = [
        not (r == "r00.001" and s == 200)
        for r, s in zip(rows["run_id"].to_pylist(), rows["step"].to_pylist(), strict=True)
    ]
    condition = summarise(declared, tables | {"metrics": rows.filter(pa.array(keep))}).conditions[0]
    assert (condition.success.value, condition.success.cohort.censored) == (1.0, 1)


def test_an_empty_study_is_a_summary_too() -> None:
    statuses = {(0, seed): Status.WAITING for seed in range(3)}
    summary = summarise(*made([0.0], seeds=3, statuses=statuses))
    condition = summary.conditions[0]
    assert np.isnan(condition.success.value)
    assert (condition.mean_of_successes, condition.mean_of_failures) == (None, None)
    text = json.dumps(summary.as_dict(), allow_nan=False)
    assert json.loads(text)["conditions"][0]["success"]["value"] is None
