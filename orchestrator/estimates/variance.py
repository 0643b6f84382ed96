"""How much of the spread of a score is initialisation, how much data order, and what is left.

The model is y = mean + a_init + b_data + rest, with one run per cell of init × data; cells may be missing. Some cells
may hold repeated runs of the same seeds: they split the rest into interaction and nondeterminism. Each factor is
reduced to independent normal terms u_i with variance σ²_rest + λ_i σ²_factor (Seely & El-Bassiouni 1983), so that the
F tests and the intervals of variance ratios are exact whatever cells are missing; with a full table these are the
usual mean squares. Components are Henderson's method III: with a full table ANOVA = REML wherever no component is
negative. Shares have generalised pivotal intervals (Weerahandi 1993). Raw components may be negative and are kept.

Below about 25 runs no share is known to any use: with true shares of ⅓ each, the estimate of one ranges over [0, .79]
at 3 × 3 runs (5 to 95 %) and over [.01, .64] at 5 × 5.
"""

from dataclasses import dataclass
from math import inf, isnan, nan

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import fdtrc, fdtri

from orchestrator.estimates.estimate import FIXED, Cohort, Estimate

Floats = NDArray[np.float64]
FEWEST_FOR_SHARES = 25
_DRAWS = 10_000
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class FTest:
    """An exact F test of "this component is zero"."""

    statistic: float
    df: int
    df_against: int
    p: float


@dataclass(frozen=True, slots=True)
class Component:
    """One source of variance.

    raw    the estimate, negative where chance made it so; `value` is at least 0
    share  of the sum of all components
    ratio  to the variance of what it is tested against, exact; None for what is tested against nothing
    """

    name: str
    raw: float
    value: float
    share: Estimate
    ratio: Estimate | None
    test: FTest | None


