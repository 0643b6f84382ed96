"""Attempts: one holder each, and which rows of which attempt stand."""

from pathlib import Path

import pytest

from jobs.claims import FRESH, Attempt, attempts_of, claim, counts
from jobs.errors import Superseded
from jobs.store import open_store


def _attempt(number: int, resumed_step: int) -> Attempt:
    return Attempt(
        run_id="r1-a", attempt=number, pack_id=f"p{number}", resumed_step=resumed_step, resumed_pack="", spec={}
    )


def test_numbers_go_up_and_are_found_again(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", create=True)
    claimed = [claim(store, "r1-a", f"p{n}", (FRESH, ""), {"seeds": {"init": 1}}, after=n) for n in range(3)]
    claim(store, "r1-ab", "p9", (FRESH, ""), {}, after=0)
    assert [attempt.attempt for attempt in claimed] == [1, 2, 3]
    assert attempts_of(store, "r1-a") == claimed


def test_a_claim_that_comes_late_takes_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s", create=True)
    first = claim(store, "r1-a", "p1", (FRESH, ""), {}, after=0)
    with pytest.raises(Superseded, match="attempt 0 was superseded"):
        claim(store, "r1-a", "p2", (FRESH, ""), {}, after=0)
    assert claim(store, "r1-a", "p1", (FRESH, ""), {}, after=0) == first, "the reply was lost, the claim was not"
    assert attempts_of(store, "r1-a") == [first]


def test_a_later_attempt_supersedes_what_follows_its_resume_step() -> None:
    attempts = [_attempt(1, FRESH), _attempt(2, 100), _attempt(3, 50)]
    standing = {
        (step, number) for step in (0, 50, 51, 100, 101) for number in (1, 2, 3) if counts(step, number, attempts)
    }
    # Attempt 2 went on from 100, so all it measured is past 50, where attempt 3 began.
    assert standing == {(0, 1), (50, 1), (0, 2), (50, 2), *((step, 3) for step in (0, 50, 51, 100, 101))}


def test_a_fresh_attempt_supersedes_everything_before_it() -> None:
    attempts = [_attempt(1, FRESH), _attempt(2, FRESH)]
    assert not counts(0, 1, attempts)
    assert counts(0, 2, attempts)
