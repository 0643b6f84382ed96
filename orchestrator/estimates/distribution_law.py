"""The distribution of scores against scale as a mixture, and beside it the law of the mean.

    F_N = (1 - P(N)) F₀(y / L₀(N)) + P(N) F₁(y / L₁(N))

P(N) is Firth's logistic curve (`firth.py`); L₀ and L₁, the mean scores of runs that fail and that succeed, are power
laws; F₀ and F₁ are the runs' own ratios y / L, pooled over scales. The components are fitted first, and the mean of
their composite, (1 - P) L₀ + P L₁, is then tested against the data: it is no power law, and its apparent break
stands at the midpoint of P. The naive law beside it is one power law for the mean of all runs.

`emergence.py` says how much of a change of the mean is a change of P. Every interval comes from runs drawn again
within their scale, the same draw for all parts.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.firth import Counts
from orchestrator.estimates.firth import fit as fit_curve
from orchestrator.estimates.log_link import fit_means, means_at
from orchestrator.estimates.outcomes import Outcomes, percentile_ends

Floats = NDArray[np.float64]
METHOD = "mixture of laws, runs resampled"


@dataclass(frozen=True, slots=True)
class Curve:
    """A quantity over places on the scale axis, each [place], with pointwise intervals."""

    value: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, slots=True)
class Sums:
    """What the fits need, each [data set, scale]: numbers of runs and of successes, and sums of their scores."""

    runs: Floats
    successes: Floats
    of_failures: Floats
    of_successes: Floats


@dataclass(frozen=True, slots=True)
class Parts:
    """Fitted laws of one or many data sets.

    curve  [data set, 2], intercept and slope of logit P over log10 of scale
    failures, successes, naive  [data set, 2], log A and α
    """

    curve: Floats
    failures: Floats
    successes: Floats
    naive: Floats

    def probability(self, log_x: Floats) -> Floats:
        """Return P [data set, place]."""
        return np.asarray(expit(self.curve[:, :1] + self.curve[:, 1:] * log_x / np.log(10)), np.float64)

    def composite(self, log_x: Floats) -> Floats:
        """Return the mixture's mean [data set, place]."""
        p = self.probability(log_x)
        return (1 - p) * means_at(self.failures, log_x) + p * means_at(self.successes, log_x)


@dataclass(frozen=True, slots=True)
class DistributionLaw:
    """The mixture and the naive law, at scales `at`.

    probability                P(success)
    failures, successes        L₀ and L₁, the mean score of runs below, and at or above, `threshold`
    mean, naive                the composite's mean, and the power law of the mean
    exponent_*                 α of the power laws: M falls as x^-α, rises where α is negative
    ratios_of_*                [run], y / L(its scale): what F₀ and F₁ are made of
    """

    at: Floats
    scale: Floats
    threshold: float
    probability: Curve
    failures: Curve
    successes: Curve
    mean: Curve
    naive: Curve
    exponent_of_failures: Estimate
    exponent_of_successes: Estimate
    exponent_of_naive: Estimate
    ratios_of_failures: Floats
    ratios_of_successes: Floats
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    def quantiles(self, q: Floats) -> Floats:
        """Return [place, q]: quantiles of F_N, the lower ones where a step lies on q."""
        found = np.empty((len(self.at), len(q)))
        for place in range(len(self.at)):
            scores, weight = self.atoms(place)
            reached = np.searchsorted(np.cumsum(weight), np.asarray(q) - 1e-12)
            found[place] = scores[np.minimum(reached, len(scores) - 1)]
        return found

    def atoms(self, place: int) -> tuple[Floats, Floats]:
        """Return the scores on which F_N lies at `at[place]`, ascending, and their weights."""
        p = float(self.probability.value[place])
        scores = np.concatenate(
            [
                self.ratios_of_failures * self.failures.value[place],
                self.ratios_of_successes * self.successes.value[place],
            ]
        )
        sizes = len(self.ratios_of_failures), len(self.ratios_of_successes)
        weight = np.concatenate([np.full(sizes[0], (1 - p) / sizes[0]), np.full(sizes[1], p / sizes[1])])
        order = np.argsort(scores, kind="stable")
        return scores[order], weight[order]


