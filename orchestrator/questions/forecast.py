"""What would runs of a scale show that was not run: the whole distribution, and how such forecasts did so far.

P(success) comes from rivals that are weighted by their record (`estimates/prediction.py`), the two components from
power laws (`estimates/distribution_law.py`). The record forecasts every scale from the smaller ones alone, and stands
beside the forecast of who knows no law: that the next scale will be as the largest one known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import wasserstein_distance

from jobs.errors import QueryError
from orchestrator.estimates.distribution_law import Curve, DistributionLaw
from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.estimates.prediction import Prediction
from orchestrator.questions.asked import Question
from orchestrator.questions.over_scale import PAST, law_at, prediction

Floats = NDArray[np.float64]
QUANTILES = (0.1, 0.5, 0.9)
_FEWEST = 3  # scales that a law needs


@dataclass(frozen=True, slots=True)
class AtScale:
    """The forecast of one scale.

    probability  P(success)
    mean         of all runs, as the mixture says; `naive`: as one power law of the mean says
    successes, failures  the mean score of either kind
    q10, q50, q90  of the scores
    """

    probability: Estimate
    mean: Estimate
    naive: Estimate
    successes: Estimate
    failures: Estimate
    q10: float
    q50: float
    q90: float


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One scale, forecast from the smaller ones alone.

    forecast, mean  the mean over runs, forecast and seen; inside: whether the seen one lies in the interval
    error           W1 between the forecast's scores and those that were seen
    error_of_last   W1 between the scores of the largest known scale and those that were seen
    """

    scale: float
    n: int
    forecast: Estimate
    mean: float
    inside: bool
    error: float
    error_of_last: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """Forecasts at scales `at`, and the record.

    probabilities  by scale, with rivals, weights and the record of P(success)
    record         of the whole distribution, scale by scale, ascending
    left_out       scales that could not be forecast from the smaller ones, and why
    """

    scale: str
    at: dict[float, AtScale]
    probabilities: dict[float, Prediction]
    record: tuple[HeldOut, ...]
    left_out: dict[float, str]
    cohort: Cohort
    method: str
    level: float
    unit: str = "run"
    stopping_rule: str = FIXED

    @property
    def says(self) -> str:
        """Return the record in words."""
        if not self.record:
            return "no scale could be held out: what such forecasts are worth is not known here"
        inside, count = sum(one.inside for one in self.record), len(self.record)
        closer = sum(one.error < one.error_of_last for one in self.record)
        return (
            f"{inside} of {count} held-out means inside their intervals; "
            f"{closer} of {count} distributions closer than “as at the largest scale”"
        )


def forecast(question: Question) -> Forecast:
    """Return the forecast at the scales of `at`, or at twice the largest; raises QueryError where no law fits."""
    outcomes, conditions = question.outcomes()
    level = question.level(conditions)
    wanted = question.options.at or (float(outcomes.scale.max() * PAST),)
    probabilities = prediction(question).at
    places = np.unique(np.array(wanted, float))
    law = law_at(question, outcomes, places, level)
    at = {
        float(place): replace(_at(law, index), probability=probabilities[float(place)].estimate)
        for index, place in enumerate(places)
    }
    record, left_out = _record(question, outcomes, [condition.success.cohort for condition in conditions], level)
    return Forecast(question.scale, at, probabilities, record, left_out, outcomes.cohort, law.method, level)


def _at(law: DistributionLaw, place: int) -> AtScale:
    def read(curve: Curve) -> Estimate:
        value, low, high = (float(part[place]) for part in (curve.value, curve.low, curve.high))
        return Estimate(value, low, high, law.method, law.level, law.cohort)

    low, middle, high = law.quantiles(np.array(QUANTILES))[place].tolist()
    return AtScale(
        probability=read(law.probability),
        mean=read(law.mean),
        naive=read(law.naive),
        successes=read(law.successes),
        failures=read(law.failures),
        q10=low,
        q50=middle,
        q90=high,
    )


def _record(
    question: Question, outcomes: Outcomes, cohorts: Sequence[Cohort], level: float
) -> tuple[tuple[HeldOut, ...], dict[float, str]]:
    found, left_out = [], {}
    for index in range(_FEWEST, len(outcomes.scale)):
        scale, seen = float(outcomes.scale[index]), outcomes.scores[index]
        known = Outcomes(outcomes.scale[:index], outcomes.scores[:index], Cohort.pooled(cohorts[:index]))
        try:
            law = law_at(question, known, np.array([scale]), level)
        except (ValueError, QueryError) as why:
            left_out[scale] = str(why)
            continue
        mean = _at(law, 0).mean
        scores, weight = law.atoms(0)
        error = float(wasserstein_distance(scores, seen, weight))
        last = float(wasserstein_distance(known.scores[-1], seen))
        low, high = _for_a_mean_of(seen, mean)
        inside = bool(low <= seen.mean() <= high)
        found.append(HeldOut(scale, len(seen), mean, float(seen.mean()), inside, error, last))
    return tuple(found), left_out


def _for_a_mean_of(seen: Floats, mean: Estimate) -> tuple[float, float]:
    """Return the interval of a forecast for the mean of the runs that were seen, which has chance of its own."""
    error = float(seen.std(ddof=1)) / float(np.sqrt(len(seen))) if len(seen) > 1 else 0.0
    own = float(ndtri((1 + mean.level) / 2)) * error
    return (
        mean.value - float(np.hypot(mean.value - mean.low, own)),
        mean.value + float(np.hypot(mean.high - mean.value, own)),
    )
