"""What every estimate carries, and how it becomes JSON."""

import json
from dataclasses import dataclass
from enum import StrEnum
from math import inf, nan

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort, Estimate, plain


class Verdict(StrEnum):
    UNCLEAR = "not distinguishable"


@dataclass(frozen=True, slots=True)
class Fit:
    verdict: Verdict
    slope: Estimate
    curve: np.ndarray
    bounds: tuple[float, float]
    counts: dict[int, int]


def test_a_cohort_is_named_by_its_runs_whatever_their_order() -> None:
    assert Cohort.of(["a", "b"], 2, 0).digest == Cohort.of(["b", "a"], 2, 0).digest
    assert Cohort.of(["a", "b"], 2, 0).digest != Cohort.of(["a", "c"], 2, 0).digest


def test_cohorts_of_several_scales_add_up_in_any_order() -> None:
    small, large = Cohort.of(["a", "b", "c"], 2, 1), Cohort.of(["d", "e"], 1, 0)
    both = Cohort.pooled([small, large])
    assert both == Cohort.pooled([large, small])
    assert (both.launched, both.finished, both.diverged, both.censored, both.known) == (5, 3, 1, 1, 4)
    assert both.digest not in (small.digest, large.digest)


def test_any_estimate_becomes_json_and_what_is_not_finite_is_null() -> None:
    cohort = Cohort.of(["a"], 1, 0)
    slope = Estimate(nan, 0.5, inf, "profile", 0.95, cohort)
    fit = Fit(Verdict.UNCLEAR, slope, np.array([[1.0, nan]]), (-inf, 2.0), {3: np.int64(4)})  # type: ignore[dict-item]
    found = json.loads(json.dumps(plain(fit), allow_nan=False))
    assert found["verdict"] == "not distinguishable"
    assert (found["slope"]["value"], found["slope"]["low"], found["slope"]["high"]) == (None, 0.5, None)
    assert found["slope"]["cohort"] == {
        "digest": cohort.digest,
        "launched": 1,
        "finished": 1,
        "diverged": 0,
        "censored": 0,
        "mixed": 0,
        "disputed": 0,
    }
    assert (found["curve"], found["bounds"], found["counts"]) == ([[1.0, None]], [None, 2.0], {"3": 4})


@pytest.mark.parametrize(("low", "high", "bounded"), [(0.0, 1.0, True), (-inf, 1.0, False), (0.0, inf, False)])
def test_an_estimate_says_whether_the_data_bound_it(low: float, high: float, bounded: bool) -> None:
    assert Estimate(0.5, low, high, "profile", 0.95, Cohort.of(["a"], 1, 0)).bounded is bounded
