"""Total variation and commitment on curves made by hand."""

from math import inf, nan

import numpy as np
import pytest

from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.instability import commitment, instability


def cohort(n: int) -> Cohort:
    return Cohort.of([f"r{i}" for i in range(n)], finished=n, diverged=0)


def test_total_variation_by_hand() -> None:
    steps = np.arange(0, 100, 10)
    values = np.array([np.linspace(0, 1, 10), np.arange(10) % 2, np.full(10, 0.4)])
    found = instability(steps, values, cohort(3))
    assert found.total == pytest.approx([1, 9, 0])
    assert found.per_interval == pytest.approx([1 / 9, 1, 0])
    assert found.net == pytest.approx([0, 8, 0]), "a run that only rises does not waver"
    # t interval of (0, 8, 0): mean 8/3, sd 4.6188, t(.975, 2) = 4.302653.
    assert found.mean_net.value == pytest.approx(8 / 3)
    assert found.mean_net.high == pytest.approx(8 / 3 + 4.302652730 * 4.618802154 / np.sqrt(3), rel=1e-8)
    assert instability(steps, values[:1], cohort(1)).mean_total.high == inf


def test_it_depends_on_the_grid_which_is_why_the_grid_is_kept() -> None:
    wave = (np.arange(9) % 2).astype(float)[None, :]
    fine = instability(np.arange(9), wave, cohort(1))
    coarse = instability(np.arange(9)[::2], wave[:, ::2], cohort(1))
    assert (fine.total[0], coarse.total[0]) == (8, 0)
    assert list(coarse.steps) == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="different steps"):
        instability(np.arange(3), np.array([[0.0, nan, 1.0]]), cohort(1))
    with pytest.raises(ValueError, match="ascend"):
        instability(np.array([0, 2, 1]), np.zeros((1, 3)), cohort(1))


def test_commitment_by_hand() -> None:
    steps = np.arange(0, 1001, 100)
    early, late = np.zeros(5), np.ones(6)
    tree = np.stack(
        [
            np.append(early, late),  # follows the tree throughout the last half
            np.append(early, 1 - late),
            np.append(early, [1, 1, 0.9, 1, 1, 1]),  # leaves it once
            np.append(early, [0, 1, 0, 1, 0, 1]),
        ]
    )
    found = commitment(steps, {"tree": tree, "line": 1 - tree}, 0.05, 0.2, cohort(4))
    assert found.rules == ("tree", "line", "uncommitted", "uncommitted")
    assert list(found.unstable) == [False, False, False, True]
    assert found.since == 500
    assert {name: share.value for name, share in found.shares.items()} == {
        "line": 0.25,
        "tree": 0.25,
        "uncommitted": 0.5,
    }
    assert found.shares["tree"].low < 0.25 < found.shares["tree"].high
    lenient = commitment(steps, {"tree": tree, "line": 1 - tree}, 0.1, 0.2, cohort(4))
    assert lenient.rules[2] == "tree"
    whole = commitment(steps, {"tree": tree, "line": 1 - tree}, 0.05, 0.2, cohort(4), last=1)
    assert whole.rules[:2] == ("uncommitted", "line"), "which part counts is part of the claim"


def test_commitment_that_makes_no_sense_is_refused() -> None:
    steps, ones = np.arange(4), np.ones((2, 4))
    with pytest.raises(ValueError, match="exclude"):
        commitment(steps, {"a": ones, "b": ones}, 0.1, 0.1, cohort(2))
    with pytest.raises(ValueError, match="tolerance"):
        commitment(steps, {"a": ones}, 0.5, 0.1, cohort(2))
