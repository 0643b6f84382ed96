"""The likelihood of brackets under a Weibull distribution, with or without runs that never break through.

log T = Xβ + σ(W - offset), W the least extreme value: P(T > t) = exp(-e^z), z = (log t - Xβ)/σ + offset. With a share
1 - P of runs that never would, P(no onset by t) = (1 - P) + P·exp(-e^z), logit P = Zγ (the mixture-cure model).
Parameters are (β, log σ, γ); gradient and Hessian are exact, and all of it works on arrays of a few hundred runs.
Sources: Kalbfleisch & Prentice 2002, 2.2 and 3.2; Farewell 1982.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BracketLikelihood:
    """The log-likelihood of brackets (low, high]; a run with low = high had its onset exactly then.

    low, high  [run], ≥ 0; high infinite where no onset was seen
    x          [run, coefficient], of log T
    z          [run, coefficient], of logit P; no columns: every run would break through
    offset     log(log 2) makes Xβ the log of the median
    """

    low: Floats
    high: Floats
    x: Floats
    z: Floats
    offset: float = 0.0

    @property
    def size(self) -> int:
        """Return the number of parameters."""
        return int(self.x.shape[1] + 1 + self.z.shape[1])

    def __call__(self, parameters: Floats) -> tuple[float, Floats, Floats]:
        """Return (log-likelihood, gradient [parameter], Hessian [parameter, parameter])."""
        columns = self.x.shape[1]
        beta, sigma = parameters[:columns], float(np.exp(parameters[columns]))
        u, hazard_u = self._standard(self.low, beta, sigma)
        v, hazard_v = self._standard(self.high, beta, sigma)
        eta = self.z @ parameters[columns + 1 :] if self.z.shape[1] else np.full(len(u), np.inf)
        # Where a bracket has no chance left, the value is not finite, and the search goes back.
        with np.errstate(all="ignore"):
            value, first, second = self._runs(u, hazard_u, hazard_v, eta)
            gradient, hessian = self._chain(first, second, u, v, sigma)
        exact = int((self.low == self.high).sum())
        value -= exact * float(parameters[columns]) + float(np.log(self.low[self.low == self.high]).sum())
        gradient[columns] -= exact
        return value, gradient, hessian

    def _standard(self, time: Floats, beta: Floats, sigma: float) -> tuple[Floats, Floats]:
        """Return (z, e^z) of times; at 0 and infinity z is 0, and e^z is 0 and infinite."""
        inner = (time > 0) & np.isfinite(time)
        log_time = np.log(np.where(inner, time, 1.0))
        standard = np.where(inner, (log_time - self.x @ beta) / sigma + self.offset, 0.0)
        # The square of e^300 is still a double; a step that goes there is refused by its likelihood.
        hazard = np.exp(np.minimum(standard, 300.0))
        return standard, np.where(inner, hazard, np.where(time > 0, np.inf, 0.0))

    def _runs(
        self, u: Floats, hazard_u: Floats, hazard_v: Floats, eta: Floats
    ) -> tuple[float, dict[str, Floats], dict[str, Floats]]:
        """Return the sum of log-likelihoods, and every run's derivatives by u, v and eta."""
        exact, right = self.low == self.high, np.isinf(self.high)
        between = ~exact & ~right
        chance = expit(eta)
        zero = np.zeros(len(u))
        gap = np.where(between, hazard_v - hazard_u, 1.0)
        g = np.where(between, 1 / np.expm1(gap), 0.0)
        log_inside = np.where(between, np.log(-np.expm1(-gap)), 0.0)
        b = np.where(between, hazard_v, 0.0)
        a = hazard_u
        bg = np.where(g > 0, b * g, 0.0)
        # Of a run without onset: the chance that it would still break through; 1 where every run would.
        still = np.where(right, expit(eta - np.minimum(a, 1e300)), 0.0)
        everyone = not self.z.shape[1]
        log_chance = zero if everyone else -np.logaddexp(0, -eta)
        log_right = -a if everyone else np.logaddexp(0, eta - a) - np.logaddexp(0, eta)
        value = np.where(right, log_right, log_chance - a + log_inside + np.where(exact, u, 0.0))
        u_first = np.where(right, -a * still, np.where(exact, 1 - a, -a * (1 + g)))
        u_second = np.where(
            right, -a * still + a * a * still * (1 - still), np.where(exact, -a, -a * (1 + g) * (1 + a * g))
        )
        bent = chance * (1 - chance)
        first = {"u": u_first, "v": bg, "eta": np.where(right, still, 1.0) - chance}
        second = {
            "uu": u_second,
            "vv": bg - bg * (bg + b * np.where(g > 0, 1.0, 0.0)),
            "uv": a * bg * (1 + g),
            "ue": np.where(right, -a * still * (1 - still), zero),
            "ee": np.where(right, still * (1 - still), zero) - bent,
        }
        return float(value.sum()), first, second

    def _chain(
        self, first: dict[str, Floats], second: dict[str, Floats], u: Floats, v: Floats, sigma: float
    ) -> tuple[Floats, Floats]:
        columns, size = self.x.shape[1], self.size
        u = np.where((self.low > 0) & np.isfinite(self.low), u - self.offset, 0.0)
        v = np.where((self.high > 0) & np.isfinite(self.high), v - self.offset, 0.0)
        by_u, by_v, by_eta = (np.zeros((len(u), size)) for _ in range(3))
        by_u[:, :columns] = by_v[:, :columns] = -self.x / sigma
        by_u[:, columns], by_v[:, columns] = -u, -v
        by_eta[:, columns + 1 :] = self.z
        gradient = first["u"] @ by_u + first["v"] @ by_v + first["eta"] @ by_eta
        cross = (second["uv"][:, None] * by_u).T @ by_v
        mixed = (second["ue"][:, None] * by_u).T @ by_eta
        hessian = (second["uu"][:, None] * by_u).T @ by_u + (second["vv"][:, None] * by_v).T @ by_v
        hessian += cross + cross.T + mixed + mixed.T + (second["ee"][:, None] * by_eta).T @ by_eta
        slope = (first["u"] + first["v"]) @ self.x / sigma
        hessian[:columns, columns] += slope
        hessian[columns, :columns] += slope
        hessian[columns, columns] += first["u"] @ u + first["v"] @ v
        return gradient, hessian
