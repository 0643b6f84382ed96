"""Prediction at unseen scales: rivals, weights from held-out scales, and the record."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.prediction import RIVALS, predict, rivals_at
from orchestrator.estimates.success import wilson
from orchestrator.estimates.success_over_scale import counts_of

SCALES = 2.0 ** np.arange(7)
COHORT = Cohort("c", 140, 140, 0, 0)
PLATEAU = [0, 2, 10, 15, 16, 16, 16]
STEEP = [0, 0, 2, 7, 15, 19, 20]


def test_a_plateau_that_was_seen_moves_the_weight_off_the_two_parameter_curve() -> None:
    found = predict(SCALES, PLATEAU, [20] * 7, 256.0, COHORT)
    assert found.weights["logistic"] < 0.1
    assert sum(found.weights.values()) == pytest.approx(1)
    assert found.rivals["logistic"][1] > 0.82, "alone it is sure of what is not so"
    assert found.estimate.low < 0.8 < found.estimate.high
    assert found.estimate.value == pytest.approx(0.8, abs=0.05)
    assert found.estimate.low <= found.stacked[0] < found.stacked[1] <= found.estimate.high + 1e-9


def test_a_curve_that_goes_on_keeps_weight_on_curves() -> None:
    found = predict(SCALES, STEEP, [20] * 7, 128.0, COHORT)
    assert found.weights["isotonic, then flat"] < found.weights["logistic"]
    assert found.estimate.high > 0.99


def test_the_record_is_of_predictions_from_smaller_scales_alone() -> None:
    whole = predict(SCALES, PLATEAU, [20] * 7, 256.0, COHORT)
    assert [one.scale for one in whole.record] == pytest.approx([8, 16, 32, 64])
    changed = predict(SCALES, [*PLATEAU[:6], 3], [20] * 7, 256.0, COHORT)
    assert changed.record[:3] == whole.record[:3], "the last scale is not in the earlier predictions"
    assert not changed.record[3].inside
    assert whole.says.endswith("of 4 held-out scales inside")
    last = whole.record[-1]
    assert last.brier == pytest.approx((16 * (1 - last.probability) ** 2 + 4 * last.probability**2) / 20)
    assert 0 <= last.pit[0] < last.pit[1] <= 1
    assert np.log(last.pit[1] - last.pit[0]) == pytest.approx(last.log_score, abs=1e-6)
    assert last.inside == (binom.ppf(0.025, 20, last.low) <= 16 <= binom.ppf(0.975, 20, last.high))


def test_flat_means_the_last_block_with_its_own_runs() -> None:
    counts = counts_of(SCALES, PLATEAU, [20] * 7)
    flat = dict(zip(RIVALS, rivals_at(counts, 3.0, 0.95), strict=True))["isotonic, then flat"]
    assert flat == (48 / 60, *wilson(48, 60))
    falling = counts_of(SCALES, PLATEAU[::-1], [20] * 7)
    assert rivals_at(falling, 3.0, 0.95)[2] == (0.0, *wilson(0, 20))


def test_three_scales_predict_without_a_record_and_two_do_not() -> None:
    found = predict(SCALES[:3], [1, 5, 9], [10] * 3, 8.0, COHORT)
    assert found.record == ()
    assert list(found.weights.values()) == pytest.approx([1 / 3] * 3)
    with pytest.raises(ValueError, match="3 scales"):
        predict(SCALES[:2], [1, 5], [10] * 2, 8.0, COHORT)
    with pytest.raises(ValueError, match="positive"):
        predict(SCALES[:3], [1, 5, 9], [10] * 3, 0.0, COHORT)


def test_order_of_scales_changes_nothing() -> None:
    order = np.array([3, 0, 6, 2, 5, 1, 4])
    assert predict(SCALES[order], np.array(PLATEAU)[order], [20] * 7, 256.0, COHORT) == predict(
        SCALES, PLATEAU, [20] * 7, 256.0, COHORT
    )


def test_falling_p_is_predicted_to_stay_low() -> None:
    found = predict(SCALES, (20 * expit(-8 * (np.log10(SCALES) - 0.9))).round(), [20] * 7, 128.0, COHORT)
    assert found.estimate.high < 0.3