def distribution_law(
    outcomes: Outcomes,
    threshold: float,
    at: Floats,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 1_000,
) -> DistributionLaw:
    """Return the mixture over scale, evaluated at scales `at` (unseen ones too).

    Raises ValueError for scores below zero, for fewer than three scales, and where no run, or every run, succeeds.
    """
    point = fit_parts(np.log(outcomes.scale), check(outcomes, threshold))
    drawn = fit_parts(np.log(outcomes.scale), sums_of(outcomes.drawn(rng, resamples), threshold), spare=point)
    log_at = np.log(at)
    ends = percentile_ends(int(outcomes.runs.min()), level)

    def curve(value: Floats, draws: Floats) -> Curve:
        low, high = np.quantile(draws, ends, axis=0)
        return Curve(value[0], low, high)

    def exponent(name: str) -> Estimate:
        low, high = np.quantile(getattr(drawn, name)[:, 1], ends)
        return Estimate(float(getattr(point, name)[0, 1]), float(low), float(high), METHOD, level, outcomes.cohort)

    ratios = _ratios(outcomes, threshold, point)
    return DistributionLaw(
        at=at,
        scale=outcomes.scale,
        threshold=threshold,
        probability=curve(point.probability(log_at), drawn.probability(log_at)),
        failures=curve(means_at(point.failures, log_at), means_at(drawn.failures, log_at)),
        successes=curve(means_at(point.successes, log_at), means_at(drawn.successes, log_at)),
        mean=curve(point.composite(log_at), drawn.composite(log_at)),
        naive=curve(means_at(point.naive, log_at), means_at(drawn.naive, log_at)),
        exponent_of_failures=exponent("failures"),
        exponent_of_successes=exponent("successes"),
        exponent_of_naive=exponent("naive"),
        ratios_of_failures=ratios[0],
        ratios_of_successes=ratios[1],
        method=METHOD,
        level=level,
        cohort=outcomes.cohort,
    )


def check(outcomes: Outcomes, threshold: float) -> Sums:
    """Return the sums of the data; raises ValueError where there is no mixture to fit."""
    if any((scores < 0).any() for scores in outcomes.scores):
        raise ValueError("a score is negative: component means are power laws, which are positive")
    if len(outcomes.scale) < 3:
        raise ValueError(f"a law over scale needs three scales, not {len(outcomes.scale)}")
    sums = sums_of([scores[None] for scores in outcomes.scores], threshold)
    if not 0 < sums.successes.sum() < sums.runs.sum():
        every = "every" if sums.successes.sum() else "no"
        raise ValueError(f"{every} run reaches {threshold:g}: there is one component, and no mixture")
    return sums


def sums_of(scores: list[Floats], threshold: float) -> Sums:
    """Return the sums of scores given for each scale as [data set, run]."""
    good = [values >= threshold for values in scores]
    per_scale = [
        (np.full(len(v), float(v.shape[1])), g.sum(axis=1), (v * ~g).sum(axis=1), (v * g).sum(axis=1))
        for v, g in zip(scores, good, strict=True)
    ]
    return Sums(*(np.stack(column, axis=1).astype(np.float64) for column in zip(*per_scale, strict=True)))


def fit_parts(log_x: Floats, sums: Sums, spare: Parts | None = None) -> Parts:
    """Return the fitted laws of every data set; a component that one has not is taken from `spare`."""
    intercept, slope, _ = fit_curve(Counts(log_x / np.log(10), sums.successes, sums.runs))
    failures = fit_means(log_x, sums.of_failures, sums.runs - sums.successes)
    successes = fit_means(log_x, sums.of_successes, sums.successes)
    if spare is not None:
        failures = np.where(np.isnan(failures), spare.failures, failures)
        successes = np.where(np.isnan(successes), spare.successes, successes)
    naive = fit_means(log_x, sums.of_failures + sums.of_successes, sums.runs)
    return Parts(np.stack([intercept, slope], axis=1), failures, successes, naive)


def _ratios(outcomes: Outcomes, threshold: float, point: Parts) -> tuple[Floats, Floats]:
    log_x = np.log(outcomes.scale)
    laws = means_at(point.failures, log_x)[0], means_at(point.successes, log_x)[0]
    parts: tuple[list[Floats], list[Floats]] = [], []
    for index, scores in enumerate(outcomes.scores):
        for which, chosen in enumerate((scores < threshold, scores >= threshold)):
            # A component whose scores are all zero has ratios of one to a law of zero.
            law = laws[which][index]
            parts[which].append(scores[chosen] / law if law > 1e-290 else np.ones(int(chosen.sum())))
    return np.concatenate(parts[0]), np.concatenate(parts[1])
