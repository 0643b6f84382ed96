"""When there are enough seeds at one condition: a rule, and exactly what the rule does.

A width rule looks after every few seeds and stops when the interval is narrow enough. Looking is not free: Wilson's
95 % interval under this rule covers as little as 85 %. Agresti-Coull's at a nominal 96 % covers 95 % up to two points
at every P, for at most a tenth more seeds than a fixed number. Nobody needs to believe that: `characteristics` walks
over all (n, k) and gives coverage and expected number of seeds of any rule, exactly, before anything is launched.
Who looks whenever he likes needs `confidence_sequence`: it holds at all times at once and costs 2 to 3.6 times as many.
Sources: Agresti & Coull 1998; Chen & Chen 2013 (exact group sequential designs); Robbins 1970 and Howard, Ramdas,
McAuliffe & Sekhon 2021 (mixtures).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln, xlog1py, xlogy

from orchestrator.estimates.success import METHODS, Interval

Floats = NDArray[np.float64]
MODEST_LEVEL = 0.96  # nominal, so that 95 % is covered after stopping
_FORGOTTEN = 1e-12  # probability left among rules that go on
_HALVINGS = 60


@dataclass(frozen=True, slots=True)
class WidthRule:
    """Stop when the interval's half-width is at most `half_width`.

    method, level  the interval that is looked at, and published
    every, least   look after every so many seeds, first after `least`
    most           stop at this many whatever the width
    """

    half_width: float
    method: str = "agresti-coull"
    level: float = MODEST_LEVEL
    every: int = 4
    least: int = 12
    most: int = 2000

    def __post_init__(self) -> None:
        if not 0 < self.half_width < 0.5:
            raise ValueError(f"a half-width lies between 0 and 0.5, not at {self.half_width}")
        if self.method not in METHODS:
            raise ValueError(f"no interval is called {self.method!r}; there are {', '.join(METHODS)}")
        if self.every < 1 or not 1 <= self.least <= self.most:
            raise ValueError("a rule looks after at least one seed, and its first look is not after its last")

    @property
    def id(self) -> str:
        """Return the rule's name, as it stands beside an estimate."""
        return (
            f"stop at half-width {self.half_width:g} of {self.method} {self.level:g}, "
            f"looked at every {self.every} from {self.least}, at most {self.most}"
        )

    def interval(self, k: int, n: int) -> Interval:
        """Return the interval that is published after stopping with k successes of n."""
        return METHODS[self.method](k, n, self.level)

    def stops(self, k: int, n: int) -> bool:
        """Return whether k successes of n known outcomes are enough."""
        low, high = self.interval(k, n)
        return n >= self.most or (n >= self.least and (high - low) / 2 <= self.half_width)

    def next_look(self, n: int) -> int:
        """Return after how many seeds the rule looks next, n being there."""
        ahead = self.least if n < self.least else n + self.every - (n - self.least) % self.every
        return min(ahead, self.most)


@dataclass(frozen=True, slots=True)
class Characteristics:
    """What a rule does if P is each of `p`, exactly.

    misses_above   [p], probability that the interval ends below P; misses_below: that it begins above P
    expected_n     [p], mean number of seeds
    stops_at       [p, look], probability of stopping at the n of that look
    looks          [look], the numbers of seeds at which the rule looks
    """

    p: Floats
    misses_above: Floats
    misses_below: Floats
    expected_n: Floats
    stops_at: Floats
    looks: NDArray[np.int64]

    @property
    def coverage(self) -> Floats:
        """Return [p]: the probability that the published interval holds P."""
        return 1 - self.misses_above - self.misses_below

    def most_seeds(self, probability: float = 0.95) -> NDArray[np.int64]:
        """Return [p]: the number of seeds that is not exceeded with this probability."""
        reached = np.cumsum(self.stops_at, axis=1) >= probability - 1e-9
        return np.asarray(self.looks[reached.argmax(axis=1)])


def characteristics(rule: WidthRule, p: Floats) -> Characteristics:
    """Return what the rule does at each P, by walking over all (n, k) (dynamic programming; no simulation)."""
    going = np.ones((len(p), 1))
    above, below, looks, stops = np.zeros(len(p)), np.zeros(len(p)), [], []
    n = 0
    while n < rule.most and going.sum() > _FORGOTTEN:
        step = rule.next_look(n) - n
        going, n = _more(going, p, step), n + step
        bounds = np.array([rule.interval(k, n) for k in range(n + 1)])
        halt = np.array([rule.stops(k, n) for k in range(n + 1)])
        stopped = going * halt
        above += (stopped * (bounds[:, 1] < p[:, None])).sum(axis=1)
        below += (stopped * (bounds[:, 0] > p[:, None])).sum(axis=1)
        looks.append(n)
        stops.append(stopped.sum(axis=1))
        going = going * ~halt
    shares, places = np.stack(stops, axis=1), np.array(looks)
    return Characteristics(p, above, below, shares @ places, shares, places)


def fixed_n(half_width: float, method: str = "agresti-coull", level: float = 0.95, most: int = 100_000) -> int:
    """Return the least number of seeds whose interval is no wider than this at every k.

    Raises ValueError where more than `most` would be needed.
    """
    for n in range(1, most + 1):
        # The interval is widest in the middle: one k decides.
        low, high = METHODS[method](n // 2, n, level)
        if (high - low) / 2 <= half_width:
            return n
    raise ValueError(f"a half-width of {half_width} needs more than {most} seeds")


def confidence_sequence(k: int, n: int, level: float = 0.95, a: float = 1.0, b: float = 1.0) -> Interval:
    """Return the interval that holds P at all n at once with probability `level`, however one peeks and stops.

    {p : log B(k + a, n - k + b) - log B(a, b) - k log p - (n - k) log(1 - p) < log 1/(1 - level)}, a mixture over
    Beta(a, b). A prior at 1/2 such as (3, 3) is narrower there.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} successes of {n} runs")
    if n == 0:
        return 0.0, 1.0
    allowed = -np.log(1 - level)
    mixture = betaln(k + a, n - k + b) - betaln(a, b)

    def refuted(p: float) -> bool:
        return bool(mixture - xlogy(k, p) - xlog1py(n - k, -p) >= allowed)

    return _boundary(0.0, k / n, refuted), _boundary(1.0, k / n, refuted)


def _boundary(outer: float, inner: float, refuted: Callable[[float], bool]) -> float:
    if not refuted(outer):
        return outer
    for _ in range(_HALVINGS):
        middle = (outer + inner) / 2
        outer, inner = (middle, inner) if refuted(middle) else (outer, middle)
    return inner


def _more(going: Floats, p: Floats, seeds: int) -> Floats:
    """Return [p, k] after `seeds` more seeds."""
    from scipy.stats import binom  # 50 MB and a second: readers of a store do without

    chances = binom.pmf(np.arange(seeds + 1), seeds, p[:, None])
    width = going.shape[1]
    after = np.zeros((len(p), width + seeds))
    for successes in range(seeds + 1):
        after[:, successes : successes + width] += chances[:, successes, None] * going
    return after
