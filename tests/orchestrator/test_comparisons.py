"""Holm, Benjamini-Hochberg, and a band that holds everywhere at once."""

import numpy as np
import pytest

from orchestrator.estimates.bands import mean_band
from orchestrator.estimates.comparisons import benjamini_hochberg, holm
from orchestrator.estimates.estimate import Cohort

COHORT = Cohort.of(["a"], finished=1, diverged=0)
P = [0.01, 0.04, 0.03, 0.005]


def test_by_hand() -> None:
    # Sorted .005 .01 .03 .04. Holm: ×4 ×3 ×2 ×1, running maximum. BH: ×4/1 ×4/2 ×4/3 ×4/4, running minimum from above.
    assert holm(P) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert benjamini_hochberg(P) == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_the_example_of_benjamini_and_hochberg() -> None:
    """Their 1995 paper: 15 p values; at q = .05 four are rejected, by Bonferroni's and Holm's rule three."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528]
    p += [0.7590, 1.0]
    assert int((benjamini_hochberg(p) <= 0.05).sum()) == 4
    assert int((holm(p) <= 0.05).sum()) == 3


def test_order_ties_and_tests_that_were_not_made() -> None:
    draw = np.random.default_rng(0)
    p = np.round(draw.random(40) ** 3, 2)
    order = draw.permutation(40)
    for adjust in (holm, benjamini_hochberg):
        assert adjust(p[order]) == pytest.approx(adjust(p)[order])
        assert (adjust(p) >= p - 1e-15).all()
        with_gap = adjust([*p, np.nan])
        assert np.isnan(with_gap[-1])
        assert with_gap[:-1] == pytest.approx(adjust(p))
    assert len(holm([])) == 0


@pytest.mark.parametrize("bad", [[-0.1], [1.2], [[0.1]]])
def test_what_is_no_p_value_is_refused(bad: list[object]) -> None:
    with pytest.raises(ValueError, match="p values"):
        holm(bad)  # type: ignore[arg-type]


def test_family_wise_errors_stay_at_their_level_and_unadjusted_do_not() -> None:
    p = np.random.default_rng(1).random((4000, 20))
    assert np.mean([(holm(row) <= 0.05).any() for row in p]) == pytest.approx(0.05, abs=0.012)
    assert np.mean((p <= 0.05).any(axis=1)) > 0.6


def test_a_band_covers_all_columns_at_once() -> None:
    draw = np.random.default_rng(2)
    inside, cellwise = [], []
    for _ in range(150):
        values = draw.normal(size=(20, 12)) + draw.normal(size=(20, 1))
        band = mean_band(values, COHORT, draw, resamples=200)
        inside.append(bool(((band.low <= 0) & (band.high >= 0)).all()))
        half = 2.093 * values.std(axis=0, ddof=1) / np.sqrt(20)
        cellwise.append(bool((np.abs(values.mean(axis=0)) <= half).all()))
    assert 0.9 < np.mean(inside) <= 1
    assert np.mean(cellwise) < 0.87


def test_a_column_without_spread_has_no_width() -> None:
    values = np.stack([np.arange(6.0), np.full(6, 3.0)], axis=1)
    band = mean_band(values, COHORT, np.random.default_rng(0))
    assert band.low[1] == band.high[1] == 3
    assert band.high[0] > band.value[0]
