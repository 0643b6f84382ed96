"""Every reference value of golden_values.json against what Seedbed computes; what it does not compute has a reason."""

import json
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binom

from orchestrator.estimates.allocation import d_optimal
from orchestrator.estimates.dip import dip
from orchestrator.estimates.distances import Kind, distance
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.firth import Counts, fit
from orchestrator.estimates.icc import shrout_fleiss, twins
from orchestrator.estimates.isotonic import pool
from orchestrator.estimates.latent_chain import forward, smoothed
from orchestrator.estimates.likeness import barrier, linear_cka
from orchestrator.estimates.means import interquartile_mean
from orchestrator.estimates.order import Brackets, order_of
from orchestrator.estimates.stopping import confidence_sequence
from orchestrator.estimates.success import agresti_coull, clopper_pearson, jeffreys, wilson
from orchestrator.estimates.success_over_scale import success_over_scale
from orchestrator.estimates.survival import kaplan_meier, log_rank
from orchestrator.estimates.variance import crossed, one_way
from orchestrator.estimates.weibull import weibull_aft
from tests.orchestrator.made import DYESTUFF, RATINGS

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text(encoding="utf-8"))
COHORT = Cohort("c", 50, 50, 0, 0)
X = np.arange(5) * np.log10(2)
OVER_P = np.arange(5, 996) / 1000


