"""Shares of corpora: whole batches, never far from what is owed, the same wherever one begins."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.scalar import Curve
from jobs.text.mixture import Mixture


def test_shares_by_hand() -> None:
    taken = Mixture((3.0, 1.0), 2)
    assert [taken.taken(step).tolist() for step in range(5)] == [[0, 0], [2, 0], [3, 1], [5, 1], [6, 2]]


def test_a_weight_may_be_a_function_of_the_step() -> None:
    taken = Mixture((Curve(piecewise=((0, 1.0), (4, 0.0))), Curve(piecewise=((0, 0.0), (4, 1.0)))), 8)
    assert [taken.taken(step).tolist() for step in (4, 5, 6)] == [[32, 0], [32, 8], [32, 16]]


@given(weights=st.lists(st.floats(0.0, 10.0), min_size=2, max_size=6), size=st.integers(1, 17))
@settings(max_examples=60, deadline=None)
def test_every_batch_is_whole_and_no_corpus_is_two_samples_away(weights: list[float], size: int) -> None:
    weights[0] += 0.5
    mixture = Mixture(tuple(weights), size)
    shares = np.array(weights) / sum(weights)
    before = mixture.taken(0)
    for step in range(1, 60):
        after = mixture.taken(step)
        assert (after >= before).all()
        assert (after - before).sum() == size
        assert (np.abs(after - shares * step * size) < 2).all()
        before = after


def test_what_was_asked_first_changes_nothing() -> None:
    late, early = Mixture((1.0, 2.0, 4.0), 5), Mixture((1.0, 2.0, 4.0), 5)
    far = late.taken(50).tolist()
    assert [early.taken(step).tolist() for step in range(51)][50] == far
    assert late.taken(7).tolist() == early.taken(7).tolist()


def test_a_step_without_any_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="all weights are 0 at step 0"):
        Mixture((0.0, 0.0), 4).taken(1)
