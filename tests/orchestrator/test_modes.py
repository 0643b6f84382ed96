"""One mode or two: the mixtures against another computation, the verdicts, and that lack of power is not one mode."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from scipy.stats import betabinom, norm

from orchestrator.estimates.estimate import Cohort, plain
from orchestrator.estimates.mixtures import LARGEST_RATIO, of_counts, of_values
from orchestrator.estimates.modes import Verdict, accepted, count_modes, threshold_sweep, two_peaks, value_modes

ITEMS = 200


def cohort(n: int) -> Cohort:
    return Cohort("c", n, n, 0, 0)


def two_modes(n: int, share: float, rng: np.random.Generator) -> np.ndarray:
    high = np.arange(n) < round(share * n)
    return rng.binomial(ITEMS, np.where(high, rng.beta(18, 2, n), rng.beta(2, 18, n)))


def test_the_mixture_of_counts_is_that_of_a_direct_search() -> None:
    correct = two_modes(20, 0.3, np.random.default_rng(1))
    found = of_counts(correct[None], np.full(20, ITEMS))

    def component(mean: float, precision: float) -> np.ndarray:
        a = expit(mean) * np.exp(precision)
        return betabinom.logpmf(correct, ITEMS, a, np.exp(precision) - a)

    def two(q: np.ndarray) -> float:
        logs = [component(q[0], q[1]) - np.logaddexp(0, q[4]), component(q[2], q[3]) - np.logaddexp(0, -q[4])]
        return -float(logsumexp(logs, axis=0).sum())

    bounds = [(-8, 8), (-1, 9)] * 2 + [(-9, 9)]
    double = min(
        minimize(two, [a, s, b, s, 0.0], method="L-BFGS-B", bounds=bounds).fun
        for a, b in ((-2, 2), (-3, 1))
        for s in (2.0, 4.0)
    )
    single = minimize(lambda q: -component(*q).sum(), [0, 1.0], method="L-BFGS-B", bounds=bounds[:2]).fun
    assert found.delta_bic[0] == pytest.approx(2 * (single - double) - 3 * np.log(20), abs=1.0), "the grid's coarseness"
    assert (found.upper[0] > 0.5).sum() == 6
    assert found.weight[0] == pytest.approx(0.3, abs=0.02)


def test_the_mixture_of_values_is_a_local_maximum_within_its_bounds() -> None:
    rng = np.random.default_rng(2)
    x = np.concatenate([rng.normal(0, 1, 14), rng.normal(6, 0.7, 6)])
    found = of_values(x[None])

    def likelihood(low: float, high: float, s0: float, s1: float, w: float) -> float:
        parts = [np.log(1 - w) + norm.logpdf(x, low, s0), np.log(w) + norm.logpdf(x, high, s1)]
        return float(logsumexp(parts, axis=0).sum())

    best = [found.low[0], found.high[0], *found.spread[0, :2], found.weight[0]]
    top = likelihood(*best)
    for i in range(5):
        for step in (-0.02, 0.02):
            near = list(best)
            near[i] += step
            assert likelihood(*near) < top + 1e-3
    single = norm.logpdf(x, x.mean(), x.std()).sum()
    assert found.delta_bic[0] == pytest.approx(2 * (top - single) - 3 * np.log(20), abs=1e-6)


def test_ties_do_not_make_a_mode_of_infinite_likelihood() -> None:
    x = np.concatenate([np.random.default_rng(3).normal(size=17), [0.5, 0.5, 0.5]])
    found = of_values(x[None])
    narrow, wide = np.sort(found.spread[0, :2])
    assert wide <= LARGEST_RATIO * narrow * (1 + 1e-9)
    assert found.delta_bic[0] < 6


def test_many_samples_at_once_are_each_as_alone() -> None:
    rng = np.random.default_rng(4)
    correct = rng.binomial(ITEMS, rng.beta(2, 2, (6, 12)))
    together, items = of_counts(correct, np.full(12, ITEMS)), np.full(12, ITEMS)
    alone = [of_counts(row[None], items) for row in correct]
    assert together.delta_bic == pytest.approx([one.delta_bic[0] for one in alone], abs=0.05)


def test_two_clear_modes_are_two_and_say_who_belongs_where() -> None:
    correct = two_modes(20, 0.3, np.random.default_rng(5))
    found = count_modes(correct, np.full(20, ITEMS), 0.2, cohort(20), np.random.default_rng(0), draws=10)
    assert found.verdict is Verdict.TWO
    assert found.low < 0.3 < 0.7 < found.high
    assert list(found.upper > 0.5) == [True] * 6 + [False] * 14
    assert found.says.startswith("two modes (ΔBIC ")
    assert "30% of the runs about 0.9" in found.says
    assert "power" not in found.says, "what was found needs no power to be found"
    assert plain(found)["verdict"] == "two modes"


def test_one_run_alone_is_no_mode_and_the_verdict_says_so() -> None:
    correct = np.append(np.random.default_rng(5).binomial(ITEMS, 0.1, 19), 180)
    found = count_modes(correct, np.full(20, ITEMS), 0.2, cohort(20), np.random.default_rng(0), draws=10)
    assert found.verdict is Verdict.UNCLEAR
    assert "but fewer than 2 runs in the smaller mode; power to find two modes 0.3 apart" in found.says
    near = np.random.default_rng(5).binomial(ITEMS, np.repeat([0.3, 0.7], 10))
    wide = count_modes(near, np.full(20, ITEMS), 0.5, cohort(20), np.random.default_rng(0), 10)
    assert "but no two modes 0.5 apart; power" in wide.says


def test_a_gap_that_shares_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 0\.6 apart"):
        count_modes(np.full(8, 100), np.full(8, ITEMS), 0.7, cohort(8), np.random.default_rng(0), 10)


def test_lack_of_power_is_not_one_mode() -> None:
    rng = np.random.default_rng(6)
    overlapping = np.where(np.arange(50) < 25, rng.beta(10, 5, 50), rng.beta(5, 10, 50))
    for n in (10, 50):
        correct = rng.binomial(ITEMS, rng.permutation(overlapping)[:n])
        found = count_modes(correct, np.full(n, ITEMS), 0.2, cohort(n), np.random.default_rng(1), draws=20)
        assert found.verdict is Verdict.UNCLEAR
        assert found.power < 0.5
        assert "power to find two modes 0.3 apart" in found.says
    few = rng.binomial(ITEMS, 0.5, 6)
    found = count_modes(few, np.full(6, ITEMS), 0.2, cohort(6), np.random.default_rng(1), draws=20)
    assert found.verdict is Verdict.UNCLEAR, "six tight runs do not exclude a second mode of weight .2"


def test_a_tight_sample_of_enough_runs_is_one_mode() -> None:
    rng = np.random.default_rng(7)
    correct = rng.binomial(ITEMS, rng.beta(200, 200, 40))
    found = count_modes(correct, np.full(40, ITEMS), 0.2, cohort(40), np.random.default_rng(0), draws=20)
    assert found.verdict is Verdict.ONE
    assert found.power >= 0.8
    assert set(found.power_by_weight) == {0.2, 0.5, 0.8}


def test_the_final_loss_has_its_own_verdict() -> None:
    rng = np.random.default_rng(8)
    n, high = 30, np.arange(30) < 10
    apart = value_modes(rng.normal(np.where(high, 3.0, 2.0), 0.1), 0.5, cohort(n), np.random.default_rng(0))
    assert apart.verdict is Verdict.TWO
    assert (apart.low, apart.high) == pytest.approx((2.0, 3.0), abs=0.1)
    tight = value_modes(rng.normal(2.0, 0.05, n), 0.5, cohort(n), np.random.default_rng(0))
    assert tight.verdict is Verdict.ONE
    alike = value_modes(np.full(6, 2.0), 0.5, cohort(6), np.random.default_rng(0))
    assert alike.verdict is Verdict.UNCLEAR, "six equal values are few"


def test_one_mode_is_seldom_called_two() -> None:
    rng = np.random.default_rng(9)
    for sample, most in ((rng.normal(size=(300, 20)), 0.02), (rng.standard_t(3, (300, 20)), 0.06)):
        found = of_values(sample)
        assert (accepted(found, 2.0) & two_peaks(found)).mean() <= most
    for a, b in ((5, 5), (1, 8)):
        found = of_counts(rng.binomial(ITEMS, rng.beta(a, b, (60, 20))), np.full(20, ITEMS))
        assert accepted(found, 0.2).mean() <= 0.05


def test_thresholds_between_the_modes_agree_and_others_do_not() -> None:
    correct = two_modes(20, 0.3, np.random.default_rng(5))
    modes = count_modes(correct, np.full(20, ITEMS), 0.2, cohort(20), np.random.default_rng(0), draws=10)
    rows = threshold_sweep(correct / ITEMS, np.array([0.05, 0.5, 0.97]), modes, cohort(20))
    assert [row.verdict for row in rows] == [Verdict.UNCLEAR, Verdict.TWO, Verdict.UNCLEAR]
    assert rows[1].disagreements == 0
    assert rows[1].success.value == 0.3
    with pytest.raises(ValueError, match="20 runs"):
        threshold_sweep(np.array([0.5]), np.array([0.5]), modes, cohort(20))


@pytest.mark.parametrize(
    ("correct", "items", "gap", "fault"),
    [
        ([1, 2, 3], [5] * 3, 0.2, "3 runs"),
        ([1, 2, 3, 9], [5] * 4, 0.2, "no more correct"),
        ([1] * 4, [5] * 4, 0.0, "gap"),
    ],
)
def test_what_cannot_be_judged_is_refused(correct: list[int], items: list[int], gap: float, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        count_modes(correct, items, gap, cohort(4), np.random.default_rng(0))
    with pytest.raises(ValueError, match="diverged"):
        value_modes([1.0, 2.0, np.nan, 3.0], 0.5, cohort(4), np.random.default_rng(0))
