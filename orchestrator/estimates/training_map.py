"""The training map: through which latent states runs go, by which metrics, and which states cost time.

A map is drawn from the most probable path of every run: states, and the moves that were seen. A detour (Hu, Chen,
Saphra & Cho 2023) is a state that some runs visit and others do not, and whose visitors converge later; as every such
state is a test, p values are adjusted by Holm. A run that never converged counts as converged at its end, as there.
States have no names of their own: renaming them changes the map's names and nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from orchestrator.estimates.comparisons import holm
from orchestrator.estimates.estimate import FIXED, Cohort
from orchestrator.estimates.hidden_states import HiddenStates, Padded
from orchestrator.estimates.latent_chain import Path
from orchestrator.estimates.outliers import Outliers, path_distances, path_outliers

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StateVisits:
    """One state: who comes there, for how long, and what that has to do with when runs converge.

    visitors          how many runs visit it, and of these `successful_visitors` are successes
    correlation       of "visits it" with the time of convergence, over runs; NaN where all or none do
    p, adjusted_p     two-sided, of no correlation; adjusted over the states that some runs visit (Holm)
    time_of_visitors  mean time of convergence of those who visit, and of those who do not (NaN where none)
    steps             mean steps that visitors spend there
    is_detour         some but not all visit, some of them successes, and they converge later, adjusted p < α
    """

    state: int
    visitors: int
    successful_visitors: int
    correlation: float
    p: float
    adjusted_p: float
    time_of_visitors: float
    time_of_others: float
    steps: float
    is_detour: bool


@dataclass(frozen=True, slots=True)
class Move:
    """A transition that was seen: how many runs make it, and the steps at which they first do (mean, deviation)."""

    source: int
    target: int
    runs: int
    step: float
    spread: float


@dataclass(frozen=True, slots=True)
class Driver:
    """A metric that moves runs from one state to another.

    weight  mean derivative of log P(target) - log P(source), of the observation at the move, by this metric
    change  mean of the metric in the target minus that in the source
    """

    metric: str
    weight: float
    change: float


@dataclass(frozen=True, slots=True)
class TrainingMap:
    """States and moves of a cohort.

    sequences_of_states  the visited states in order → how many runs; the commonest first
    unusual              runs whose path is far from the others (robust z)
    explained            R² of the time of convergence on the visited states, over runs; NaN where nothing varies
    """

    states: tuple[StateVisits, ...]
    moves: tuple[Move, ...]
    sequences_of_states: tuple[tuple[tuple[int, ...], int], ...]
    unusual: Outliers
    explained: float
    cohort: Cohort
    method: str = "most probable paths, Hu et al. 2023"
    unit: str = "run"
    stopping_rule: str = FIXED

    @property
    def detours(self) -> tuple[int, ...]:
        """Return the detour states."""
        return tuple(visits.state for visits in self.states if visits.is_detour)


def training_map(
    paths: Sequence[Path],
    states: int,
    times: Floats,
    is_success: NDArray[np.bool_],
    cohort: Cohort,
    alpha: float = 0.05,
) -> TrainingMap:
    """Return the map of paths, one per run.

    times       [run]: when it converged, in any unit; NaN where it never did: the largest time, or its own end
    is_success  [run]
    """
    if not len(paths) == len(times) == len(is_success):
        raise ValueError(f"{len(paths)} paths, {len(times)} times and {len(is_success)} outcomes are not of one cohort")
    visited = np.array([[state in path for state in range(states)] for path in map(set, (p.tolist() for p in paths))])
    known = np.where(np.isnan(times), np.nanmax(times) if not np.isnan(times).all() else 0.0, times)
    correlations = [_correlation(column.astype(float), known) for column in visited.T]
    p_values = [correlation_p(r, len(paths)) for r in correlations]
    visits = tuple(
        _visits(state, visited[:, state], paths, known, is_success, (correlations[state], p_values[state], a), alpha)
        for state, a in enumerate(holm(p_values).tolist())
    )
    ways = Counter(_way(path) for path in paths)
    ordered = sorted(ways.items(), key=lambda item: (-item[1], item[0]))
    unusual = path_outliers(path_distances(list(paths)), cohort)
    return TrainingMap(visits, _moves(paths), tuple(ordered), unusual, _explained(visited, known), cohort)


def correlation_p(r: float, n: int) -> float:
    """Return the two-sided p of a correlation over n runs, by Student's t with n - 2 degrees of freedom."""
    if np.isnan(r) or n < 3:
        return nan
    if abs(r) >= 1:
        return 0.0
    t = abs(r) * sqrt((n - 2) / (1 - r * r))
    return 2 * float(stdtr(n - 2, -t))


