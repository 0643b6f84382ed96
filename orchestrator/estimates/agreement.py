"""Do two runs give the same answers, item by item: Cohen's kappa between seeds, and of a run with its own last step.

Kappa is the agreement beyond what two runs with these shares of answers would have by chance (Cohen 1960). Two runs
that give one and the same answer to all items have none: it is not defined there, and NaN. Over seeds it is shown as
the median with the band from 25 to 75 % (PolyPythias); intervals come from resampled runs, never from resampled
items or pairs: the pairs of one run are not independent.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Cohort, Estimate

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
MISSING = -1
_RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class AgreementOverSteps:
    """Agreement of a cohort at every step.

    runs    [run, step]: each run's kappa with its own last step, or its mean kappa with the other runs
    median  of the runs at each step, with a bootstrap interval over runs
    band    [step, 2]: the quartiles of the runs
    """

    runs: Floats
    median: tuple[Estimate, ...]
    band: Floats


def kappa(one: Labels, other: Labels) -> float:
    """Return Cohen's kappa of two runs' answers [item]; items that either lacks (-1) are left out."""
    return float(kappa_matrix(np.stack([one, other]))[0, 1])


def kappa_matrix(answers: Labels) -> Floats:
    """Return [run, run] from answers [run, item], categories from 0 on, -1 where one is missing."""
    there = (answers >= 0).astype(float)
    both = there @ there.T
    agree, chance = np.zeros_like(both), np.zeros_like(both)
    for label in np.unique(answers[answers >= 0]):
        said = (answers == label).astype(float)
        agree += said @ said.T
        # How often a run says this, among the items that the other has answered too.
        chance += (said @ there.T) * (there @ said.T)
    with np.errstate(invalid="ignore", divide="ignore"):
        agree, chance = agree / both, chance / both**2
        found = np.where(chance < 1, (agree - chance) / (1 - chance), np.nan)
    return np.asarray(found, float)


def self_consistency(answers: Labels) -> Floats:
    """Return [step]: kappa of one run's answers [step, item] with those of its own last step."""
    return np.array([kappa(step, answers[-1]) for step in answers])


def consistency_over_steps(
    answers: Labels, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, resamples: int = _RESAMPLES
) -> AgreementOverSteps:
    """Return each run's agreement with its own last step, from answers [run, step, item]."""
    runs = np.stack([self_consistency(run) for run in answers])
    draws = rng.integers(len(runs), size=(resamples, len(runs)))
    medians = np.stack([_median(line[draws], axis=1) for line in runs.T])
    return _over_steps(runs, medians, "kappa with the own last step", cohort, level)


def agreement_over_steps(
    answers: Labels, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, resamples: int = _RESAMPLES
) -> AgreementOverSteps:
    """Return each run's mean agreement with the other runs at every step, from answers [run, step, item].

    The bootstrap draws runs; a run that was drawn twice is not compared with itself, so fewer pairs count.
    """
    matrices = [kappa_matrix(answers[:, step]) for step in range(answers.shape[1])]
    draws = rng.integers(len(answers), size=(resamples, len(answers)))
    apart = draws[:, :, None] != draws[:, None, :]
    runs = np.stack([_mean_with_others(matrix, ~np.eye(len(matrix), dtype=bool)) for matrix in matrices], axis=1)
    medians = [
        _median(_mean_with_others(matrix[draws[:, :, None], draws[:, None, :]], apart), axis=1) for matrix in matrices
    ]
    return _over_steps(runs, np.stack(medians), "mean kappa with the other runs", cohort, level)


def _mean_with_others(matrices: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return the mean over the last axis of what is counted and defined; NaN where nothing is."""
    counted = counted & ~np.isnan(matrices)
    counts = counted.sum(axis=-1)
    sums = np.where(counted, matrices, 0).sum(axis=-1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _median(values: Floats, axis: int) -> Floats:
    """Return the median of what is not NaN; NaN where all are."""
    ordered = np.sort(values, axis=axis)  # NaN last
    counts = (~np.isnan(values)).sum(axis=axis, keepdims=True)
    low, high = np.maximum((counts - 1) // 2, 0), np.minimum(counts // 2, values.shape[axis] - 1)
    middle = (np.take_along_axis(ordered, low, axis) + np.take_along_axis(ordered, high, axis)) / 2
    return np.asarray(middle.squeeze(axis), float)


def _over_steps(runs: Floats, medians: Floats, method: str, cohort: Cohort, level: float) -> AgreementOverSteps:
    estimates, band = [], np.full((runs.shape[1], 2), np.nan)
    for step, (of_runs, drawn) in enumerate(zip(runs.T, medians, strict=True)):
        known, sampled = of_runs[~np.isnan(of_runs)], drawn[~np.isnan(drawn)]
        low = high = value = float("nan")
        if len(known):
            value, band[step] = float(np.median(known)), np.quantile(known, [0.25, 0.75])
        if len(sampled):
            low, high = map(float, np.quantile(sampled, [(1 - level) / 2, (1 + level) / 2]))
        estimates.append(Estimate(value, low, high, f"median {method}, bootstrap over runs", level, cohort))
    return AgreementOverSteps(runs, tuple(estimates), band)
