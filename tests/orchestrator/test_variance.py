"""Variance components and intraclass correlations: reference values, gaps, repeats, and what cannot be told."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.icc import shrout_fleiss, twins
from orchestrator.estimates.variance import crossed, one_way
from tests.orchestrator.made import DYESTUFF, RATINGS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())["varcomp"]
COHORT = Cohort.of(["a", "b"], finished=2, diverged=0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def negative_log_likelihood(parameters: np.ndarray, table: np.ndarray, restricted: bool) -> float:
    """The oracle: the normal likelihood of a one-way table with the whole covariance written out."""
    between, within = np.exp(parameters)
    n = table.size
    covariance = within * np.eye(n) + between * np.kron(np.eye(len(table)), np.ones((table.shape[1],) * 2))
    inverse, ones, y = np.linalg.inv(covariance), np.ones(n), table.ravel()
    information = ones @ inverse @ ones
    off = y - (ones @ inverse @ y) / information
    value = np.linalg.slogdet(covariance)[1] + off @ inverse @ off
    return float(value + np.log(information) if restricted else value) / 2


def test_dyestuff() -> None:
    found = one_way(DYESTUFF, COHORT, rng())
    golden = GOLDEN["dyestuff"]
    assert found["between"].raw == pytest.approx(golden["reml_batch"], abs=1e-6)
    assert found["within"].raw == pytest.approx(golden["reml_resid"], abs=1e-6)
    assert found["between"].test is not None
    assert found["between"].test.statistic == pytest.approx(golden["MSB"] / golden["MSW"], rel=1e-10)
    assert found["between"].test.p == pytest.approx(0.0043975, abs=1e-6)
    share = found["between"].share
    assert share.value == pytest.approx(golden["ICC1"], abs=1e-8)
    assert twins(DYESTUFF, COHORT).value == pytest.approx(golden["ICC1"], abs=1e-8)
    assert (share.low, share.high) == pytest.approx(
        (twins(DYESTUFF, COHORT).low, twins(DYESTUFF, COHORT).high), abs=1e-9
    )


def test_anova_maximises_the_restricted_likelihood_and_ml_is_biased() -> None:
    best = [
        np.exp(
            minimize(
                negative_log_likelihood,
                np.log([1000.0, 2000.0]),
                (DYESTUFF, restricted),
                "Nelder-Mead",
                options={"xatol": 1e-8, "fatol": 1e-12},
            ).x
        )
        for restricted in (True, False)
    ]
    found = one_way(DYESTUFF, COHORT, rng())
    assert best[0] == pytest.approx([found["between"].raw, found["within"].raw], rel=1e-4)
    assert best[1][0] == pytest.approx(GOLDEN["dyestuff"]["ml_batch"], rel=1e-4)


def test_shrout_and_fleiss() -> None:
    golden = GOLDEN["shrout_fleiss"]
    found = crossed(RATINGS, COHORT, rng())
    assert [part.raw for part in found.components] == pytest.approx(golden["comps"], abs=1e-6)
    assert found["init"].share.value == pytest.approx(golden["ICC(2,1)"], abs=1e-7)
    correlations = shrout_fleiss(RATINGS, COHORT)
    assert correlations.icc2.value == pytest.approx(golden["ICC(2,1)"], abs=1e-7)
    assert correlations.icc3.value == pytest.approx(golden["ICC(3,1)"], abs=1e-7)
    # The intervals that R's psych::ICC prints for these data.
    for icc, low, high in ((correlations.icc1, -0.133, 0.723), (correlations.icc2, 0.019, 0.761)):
        assert (icc.low, icc.high) == pytest.approx((low, high), abs=1e-3)
    assert (correlations.icc3.low, correlations.icc3.high) == pytest.approx((0.342, 0.946), abs=1e-3)


def test_additive_table_leaves_no_rest() -> None:
    found = crossed(np.array([[1, 2, 3], [2, 3, 4], [6, 7, 8]], float), COHORT, rng())
    assert [part.raw for part in found.components] == pytest.approx([7, 1, 0], abs=1e-9)
    assert found["init"].ratio is not None
    assert np.isinf(found["init"].ratio.value)
    assert found["init"].test is not None
    assert found["init"].test.p == 0


def test_missing_cells_change_little_and_say_so() -> None:
    gaps = RATINGS.copy()
    gaps[0, 0] = gaps[1, 2] = np.nan
    found, whole = crossed(gaps, COHORT, rng()), crossed(RATINGS, COHORT, rng())
    assert "missing cells" in found.method
    assert "missing" not in whole.method
    assert found.runs == 22
    for name in ("init", "data", "rest"):
        assert found[name].raw == pytest.approx(whole[name].raw, rel=0.2)
    assert found["init"].test is not None
    assert found["init"].test.df_against == 13


def test_gaps_give_the_f_test_of_nested_linear_models() -> None:
    """The oracle of `lm` and `anova`: fit with and without the factor, compare the sums of squares."""
    gaps = RATINGS.copy()
    gaps[0, 0] = gaps[1, 2] = np.nan
    there = ~np.isnan(gaps)
    row, column = np.nonzero(there)
    y = gaps[there]

    def left(*factors: np.ndarray) -> float:
        design = np.concatenate([(f[:, None] == np.unique(f)).astype(float) for f in factors], axis=1)
        return float(np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2))

    both = left(row, column)
    expected = ((left(column) - both) / 5) / (both / 13)
    test = crossed(gaps, COHORT, rng())["init"].test
    assert test is not None
    assert test.statistic == pytest.approx(expected, rel=1e-9)


def test_repeats_split_the_rest() -> None:
    draw = np.random.default_rng(3)
    init, data = draw.normal(0, 2, (40, 1, 1)), draw.normal(0, 1, (1, 40, 1))
    interaction, noise = draw.normal(0, 1.5, (40, 40, 1)), draw.normal(0, 0.5, (40, 40, 2))
    found = crossed(init + data + interaction + noise, COHORT, rng())
    assert [part.name for part in found.components] == ["init", "data", "interaction", "nondeterminism"]
    assert found["interaction"].raw == pytest.approx(1.5**2, rel=0.1)
    assert found["nondeterminism"].raw == pytest.approx(0.25, rel=0.1)
    assert found.caution == ""


def test_a_few_repeated_cells_are_enough_to_split() -> None:
    draw = np.random.default_rng(4)
    table = np.full((30, 30, 2), np.nan)
    table[..., 0] = draw.normal(0, 1, (30, 1)) + draw.normal(0, 1, (30, 30))
    # Ten cells again, with the very same bits: nothing is nondeterminism, all the rest is interaction.
    table[np.arange(10), np.arange(10), 1] = table[np.arange(10), np.arange(10), 0]
    found = crossed(table, COHORT, rng())
    assert found["nondeterminism"].raw == 0
    assert found["interaction"].raw == pytest.approx(1, rel=0.15)
    assert found["interaction"].share.high > 0.3
    assert found.runs == 910


def test_raw_values_below_zero_are_kept() -> None:
    table = np.array([[1, 5, 3], [5, 1, 3], [3, 3, 3.5]])
    found = crossed(table, COHORT, rng())
    assert found["init"].raw < 0
    assert found["init"].value == 0
    assert found["init"].share.low == 0
    assert twins(np.array([[1, 5], [5, 1], [2, 4.0]]), COHORT).value < -0.5


def test_few_runs_are_warned_of() -> None:
    draw = np.random.default_rng(5)
    assert "matters or does not" in crossed(draw.normal(size=(4, 6)), COHORT, rng()).caution
    assert "matters or does not" not in crossed(draw.normal(size=(5, 5)), COHORT, rng()).caution


def test_the_same_generator_gives_the_same_interval_and_scale_does_not_matter() -> None:
    one, again = crossed(RATINGS, COHORT, rng()), crossed(RATINGS, COHORT, rng())
    assert one == again
    scaled = crossed(RATINGS * 1e-3 + 7, COHORT, rng())
    assert scaled["init"].share.low == pytest.approx(one["init"].share.low, abs=1e-9)
    shuffled = crossed(RATINGS[::-1, ::-1], COHORT, rng())
    assert shuffled["data"].share.high == pytest.approx(one["data"].share.high, abs=1e-9)


@pytest.mark.parametrize(
    "table", [np.ones((1, 5)), np.array([[1.0, 2.0], [3.0, np.nan]]), np.array([[1, np.nan], [np.nan, 2]])]
)
def test_tables_that_tell_nothing_are_refused(table: np.ndarray) -> None:
    with pytest.raises(ValueError, match="do not tell init, data and rest apart"):
        crossed(table, COHORT, rng())


def test_scores_that_are_all_equal() -> None:
    found = crossed(np.ones((5, 5)), COHORT, rng())
    assert found["init"].value == 0
    assert np.isnan(found["init"].share.value)
    assert (found["init"].share.low, found["init"].share.high) == (0, 1)
    with pytest.raises(ValueError, match="no variance"):
        twins(np.ones((5, 2)), COHORT)
