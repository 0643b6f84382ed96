"""Laws of quantiles over scale that do not cross: log θ_q(N) = a_q - α_q log N for several q at once.

All quantiles are fitted together by the sum of their pinball losses (Koenker & Bassett 1978), a linear programme, under
the constraint that a lower quantile's line stays below a higher one's over the whole range of scales that is asked
for (Bondell, Reich & Wang 2010); lines that do not cross at both ends do not cross between them. Quantiles go along
with logs, so the law is that of the scores themselves.

If chance multiplies the loss by log-normal noise of one size at all scales, every quantile has the same exponent, and
a_q = a + σ z_q. So a `spread` (α of the highest minus α of the lowest quantile) away from zero says that chance
itself changes with scale.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array, hstack

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate
from orchestrator.estimates.outcomes import Outcomes, percentile_ends

Floats = NDArray[np.float64]
METHOD = "joint pinball loss without crossing, runs resampled"
_FEW = 36  # below this, q10 and q90 have no finite interval at a single scale (order_statistics.py)


@dataclass(frozen=True, slots=True)
class QuantileLaws:
    """Laws of quantiles.

    q          ascending
    exponents  α of each: θ_q falls as N^-α
    logs       a of each: log θ_q at N = 1
    spread     α of the last minus α of the first
    """

    q: tuple[float, ...]
    exponents: tuple[Estimate, ...]
    logs: tuple[Estimate, ...]
    spread: Estimate
    scale: Floats
    method: str
    level: float
    cohort: Cohort
    unit: str = "run"
    stopping_rule: str = FIXED

    def at(self, scale: Floats) -> Floats:
        """Return the quantiles [q, place]; outside the range that was asked for they may cross."""
        a, alpha = (np.array([part.value for part in parts]) for parts in (self.logs, self.exponents))
        return np.asarray(np.exp(a[:, None] - alpha[:, None] * np.log(scale)), np.float64)


def quantile_laws(
    outcomes: Outcomes,
    rng: np.random.Generator,
    q: Sequence[float] = (0.1, 0.5, 0.9),
    up_to: float | None = None,
    level: float = 0.95,
    resamples: int = 200,
) -> QuantileLaws:
    """Return the laws of these quantiles; they do not cross between the smallest scale and `up_to`.

    `up_to` is the largest scale of the data where it is None, and may lie beyond. Raises ValueError for fewer than two
    scales, scores that are not positive, or quantiles that are not ascending.
    """
    wanted = np.asarray(q, np.float64)
    if len(outcomes.scale) < 2:
        raise ValueError("a law over scale needs two scales")
    if not ((wanted > 0) & (wanted < 1)).all() or (np.diff(wanted) <= 0).any():
        raise ValueError("quantiles are ascending and lie between 0 and 1")
    if any((scores <= 0).any() for scores in outcomes.scores):
        raise ValueError("a score is not positive: the law is one of logs")
    log_x = np.repeat(np.log(outcomes.scale), outcomes.runs)
    log_y = np.log(np.concatenate(outcomes.scores))
    ends = np.array([log_x[0], np.log(max(outcomes.scale[-1], up_to or 0.0))])
    programme = _Programme.of(log_x, log_y, wanted, ends)
    point = programme.solve(np.ones(len(log_y)))
    drawn = np.array([programme.solve(weight) for weight in _weights(outcomes, rng, resamples)])
    thin = outcomes.runs.min() < _FEW and (wanted[0] <= 0.1 or wanted[-1] >= 0.9)
    note = f"{int(outcomes.runs.min())} runs at a scale say little of the outer quantiles there" if thin else ""

    def estimate(value: float, draws: Floats) -> Estimate:
        low, high = np.quantile(draws, percentile_ends(int(outcomes.runs.min()), level))
        return Estimate(float(value), float(low), float(high), METHOD, level, outcomes.cohort, note=note)

    return QuantileLaws(
        q=tuple(float(value) for value in wanted),
        exponents=tuple(estimate(point[i, 1], drawn[:, i, 1]) for i in range(len(wanted))),
        logs=tuple(estimate(point[i, 0], drawn[:, i, 0]) for i in range(len(wanted))),
        spread=estimate(point[-1, 1] - point[0, 1], drawn[:, -1, 1] - drawn[:, 0, 1]),
        scale=outcomes.scale,
        method=METHOD,
        level=level,
        cohort=outcomes.cohort,
    )


def lognormal_logs(log_median: float, sigma: float, q: Floats) -> Floats:
    """Return a_q of log-normal seed noise of size sigma: log_median + σ z_q."""
    from scipy.special import ndtri

    return np.asarray(log_median + sigma * ndtri(q), np.float64)


@dataclass(frozen=True, slots=True)
class _Programme:
    """The linear programme: (level at `centre`, slope) per quantile, and over- and undershoot per run and quantile."""

    q: Floats
    centre: float
    log_y: Floats
    equal: csr_array
    apart: csr_array

    @classmethod
    def of(cls, log_x: Floats, log_y: Floats, q: Floats, ends: Floats) -> "_Programme":
        """Return the constraints, which do not depend on the weights of the runs."""
        runs, lines = len(log_x), len(q)
        # A centred axis: at N of 1e9 level and slope would be all but collinear.
        centre = float(log_x.mean())
        row = np.arange(runs * lines)
        line, z = row // runs, np.tile(log_x - centre, lines)
        at = coo_array(
            (np.concatenate([np.ones(len(row)), -z]), (np.tile(row, 2), np.concatenate([2 * line, 2 * line + 1]))),
            shape=(len(row), 2 * lines),
        )
        slack = coo_array((np.ones(len(row)), (row, row)))
        pairs = [(i, end) for i in range(lines - 1) for end in ends - centre]
        apart = np.zeros((len(pairs), 2 * (lines + len(row))))
        for number, (i, end) in enumerate(pairs):
            apart[number, 2 * i : 2 * i + 4] = (1.0, -end, -1.0, end)
        return cls(q, centre, log_y, csr_array(hstack([at, slack, -slack])), csr_array(apart))

    def solve(self, weight: Floats) -> Floats:
        """Return [quantile, 2]: log θ at N = 1, and α."""
        lines = len(self.q)
        cost = np.concatenate([np.zeros(2 * lines), *(q * weight for q in self.q), *((1 - q) * weight for q in self.q)])
        bounds = [(None, None)] * (2 * lines) + [(0, None)] * (2 * lines * len(weight))
        found = linprog(
            cost,
            A_ub=self.apart if lines > 1 else None,
            b_ub=np.zeros(self.apart.shape[0]) if lines > 1 else None,
            A_eq=self.equal,
            b_eq=np.tile(self.log_y, lines),
            bounds=bounds,
            method="highs",
        )
        if not found.success:
            raise ValueError(f"no quantile law fits these scores: {found.message}")
        level, slope = found.x[: 2 * lines].reshape(lines, 2).T
        return np.stack([level + slope * self.centre, slope], axis=1)


def _weights(outcomes: Outcomes, rng: np.random.Generator, resamples: int) -> Floats:
    """Return [resample, run]: how often each run was drawn within its scale."""
    parts = [rng.multinomial(n, np.full(n, 1 / n), size=resamples) for n in outcomes.runs.tolist()]
    return np.concatenate(parts, axis=1).astype(np.float64)