@dataclass(frozen=True, slots=True)
class VarianceComponents:
    """The components of a score's variance over runs; `caution` is empty where there is none."""

    components: tuple[Component, ...]
    mean: float
    runs: int
    cohort: Cohort
    method: str
    level: float
    caution: str
    unit: str = "run"
    stopping_rule: str = FIXED

    def __getitem__(self, name: str) -> Component:
        return next(part for part in self.components if part.name == name)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the table of variances: terms u_i² with expectation `rest` + λ_i · component."""

    squares: Floats
    weights: Floats

    @property
    def df(self) -> int:
        """Return how many terms there are."""
        return len(self.squares)

    def statistic(self, rest: float, ratio: float = 0.0) -> float:
        """Return the F statistic of "the component is `ratio` times the rest"."""
        top = float(np.mean(self.squares / (1 + ratio * self.weights)))
        return top / rest if rest > 0 else (inf if top > 0 else nan)

    def component(self, rest: float) -> float:
        """Return the unbiased estimate of the component."""
        return float((self.squares.sum() - self.df * rest) / self.weights.sum())

    def pivots(self, rest: Floats, chi2: Floats) -> Floats:
        """Return [draw]: the component g >= 0 that solves Σ u²/(rest + λ g) = chi2, or 0."""
        if np.ptp(self.weights) < 1e-9 * self.weights.max():
            return np.asarray(np.maximum((self.squares.sum() / chi2 - rest) / self.weights.mean(), 0), float)
        low, high = np.zeros_like(rest), (self.squares / self.weights).sum() / chi2
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            above = (self.squares / (rest[:, None] + np.outer(middle, self.weights))).sum(axis=1) > chi2
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        return np.asarray(high, float)


def crossed(
    values: Floats, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, draws: int = _DRAWS
) -> VarianceComponents:
    """Return init, data and rest (or interaction and nondeterminism) from scores [init, data] or [init, data, repeat].

    NaN is a run that is not there. Where every cell has the same number of repeats, cells enter by their means;
    else by their first run, and repeats tell nondeterminism alone. Raises ValueError below 2 × 2 cells, or where too
    few are left to tell the factors from the rest.
    """
    table = np.asarray(values, float)
    table = table[..., None] if table.ndim == 2 else table
    cells, repeats, within, df_within = _cells(table)
    init, data = np.nonzero(~np.isnan(cells))
    y = cells[init, data]
    lines = {"init": _reduced(y, init, data), "data": _reduced(y, data, init)}
    residual, df = _residual(y, [init, data])
    if df < 1 or any(line.df < 1 for line in lines.values()):
        raise ValueError(f"{len(y)} cells of {cells.shape[0]} x {cells.shape[1]} do not tell init, data and rest apart")
    pivot_rest = residual / rng.chisquare(df, draws)
    pivots = {name: line.pivots(pivot_rest, rng.chisquare(line.df, draws)) for name, line in lines.items()}
    rest = residual / df
    raw = {name: line.component(rest) for name, line in lines.items()}
    tests = {name: _test(line.statistic(rest), line.df, df) for name, line in lines.items()}
    if df_within:
        noise = within / df_within
        pivot_noise = within / rng.chisquare(df_within, draws)
        raw |= {"interaction": rest - noise / repeats, "nondeterminism": noise}
        pivots |= {"interaction": np.maximum(pivot_rest - pivot_noise / repeats, 0), "nondeterminism": pivot_noise}
        statistic = rest / (noise / repeats) if noise > 0 else inf
        tests["interaction"] = _test(statistic, df, df_within)
    else:
        raw["rest"], pivots["rest"] = rest, pivot_rest
    ratios = {name: _ratio(line, rest, df, cohort, level) for name, line in lines.items()}
    method = "crossed ANOVA, exact F" + (", missing cells by method III" if len(y) < cells.size else "")
    runs = int((~np.isnan(table)).sum())
    parts = _components(raw, pivots, ratios, tests, cohort, level)
    return VarianceComponents(parts, float(np.mean(y)), runs, cohort, method, level, _caution(len(y), df_within > 0))


def one_way(
    values: Floats, cohort: Cohort, rng: np.random.Generator, level: float = 0.95, draws: int = _DRAWS
) -> VarianceComponents:
    """Return `between` and `within` groups from scores [group, member]; NaN where a group has fewer members.

    The share of `between` is the ICC(1), with its exact interval whatever the sizes of the groups.
    """
    table = np.asarray(values, float)
    group, member = np.nonzero(~np.isnan(table))
    y = table[group, member]
    line = _reduced(y, group, np.zeros_like(group))
    residual, df = _residual(y, [group])
    if df < 1 or line.df < 1:
        raise ValueError(f"{len(y)} runs in {len(np.unique(group))} groups: there must be two groups, and one of two")
    rest = residual / df
    pivot_rest = residual / rng.chisquare(df, draws)
    pivots = {"between": line.pivots(pivot_rest, rng.chisquare(line.df, draws)), "within": pivot_rest}
    raw = {"between": line.component(rest), "within": rest}
    ratio = _ratio(line, rest, df, cohort, level)
    tests = {"between": _test(line.statistic(rest), line.df, df)}
    between, inside = _components(raw, pivots, {"between": ratio}, tests, cohort, level)
    low, high = (bound / (1 + bound) if bound < inf else 1.0 for bound in (max(ratio.low, 0), max(ratio.high, 0)))
    share = Estimate(between.share.value, low, high, "exact F", level, cohort)
    rest_share = Estimate(inside.share.value, 1 - high, 1 - low, "exact F", level, cohort)
    parts = (
        Component("between", between.raw, between.value, share, ratio, between.test),
        Component("within", inside.raw, inside.value, rest_share, None, None),
    )
    few = "" if line.df >= 5 else f"{line.df + 1} groups tell little of the variance between them"
    return VarianceComponents(parts, float(np.mean(y)), len(y), cohort, "one-way ANOVA, exact F", level, few)


def _cells(table: Floats) -> tuple[Floats, int, float, int]:
    """Return one value per cell [init, data], of how many runs each is the mean, and SS and df within cells."""
    there = ~np.isnan(table)
    counts = there.sum(axis=2)
    filled = np.where(there, table, 0)
    means = filled.sum(axis=2) / np.where(counts, counts, 1)
    within = float(np.where(there, (table - means[..., None]) ** 2, 0).sum())
    df = int((counts - 1)[counts > 0].sum())
    sizes = np.unique(counts[counts > 0])
    if len(sizes) == 1:
        return np.where(counts > 0, means, nan), int(sizes[0]), within, df
    first = np.take_along_axis(table, there.argmax(axis=2)[..., None], axis=2)[..., 0]
    return first, 1, within, df


def _design(codes: NDArray[np.int64]) -> Floats:
    return np.asarray(codes[:, None] == np.unique(codes), float)


def _reduced(y: Floats, factor: NDArray[np.int64], other: NDArray[np.int64]) -> Line:
    """Return what is left of `factor` after fitting `other` as fixed effects."""
    nuisance, effects = _design(other), _design(factor)
    cleared = effects - nuisance @ np.linalg.lstsq(nuisance, effects, rcond=None)[0]
    weights, axes = np.linalg.eigh(cleared.T @ cleared)
    kept = weights > 1e-9 * max(weights.max(), 1)
    projected = axes[:, kept].T @ (cleared.T @ y)
    squares = projected**2 / weights[kept]
    return Line(np.where(squares > _rounding(y), squares, 0.0), weights[kept])


def _residual(y: Floats, factors: list[NDArray[np.int64]]) -> tuple[float, int]:
    """Return sum of squares and degrees of freedom left by additive fixed effects."""
    design = np.concatenate([_design(codes) for codes in factors], axis=1)
    fitted, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    left = float(((y - design @ fitted) ** 2).sum())
    return (left if left > _rounding(y) else 0.0), len(y) - int(rank)


def _rounding(y: Floats) -> float:
    """Return below which a sum of squares is nothing: ratios to it would be noise."""
    return 1e-24 * float((y**2).sum())


def _test(statistic: float, df: int, df_against: int) -> FTest:
    p = nan if isnan(statistic) else float(fdtrc(df, df_against, statistic)) if statistic < inf else 0.0
    return FTest(statistic, df, df_against, p)


def _ratio(line: Line, rest: float, df: int, cohort: Cohort, level: float) -> Estimate:
    """Return component / rest with its exact interval: the ratios that an F test does not reject."""
    tail = (1 - level) / 2
    low, high = (_solve(line, rest, float(fdtri(line.df, df, q))) for q in (1 - tail, tail))
    value = line.component(rest) / rest if rest > 0 else inf if line.squares.sum() > 0 else nan
    return Estimate(value, low, high, "exact F", level, cohort)


def _solve(line: Line, rest: float, quantile: float) -> float:
    """Return the ratio at which the F statistic is `quantile`; may be negative, and infinite without rest."""
    if rest <= 0:
        return inf
    edge = -1 / line.weights.max()
    if np.ptp(line.weights) < 1e-9 * line.weights.max():
        return float((line.statistic(rest) / quantile - 1) / line.weights.mean())
    if line.statistic(rest) <= quantile:
        return float(brentq(lambda ratio: line.statistic(rest, ratio) - quantile, edge * (1 - 1e-9), 0.0))
    top = line.statistic(rest) / quantile / line.weights.min()
    return float(brentq(lambda ratio: line.statistic(rest, ratio) - quantile, 0.0, top))


def _components(
    raw: dict[str, float],
    pivots: dict[str, Floats],
    ratios: dict[str, Estimate],
    tests: dict[str, FTest],
    cohort: Cohort,
    level: float,
) -> tuple[Component, ...]:
    values = {name: max(number, 0.0) for name, number in raw.items()}
    total, totals = sum(values.values()), np.sum(list(pivots.values()), axis=0)
    tail = (1 - level) / 2
    parts = []
    for name, value in values.items():
        # All runs equal: there is no variance to share out.
        low, high = np.quantile(pivots[name] / totals, [tail, 1 - tail]) if total > 0 else (0.0, 1.0)
        share = Estimate(
            value / total if total > 0 else nan, float(low), float(high), "generalised pivotal", level, cohort
        )
        parts.append(Component(name, raw[name], value, share, ratios.get(name), tests.get(name)))
    return tuple(parts)


def _caution(cells: int, is_split: bool) -> str:
    said = []
    if cells < FEWEST_FOR_SHARES:
        said.append(
            f"{cells} cells: below about {FEWEST_FOR_SHARES} only whether a factor matters or does not can be told"
            " (its F test), not its share"
        )
    if not is_split:
        said.append("without repeated runs of the same seeds the rest is interaction and nondeterminism together")
    return "; ".join(said)