def leaves(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every value and its path; a list is one value."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield from leaves(value, (*path, name))
    else:
        yield path, tree


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def curve(case: str) -> Any:
    return success_over_scale(2.0 ** np.arange(5), GOLDEN[case]["k"], [10] * 5, COHORT)


def grouped() -> Any:
    return curve("logit_grouped")


def coverage(interval: Callable[[int, int], tuple[float, float]]) -> np.ndarray:
    """Return the exact coverage at 20 runs, at every P of the grid."""
    low, high = np.array([interval(k, 20) for k in range(21)]).T
    inside = (low[None] <= OVER_P[:, None]) & (OVER_P[:, None] <= high[None])
    return np.asarray((binom.pmf(np.arange(21), 20, OVER_P[:, None]) * inside).sum(axis=1))


def wald(k: int, n: int) -> tuple[float, float]:
    half = 1.959963984540054 * np.sqrt(k * (n - k) / n**3)
    return k / n - half, k / n + half


def plain_likelihood() -> tuple[np.ndarray, np.ndarray, float]:
    """Return maximum, standard errors and log-likelihood of the two-parameter logistic, by Newton's method."""
    k, design, beta = np.array(GOLDEN["logit_grouped"]["k"]), np.stack([np.ones(5), X], axis=1), np.zeros(2)
    for _ in range(50):
        p = expit(design @ beta)
        information = design.T @ (design * (10 * p * (1 - p))[:, None])
        beta = beta + np.linalg.solve(information, design.T @ (k - 10 * p))
    p = expit(design @ beta)
    return beta, np.sqrt(np.diag(np.linalg.inv(information))), float(k @ np.log(p) + (10 - k) @ np.log1p(-p))


def aml(arm: str) -> tuple[np.ndarray, np.ndarray]:
    entries = GOLDEN["km_aml"]["data"][arm].split()
    return np.array([float(e.rstrip("+")) for e in entries]), np.array([not e.endswith("+") for e in entries])


def both_arms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    (t_a, s_a), (t_b, s_b) = aml("maintained"), aml("nonmaintained")
    return np.append(t_a, t_b), np.append(s_a, s_b), np.repeat([0.0, 1.0], [len(t_a), len(t_b)])


def by_weibull(name: str) -> float:
    times, seen, arm = both_arms()
    found = weibull_aft(times, np.where(seen, times, inf), COHORT, arm)
    assert found.slope is not None
    told = {"intercept": found.intercept, "beta_nonmaintained": found.slope, "scale": found.sigma}
    return found.log_likelihood if name == "loglik" else float(told[name].value)


def by_brackets(name: str) -> float:
    case = GOLDEN["interval_censored_weibull"]
    found = weibull_aft(np.array(case["lo"], float), np.array([float(high) for high in case["hi"]]), COHORT)
    return {"shape": found.shape, "scale": found.scale, "loglik": found.log_likelihood}[name]


def umbrella() -> tuple[float, np.ndarray]:
    moves, seen = np.log([[0.7, 0.3], [0.3, 0.7]]), np.log([[0.9, 0.1], [0.2, 0.8]])
    chain = np.log([0.5, 0.5]), moves, seen[:, [0, 0, 1, 0, 0]].T[:, None], np.array([5])
    return float(np.exp(forward(*chain)[1][0])), smoothed(*chain)[:, 0, 0]


def two_atoms(p: float, kind: Kind) -> float:
    sides = [np.repeat([0.0, 1.0], [round(100 * (1 - q)), round(100 * q)]) for q in (0.2, 0.2 + p)]
    return distance(*sides, kind)


def rotated() -> float:
    draw = rng()
    features = draw.normal(size=(40, 6))
    return linear_cka(features, 3 * features @ np.linalg.qr(draw.normal(size=(6, 6)))[0])


def in_order() -> float:
    early, late = (Brackets(np.full(10, low), np.full(10, low + 10.0)) for low in (0.0, 20.0))
    return order_of(early, late, COHORT).p_two_sided


def dyestuff(part: str) -> float:
    found = one_way(DYESTUFF, COHORT, rng())
    between, within = found["between"].raw, found["within"].raw
    squares = 5 * between + within
    return {
        "MSB": squares,
        "MSW": within,
        "reml_batch": between,
        "reml_resid": within,
        "ml_batch": (5 / 6 * squares - within) / 5,  # maximum likelihood forgets that the mean was fitted
        "ICC1": twins(DYESTUFF, COHORT).value,
    }[part]


def binomial(k: int) -> dict[str, tuple[Callable[[], Any], float]]:
    found = {"wilson": wilson, "beta": clopper_pearson, "agresti_coull": agresti_coull, "jeffreys": jeffreys}
    told: dict[str, tuple[Callable[[], Any], float]] = {}
    for name, interval in found.items():
        told[f"binomial|{k}/10|{name}"] = (lambda interval=interval: interval(k, 10)), 1e-12
    return told


def ends(found: Any) -> list[float]:
    return [found.low, found.high]


# The path of a value → what Seedbed computes, and how near it must be.
CHECKS: dict[str, tuple[Callable[[], Any], float]] = {
    "logit_grouped|mle": (lambda: plain_likelihood()[0], 1e-8),
    "logit_grouped|mle_own": (lambda: plain_likelihood()[0], 1e-8),
    "logit_grouped|se": (lambda: plain_likelihood()[1], 1e-6),
    "logit_grouped|midpoint_log10x": (lambda: -plain_likelihood()[0][0] / plain_likelihood()[0][1], 1e-8),
    "logit_grouped|loglik_kernel": (lambda: plain_likelihood()[2], 1e-9),
    "firth_grouped|firthmodels": (lambda: [grouped().intercept.value, grouped().slope.value], 1e-7),
    "firth_grouped|own": (lambda: [grouped().intercept.value, grouped().slope.value], 1e-7),
    "firth_grouped|own_profile_ci_intercept": (lambda: ends(grouped().intercept), 2e-4),
    "firth_grouped|midpoint": (lambda: grouped().midpoint.value, 1e-8),
    "firth_grouped|profile_ci_firthmodels_slope_then_intercept": (
        lambda: [ends(grouped().slope), ends(grouped().intercept)],
        2e-4,
    ),
    "midpoint_LR_ci_firth": (lambda: [grouped().midpoint.value, *ends(grouped().midpoint)], 1e-6),
    "firth_separated|own": (lambda: [getattr(curve("firth_separated"), n).value for n in ("intercept", "slope")], 1e-5),
    # The other implementation stopped 1.4e-5 before the top.
    "firth_separated|firthmodels": (
        lambda: [getattr(curve("firth_separated"), n).value for n in ("intercept", "slope")],
        2e-5,
    ),
    "firth_separated|separated": (lambda: curve("firth_separated").separated, 0),
    "firth_saturated_analytic|0/10_vs_10/10": (
        lambda: [
            float(part[0]) for part in fit(Counts(np.array([0.0, 1]), np.array([[0.0, 10]]), np.full((1, 2), 10.0)))[:2]
        ],
        1e-8,
    ),
    **binomial(0),
    **binomial(7),
    **binomial(10),
    "exact_coverage_n20|wilson_mean": (lambda: coverage(wilson).mean(), 1e-4),
    "exact_coverage_n20|wilson_min": (lambda: coverage(wilson).min(), 1e-3),
    "exact_coverage_n20|jeffreys_mean": (lambda: coverage(jeffreys).mean(), 1e-3),
    "exact_coverage_n20|clopper_min": (lambda: coverage(clopper_pearson).min(), 1e-3),
    "exact_coverage_n20|wald_mean": (lambda: coverage(wald).mean(), 1e-4),
    "bernoulli_cs|7/10_uniform_mixture_alpha.05": (lambda: confidence_sequence(7, 10), 1e-8),
    "bernoulli_cs|0/10_uniform": (lambda: confidence_sequence(0, 10), 1e-8),
    "bernoulli_cs|50/100_uniform": (lambda: confidence_sequence(50, 100), 1e-8),
    "bernoulli_cs|0/10_analytic_upper": (lambda: confidence_sequence(0, 10)[1], 1e-8),
    "dip|16/4": (lambda: dip(np.repeat([0.0, 1.0], [16, 4])), 1e-12),
    "dip|10/10": (lambda: dip(np.repeat([0.0, 1.0], [10, 10])), 1e-12),
    "dip|uniform_grid_n100": (lambda: dip(np.arange(100.0)), 1e-12),
    "km_aml|maintained_median": (lambda: kaplan_meier(*aml("maintained"), COHORT).median.value, 0),
    "km_aml|nonmaintained_median": (lambda: kaplan_meier(*aml("nonmaintained"), COHORT).median.value, 0),
    "km_aml|S_maintained": (
        lambda: [kaplan_meier(*aml("maintained"), COHORT).at(t) for t in (9.0, 13.0, 18.0, 23.0, 28.0, 31.0)],
        5e-5,
    ),
    "km_aml|logrank_chi2": (lambda: log_rank(*both_arms()[:2], both_arms()[2].astype(int), COHORT).chi_squared, 1e-6),
    "km_aml|logrank_p": (lambda: log_rank(*both_arms()[:2], both_arms()[2].astype(int), COHORT).p, 1e-6),
    # The reference stopped 2e-6 before the top, where our gradient is 1e-12.
    "km_aml|weibull_aft|intercept": (lambda: by_weibull("intercept"), 3e-6),
    "km_aml|weibull_aft|beta_nonmaintained": (lambda: by_weibull("beta_nonmaintained"), 3e-6),
    "km_aml|weibull_aft|scale": (lambda: by_weibull("scale"), 1e-6),
    "km_aml|weibull_aft|loglik": (lambda: by_weibull("loglik"), 1e-6),
    "interval_censored_weibull|shape": (lambda: by_brackets("shape"), 2e-6),
    "interval_censored_weibull|scale": (lambda: by_brackets("scale"), 1e-3),
    "interval_censored_weibull|loglik": (lambda: by_brackets("loglik"), 1e-7),
    **{
        f"varcomp|dyestuff|{p}": ((lambda p=p: dyestuff(p)), 1e-3 if p == "ml_batch" else 1e-6)
        for p in GOLDEN["varcomp"]["dyestuff"]
    },
    "varcomp|shrout_fleiss|comps": (lambda: [part.raw for part in crossed(RATINGS, COHORT, rng()).components], 1e-6),
    "varcomp|shrout_fleiss|ICC(2,1)": (lambda: shrout_fleiss(RATINGS, COHORT).icc2.value, 1e-7),
    "varcomp|shrout_fleiss|ICC(3,1)": (lambda: shrout_fleiss(RATINGS, COHORT).icc3.value, 1e-7),
    "hmm_umbrella|P(obs)": (lambda: umbrella()[0], 1e-10),
    "hmm_umbrella|smoothed": (lambda: umbrella()[1], 5e-5),
    "distances|W1([0,1,3],[5,6,8])": (lambda: distance(np.array([0.0, 1, 3]), np.array([5.0, 6, 8]), Kind.W1), 1e-12),
    "iqm|1..12": (lambda: interquartile_mean(np.arange(1.0, 13)[:, None], COHORT, rng()).value, 1e-12),
    "dopt_logistic|abs_eta": (lambda: d_optimal()[0], 5e-5),
    "dopt_logistic|P": (lambda: d_optimal()[1], 5e-4),
    "cka|CKA(X,cXQ)": (rotated, 1e-12),
    "barrier|double_well (x^2-1)^2 between -1 and 1": (
        lambda: float(barrier((np.linspace(-1, 1, 11) ** 2 - 1) ** 2)),
        1e-12,
    ),
    "sign_test|10/10 two-sided": (in_order, 1e-15),
    "pava|out": (lambda: pool(np.array([GOLDEN["pava"]["in"]]), np.ones((1, 4)))[0], 1e-12),
}
# Values that are formulas in words: checked at several places.
FORMULAS: dict[str, Callable[[], list[tuple[float, float]]]] = {
    "dip|two_atoms_p": lambda: [
        (dip(np.repeat([0.0, 1.0], [100 - k, k])), min(k, 100 - k) / 200) for k in (5, 30, 50, 80)
    ],
    "distances|two_atoms_W1": lambda: [(two_atoms(p, Kind.W1), p) for p in (0.1, 0.3, 0.6)],
    "distances|two_atoms_scipy_energy": lambda: [(two_atoms(p, Kind.ENERGY), 2**0.5 * p) for p in (0.1, 0.3, 0.6)],
    "iqm|bernoulli(P)": lambda: [
        (
            interquartile_mean(np.repeat([0.0, 1.0], [100 - k, k])[:, None], COHORT, rng(), resamples=2).value,
            float(np.clip(2 * k / 100 - 0.5, 0, 1)),
        )
        for k in (10, 25, 40, 60, 75, 90)
    ],
    "firth_saturated_analytic|rule": lambda: [
        (
            float(fit(Counts(np.array([0.0, 1]), np.array([[0.0, n]]), np.full((1, 2), float(n))))[1][0]),
            2 * float(np.log((n + 0.5) / 0.5)),
        )
        for n in (3, 10, 40)
    ],
}
REASONS = {
    "an input of the others": (
        "logit_grouped|x", "logit_grouped|k", "logit_grouped|n", "firth_separated|k", "km_aml|data|maintained",
        "km_aml|data|nonmaintained", "interval_censored_weibull|lo", "interval_censored_weibull|hi", "pava|in",
        "exact_coverage_n20|grid",
    ),
    "Wald's intervals, and profiles of a likelihood without penalty, are what Seedbed does not publish": (
        "firth_grouped|wald_ci_firthmodels_slope_then_intercept", "midpoint_LR_ci_ml",
    ),
    "an exact test of two samples: Seedbed permutes, test_distances.py compares the two": (
        "distances|ks_exact([0..3],[2..5])",
    ),
    "recalled, its data were never at hand": ("dip|R_statfaculty_D_p(from R docs, recalled; data not retrieved here)",),
    "there is no Cox model: onsets over scale are Weibull's, whose reference is checked": (
        "km_aml|cox_efron", "km_aml|cox_breslow",
    ),
}  # fmt: skip
# A published interval ends at 0 or 1 where no run, or every run, succeeded; the reference library's does not.
JEFFREYS_ENDS = {"binomial|0/10|jeffreys": (0.0, 1), "binomial|10/10|jeffreys": (1.0, 0)}
PATHS = {"|".join(path): value for path, value in leaves(GOLDEN)}


def test_every_value_is_checked_or_has_a_reason() -> None:
    excused = [path for paths in REASONS.values() for path in paths]
    known = [*CHECKS, *FORMULAS, *excused]
    assert len(set(known)) == len(known)
    assert sorted(known) == sorted(PATHS)


@pytest.mark.parametrize("path", list(CHECKS))
def test_the_reference_value(path: str) -> None:
    compute, within = CHECKS[path]
    found, wanted = np.asarray(compute(), float), np.asarray(PATHS[path], float)
    if path in JEFFREYS_ENDS:
        end, other = JEFFREYS_ENDS[path]
        assert found[1 - other] == end
        found, wanted = found[other], wanted[other]
    assert found == pytest.approx(wanted, abs=within, rel=0)


@pytest.mark.parametrize("path", list(FORMULAS))
def test_the_reference_formula(path: str) -> None:
    for found, wanted in FORMULAS[path]():
        assert found == pytest.approx(wanted, abs=1e-7)