def drivers(
    model: HiddenStates, sequences: Padded, metrics: Sequence[str], source: int, target: int
) -> tuple[Driver, ...]:
    """Return the metrics that drive the moves from source to target, by the size of their weight.

    The log odds of the two states given one observation are quadratic in it; their slope in a metric, at the step at
    which runs arrive, says how much that metric speaks for having moved. Empty where no run makes the move.
    """
    arrived = [
        sequences.values[step, run]
        for run, path in enumerate(model.paths(sequences))
        for step in np.flatnonzero((path[:-1] == source) & (path[1:] == target)) + 1
    ]
    if not arrived:
        return ()
    x = np.array(arrived)
    slope = (model.means[target] - x) / model.variances[target] - (model.means[source] - x) / model.variances[source]
    weights = slope.mean(axis=0)
    change = model.means[target] - model.means[source]
    found = [Driver(name, float(w), float(c)) for name, w, c in zip(metrics, weights, change, strict=True)]
    return tuple(sorted(found, key=lambda driver: (-abs(driver.weight), driver.metric)))


def _visits(
    state: int,
    here: NDArray[np.bool_],
    paths: Sequence[Path],
    times: Floats,
    is_success: NDArray[np.bool_],
    tested: tuple[float, float, float],
    alpha: float,
) -> StateVisits:
    r, p, adjusted = tested
    stays = [int((path == state).sum()) for path in paths]
    successes = int((here & is_success).sum())
    return StateVisits(
        state=state,
        visitors=int(here.sum()),
        successful_visitors=successes,
        correlation=r,
        p=p,
        adjusted_p=adjusted,
        time_of_visitors=_mean(times[here]),
        time_of_others=_mean(times[~here]),
        steps=sum(stays) / int(here.sum()) if here.any() else 0.0,
        is_detour=bool(successes and not here.all() and r > 0 and adjusted < alpha),
    )


def _correlation(one: Floats, other: Floats) -> float:
    """Return Pearson's correlation; NaN where one of them does not vary."""
    one, other = one - one.mean(), other - other.mean()
    size = sqrt(float((one**2).sum()) * float((other**2).sum()))
    return float(np.clip((one * other).sum() / size, -1, 1)) if size > 0 else nan


def _way(path: Path) -> tuple[int, ...]:
    """Return the states of a path in order, each stay once."""
    kept = np.concatenate([[True], path[1:] != path[:-1]])
    return tuple(int(state) for state in path[kept])


def _moves(paths: Sequence[Path]) -> tuple[Move, ...]:
    first: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        seen: dict[tuple[int, int], int] = {}
        for step in (np.flatnonzero(path[1:] != path[:-1]) + 1).tolist():
            seen.setdefault((int(path[step - 1]), int(path[step])), step)
        for move, step in seen.items():
            first.setdefault(move, []).append(step)
    return tuple(
        Move(*move, len(steps), float(np.mean(steps)), float(np.std(steps, ddof=1)) if len(steps) > 1 else 0.0)
        for move, steps in sorted(first.items())
    )


def _explained(visited: NDArray[np.bool_], times: Floats) -> float:
    """Return R² of the least-squares fit of the times on which states were visited."""
    off = times - times.mean()
    varies = visited[:, visited.any(axis=0) & ~visited.all(axis=0)].astype(float)
    if not varies.shape[1] or not off.any():
        return nan
    centred = varies - varies.mean(axis=0)
    left = off - centred @ np.linalg.lstsq(centred, off, rcond=None)[0]
    return 1 - float((left**2).sum() / (off**2).sum())


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else nan
