"""How the time to a breakthrough moves with scale: an accelerated-failure-time Weibull over brackets.

log T = β₀ + β₁·(log₁₀ scale) + σW. Brackets enter as what they are: the chance that T lies inside, by an own
likelihood in (β, log σ); scipy's `weibull_min.fit` of interval-censored data lost the optimum from its own start in
some of 200 samples. Every run is assumed to break through if it trained long enough; where some never would, use
`cure.py`: here they would stretch the tail and drag the medians.
Intervals are profile-likelihood intervals with Student's t for the spread: with the normal quantile those of a slope
covered .93 at 30 and 60 runs. They are infinite where the data do not bound a number.
"""

from dataclasses import dataclass
from math import exp, inf, log

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.profile import Top, maximise, profile_interval
from orchestrator.estimates.weibull_likelihood import BracketLikelihood

Floats = NDArray[np.float64]
LOG_LOG_2 = log(log(2))
_LEAST_SIGMA = 1e-4


@dataclass(frozen=True, slots=True)
class WeibullFit:
    """log T = intercept + slope·x + sigma·W.

    slope       None without a covariate
    shape       1/sigma; above 1 the hazard rises with time
    scale       exp(intercept), in steps: the Weibull's scale where x = 0
    """

    intercept: Estimate
    slope: Estimate | None
    sigma: Estimate
    log_likelihood: float
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    @property
    def shape(self) -> float:
        """Return the Weibull's shape."""
        return 1 / self.sigma.value

    @property
    def scale(self) -> float:
        """Return the Weibull's scale at x = 0, in steps."""
        return exp(self.intercept.value)


def weibull_aft(low: Floats, high: Floats, cohort: Cohort, x: Floats | None = None, level: float = 0.95) -> WeibullFit:
    """Return the fit to brackets (low, high].

    low, high: [run], in steps; low = high is an onset at exactly that step, an infinite high none up to low.
    x: [run], a covariate such as log₁₀ scale. Raises ValueError for what cannot be fitted.
    """
    method = "weibull accelerated failure time, profile t"
    columns = 1 if x is None else 2
    low, high = checked(low, high)
    spread(low, high)
    likelihood = BracketLikelihood(low, high, design(low, x), np.zeros((len(low), 0)))
    top = fitted(likelihood, start_of(low, high, columns))
    ends = [profile_interval(likelihood, top, which, level, degrees(likelihood)) for which in range(columns + 1)]
    beta = top.parameters
    sigma = Estimate(exp(beta[columns]), exp(ends[columns][0]), exp(ends[columns][1]), method, level, cohort)
    intercept, *slope = (Estimate(float(beta[i]), *ends[i], method, level, cohort) for i in range(columns))
    return WeibullFit(intercept, slope[0] if slope else None, sigma, top.value, method, level, cohort)


def weibull_median(
    low: Floats, high: Floats, cohort: Cohort, x: Floats | None = None, at: float = 0.0, level: float = 0.95
) -> Estimate:
    """Return the median onset where the covariate is `at`, in steps, with its profile-likelihood interval."""
    centred = None if x is None else x - at
    likelihood = BracketLikelihood(*checked(low, high), design(low, centred), np.zeros((len(low), 0)), offset=LOG_LOG_2)
    top = fitted(likelihood, start_of(low, high, likelihood.x.shape[1]))
    ends = profile_interval(likelihood, top, 0, level, degrees(likelihood))
    method = "weibull median, profile t"
    return Estimate(exp(top.parameters[0]), safe_exp(ends[0]), safe_exp(ends[1]), method, level, cohort)


def degrees(likelihood: BracketLikelihood) -> int:
    """Return the degrees of freedom left for the spread: runs less parameters, at least 1."""
    return max(len(likelihood.low) - likelihood.size, 1)


def checked(low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Return the brackets as times ≥ 0; raises ValueError where no time to onset can be told from them."""
    if low.ndim != 1 or low.shape != high.shape or not len(low):
        raise ValueError(f"low and high are [run] of at least one run, but have shapes {low.shape} and {high.shape}")
    if np.isnan(low).any() or np.isnan(high).any() or not (low <= high).all() or np.isinf(high[low == high]).any():
        raise ValueError("a bracket (low, high] has low ≤ high, and neither is NaN")
    if (high <= 0).any():
        raise ValueError("a run had its onset at step 0 already: a time to onset on a log scale starts after it")
    if np.isinf(high).all():
        raise ValueError("no run has an onset: the data only say that it comes later than the last probes")
    return np.maximum(low, 0.0), high


def spread(low: Floats, high: Floats) -> None:
    """Raise ValueError where one time fits all these brackets: then the best spread is none, whatever the truth."""
    if low.max() <= high.min():
        raise ValueError("one time fits all onsets: the spread between runs cannot be told; probe more often")


def design(low: Floats, x: Floats | None) -> Floats:
    """Return [run, 1 or 2]: ones, and the covariate where there is one; raises ValueError if it does not vary."""
    if x is None:
        return np.ones((len(low), 1))
    if x.shape != low.shape or not np.isfinite(x).all():
        raise ValueError("x is [run] and finite")
    if np.ptp(x) == 0:
        raise ValueError("x is the same for all runs: leave it out")
    return np.stack([np.ones(len(x)), x], axis=1)


def start_of(low: Floats, high: Floats, columns: int) -> Floats:
    """Return where the search starts: the middle of what was seen, no slope, a wide spread."""
    seen = np.isfinite(high)
    middle = np.log((np.maximum(low, 0.0)[seen] + high[seen]) / 2)
    return np.array([float(middle.mean()) + 0.3, *[0.0] * (columns - 1), log(max(float(middle.std()), 0.3))])


def fitted(likelihood: BracketLikelihood, start: Floats) -> Top:
    """Return the top of the likelihood from this start; raises ValueError as `refuse` does."""
    return refuse(maximise(likelihood, start), likelihood.x.shape[1])


def refuse(top: Top, sigma_at: int) -> Top:
    """Return the top; raises ValueError where the spread shrank to nothing or no top was found."""
    if exp(top.parameters[sigma_at]) < _LEAST_SIGMA:
        raise ValueError("one line fits all onsets: the spread between runs cannot be told; probe more often")
    if not top.converged:
        raise ValueError("the likelihood has no top that could be found: too few onsets for this many parameters")
    return top


def safe_exp(value: float) -> float:
    """Return e^value, infinite where that is too large for a double."""
    return exp(value) if value < 700 else inf
