"""Stop rules: the tables of the design, exactly; and what peeking does."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestrator.estimates.stopping import WidthRule, characteristics, confidence_sequence, fixed_n
from orchestrator.estimates.success import agresti_coull, wilson

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "golden_values.json").read_text())
FOUR = np.array([0.02, 0.1, 0.3, 0.5])


@pytest.mark.parametrize(
    ("half_width", "fixed", "expected", "least", "mean"),
    [
        (0.20, 21, (12, 14, 20, 23), 0.931, 0.971),
        (0.15, 39, (17, 23, 38, 44), 0.948, 0.969),
        (0.10, 93, (28, 45, 87, 103), 0.947, 0.967),
    ],
)
def test_the_table_of_width_rules(half_width: float, fixed: int, expected: object, least: float, mean: float) -> None:
    rule = WidthRule(half_width)
    assert fixed_n(half_width) == fixed
    assert characteristics(rule, FOUR).expected_n == pytest.approx(expected, abs=0.51)
    found = characteristics(rule, np.arange(5, 996) / 1000).coverage
    assert found.min() == pytest.approx(least, abs=1e-3)
    assert found.mean() == pytest.approx(mean, abs=1e-3)


def test_wilson_looked_at_after_every_seed_is_what_the_table_says() -> None:
    rule = WidthRule(0.05, "wilson", 0.95, every=1, least=12, most=500)
    found = characteristics(rule, FOUR)
    assert found.expected_n == pytest.approx([48, 132, 319, 380], abs=1)
    # The design's table rounds to .945 at all four P; exactly it is .979 at P = .02.
    assert found.coverage[1:] == pytest.approx(np.full(3, 0.945), abs=0.012)
    assert found.coverage[0] == pytest.approx(0.979, abs=1e-3)
    assert fixed_n(0.05, "wilson") == pytest.approx(381, abs=1)


@pytest.mark.parametrize("half_width", [0.2, 0.15, 0.1])
def test_wilson_under_a_width_rule_covers_too_little(half_width: float) -> None:
    found = characteristics(WidthRule(half_width, "wilson", 0.95), np.arange(5, 996, 5) / 1000)
    assert 0.85 < found.coverage.min() < 0.92


def test_everything_stops_and_misses_are_counted_once() -> None:
    found = characteristics(WidthRule(0.15, most=40), np.linspace(0.01, 0.99, 21))
    assert found.stops_at.sum(axis=1) == pytest.approx(np.ones(21), abs=1e-9)
    assert found.looks[-1] == 40
    assert found.misses_above == pytest.approx(found.misses_below[::-1], abs=1e-12), "mirror images"
    assert (found.most_seeds(1.0) <= 40).all()
    assert found.most_seeds(0.5)[10] >= found.most_seeds(0.5)[0]


def test_walking_over_counts_is_what_simulation_finds() -> None:
    rule, p, rng = WidthRule(0.2), 0.3, np.random.default_rng(5)
    exact = characteristics(rule, np.array([p]))
    sizes, inside = [], []
    for _ in range(1500):
        draws = np.cumsum(rng.random(200) < p)
        n = rule.next_look(0)
        while not rule.stops(int(draws[n - 1]), n):
            n = rule.next_look(n)
        low, high = rule.interval(int(draws[n - 1]), n)
        sizes.append(n)
        inside.append(low <= p <= high)
    assert np.mean(sizes) == pytest.approx(exact.expected_n[0], abs=4 * np.std(sizes) / 1500**0.5)
    assert np.mean(inside) == pytest.approx(exact.coverage[0], abs=0.03)


def test_looks_go_on_in_steps_from_the_first() -> None:
    rule = WidthRule(0.1, every=8, least=12, most=50)
    looks = [rule.next_look(0)]
    while looks[-1] < 50:
        looks.append(rule.next_look(looks[-1]))
    assert looks == [12, 20, 28, 36, 44, 50]
    assert rule.next_look(15) == 20, "a run more than the batch does not shift the looks"
    assert "half-width 0.1 of agresti-coull 0.96" in rule.id


@pytest.mark.parametrize("wrong", [{"half_width": 0.0}, {"half_width": 0.7}, {"every": 0}, {"least": 30, "most": 20}])
def test_rules_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"half-width|looks"):
        WidthRule(**{"half_width": 0.1, **wrong})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no interval is called 'wald'"):
        WidthRule(0.1, "wald")
    with pytest.raises(ValueError, match="more than 50"):
        fixed_n(0.05, most=50)


def test_reference_values_of_the_confidence_sequence() -> None:
    golden = GOLDEN["bernoulli_cs"]
    assert confidence_sequence(7, 10) == pytest.approx(golden["7/10_uniform_mixture_alpha.05"], abs=1e-8)
    assert confidence_sequence(50, 100) == pytest.approx(golden["50/100_uniform"], abs=1e-8)
    assert confidence_sequence(0, 10) == pytest.approx(golden["0/10_uniform"], abs=1e-8)
    assert confidence_sequence(0, 10)[1] == pytest.approx(1 - (0.05 / 11) ** (1 / 10), abs=1e-12)
    assert confidence_sequence(0, 0) == (0.0, 1.0)


def error_of_peeking(interval: object, every: int, most: int) -> float:
    """Return the exact probability that an interval ever excludes 1/2 if P is 1/2, looked at every so many seeds."""
    going = np.ones(1)
    wrong = 0.0
    for n in range(1, most + 1):
        going = np.convolve(going, [0.5, 0.5])
        if n % every == 0:
            bounds = np.array([interval(k, n) for k in range(n + 1)])  # type: ignore[operator]
            out = (bounds[:, 0] > 0.5) | (bounds[:, 1] < 0.5)
            wrong += float(going[out].sum())
            going = np.where(out, 0.0, going)
    return wrong


def test_free_peeking_ruins_wilson_and_not_the_sequence() -> None:
    assert error_of_peeking(wilson, 5, 100) == pytest.approx(0.235, abs=1e-3)
    assert error_of_peeking(wilson, 1, 100) == pytest.approx(0.36, abs=0.01)
    assert error_of_peeking(confidence_sequence, 5, 100) == pytest.approx(0.014, abs=1e-3)


def test_the_interval_of_the_rule_is_the_interval_that_is_published() -> None:
    assert WidthRule(0.1).interval(3, 20) == agresti_coull(3, 20, 0.96)
