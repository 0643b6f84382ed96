"""P(score >= τ) for all τ: its values, its band, and that it is P(success) at the rule's threshold."""

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.success import success_probability
from orchestrator.estimates.survival_curve import half_width, survival_curve


def test_reference_values_of_the_band() -> None:
    assert half_width(20) == pytest.approx(0.3037, abs=5e-5)
    assert half_width(50) == pytest.approx(0.1921, abs=5e-5)
    assert half_width(0) == half_width(1) == 1.0


def test_at_the_rules_threshold_it_is_the_share_of_successes() -> None:
    scores = np.array([0.2, 0.9, 0.9, 0.4, 1.0, 0.95, 0.1])
    cohort = Cohort("c", 10, finished=7, diverged=1, censored=2)
    curve = survival_curve(scores, cohort)
    for threshold in (0.0, 0.1, 0.15, 0.9, 0.91, 1.0, 1.01):
        k = int((scores >= threshold).sum())
        assert curve.at(threshold)[0] == success_probability(k, cohort).value
    assert (curve.value[0], curve.at(-1.0)[0]) == (7 / 8, 7 / 8), "a diverged run is below every threshold"
    assert (np.diff(curve.value) < 0).all()
    assert ((curve.low <= curve.value) & (curve.value <= curve.high)).all()


def test_the_band_holds_for_all_thresholds_together() -> None:
    rng = np.random.default_rng(6)
    cohort = Cohort("c", 20, 20, 0, 0)
    inside = 0
    for _ in range(500):
        curve = survival_curve(rng.random(20), cohort)
        truth = 1 - curve.thresholds
        after = np.append(curve.value[1:], 0.0)
        half = half_width(20)
        inside += bool((np.abs(curve.value - truth) <= half).all() and (np.abs(after - truth) <= half).all())
    assert 0.93 < inside / 500 < 0.995


def test_order_changes_nothing_and_lost_scores_are_refused() -> None:
    cohort = Cohort("c", 3, 3, 0, 0)
    scores = np.array([0.3, 0.1, 0.2])
    assert (survival_curve(scores, cohort).value == survival_curve(scores[::-1], cohort).value).all()
    with pytest.raises(ValueError, match="2 scores"):
        survival_curve(scores[:2], cohort)
    with pytest.raises(ValueError, match="NaN: 1"):
        survival_curve(np.array([0.1, np.nan, 0.2]), cohort)
    empty = survival_curve(np.array([]), Cohort("c", 2, 0, 0, 2))
    assert np.isnan(empty.at(0.5)[0])
    assert empty.at(0.5)[1:] == (0.0, 1.0)
