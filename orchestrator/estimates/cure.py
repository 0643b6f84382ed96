"""When, and whether at all: a share 1 - P of the runs never breaks through, the others do at Weibull times.

P(no onset by t) = (1 - P) + P·S(t). P(success) and the times come from one likelihood, so that a run without onset is
shared between "would not" and "not yet" as the times of the others say. Where training ends before the times level
off, the two cannot be told apart: then the interval of P reaches to 1, which is the answer.
Sources: Farewell 1982; Maller & Zhou 1996.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.profile import Top, maximise, profile_interval
from orchestrator.estimates.weibull import LOG_LOG_2, checked, design, refuse, safe_exp, spread, start_of
from orchestrator.estimates.weibull_likelihood import BracketLikelihood

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CureFit:
    """The mixture at one scale, or at `at` on a line over scales.

    breaks_through   P: the share of runs that would break through if trained for ever
    median           of the onsets of those, in steps
    sigma            of log T about the line; 1/sigma is the Weibull's shape
    time_slope       change of log T per unit of x; None without x
    chance_slope     change of logit P per unit of x; None without x
    """

    breaks_through: Estimate
    median: Estimate
    sigma: Estimate
    time_slope: Estimate | None
    chance_slope: Estimate | None
    log_likelihood: float
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED


def cure_weibull(
    low: Floats, high: Floats, cohort: Cohort, x: Floats | None = None, at: float = 0.0, level: float = 0.95
) -> CureFit:
    """Return the mixture-cure fit to brackets (low, high]; arguments as of `weibull.weibull_median`.

    With x both log T and logit P are lines in it. Raises ValueError for what cannot be fitted.
    """
    method = "weibull mixture cure, profile likelihood"
    low, high = checked(low, high)
    spread(low[np.isfinite(high)], high[np.isfinite(high)])
    centred = None if x is None else x - at
    lines = design(low, centred)
    likelihood = BracketLikelihood(low, high, lines, lines, offset=LOG_LOG_2)
    columns = lines.shape[1]
    top = _best(likelihood, low, high, columns)
    ends = [profile_interval(likelihood, top, which, level) for which in range(likelihood.size)]

    def of(which: int) -> Estimate:
        return Estimate(float(top.parameters[which]), *ends[which], method, level, cohort)

    def through(which: int, to: Callable[[float], float]) -> Estimate:
        value, (bottom, ceiling) = float(top.parameters[which]), ends[which]
        return Estimate(to(value), to(bottom), to(ceiling), method, level, cohort)

    return CureFit(
        breaks_through=through(columns + 1, lambda logit: float(expit(logit))),
        median=through(0, safe_exp),
        sigma=through(columns, safe_exp),
        time_slope=of(1) if columns == 2 else None,
        chance_slope=of(columns + 2) if columns == 2 else None,
        log_likelihood=top.value,
        method=method,
        level=level,
        cohort=cohort,
    )


def _best(likelihood: BracketLikelihood, low: Floats, high: Floats, columns: int) -> Top:
    """Return the highest of the tops found from several starts: the mixture's likelihood can have two."""
    share = float(np.isfinite(high).mean())
    times = start_of(low, high, columns)
    tops = []
    for logit in (min(max(np.log(share / max(1 - share, 1e-3)), -3), 3), 3.0):
        for stretch in (0.0, 1.0):
            start = np.array([*times, logit, *[0.0] * (columns - 1)])
            start[0] += stretch
            tops.append(maximise(likelihood, start))
    best = max((top for top in tops if np.isfinite(top.value)), key=lambda top: (round(top.value, 7), top.converged))
    return refuse(best, columns)
