"""Schedules: the published one, the unions, and that both ends are always in."""

import pytest
from pydantic import ValidationError

from jobs.schedule import Every, Schedule, steps_of
from jobs.spec import Spec


class _Holder(Spec):
    at: Schedule


def test_pythia_has_the_154_published_steps() -> None:
    steps = steps_of("pythia", 143_000)
    assert len(steps) == 154
    assert steps[:11] == (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    assert steps[11:13] == (1000, 2000)
    assert steps[-1] == 143_000


@pytest.mark.parametrize(
    ("written", "last", "expected"),
    [
        ({"every": 40}, 100, (0, 40, 80, 100)),
        ("log2", 10, (0, 1, 2, 4, 8, 10)),
        ([3, 7], 9, (0, 3, 7, 9)),
        ([50, {"every": 4}], 10, (0, 4, 8, 10)),
        ([], 5, (0, 5)),
        ("pythia", 0, (0,)),
        ("log2", 1, (0, 1)),
    ],
)
def test_rules_and_their_unions(written: object, last: int, expected: tuple[int, ...]) -> None:
    assert steps_of(_Holder.model_validate({"at": written}).at, last) == expected


@pytest.mark.parametrize("written", [{"every": 0}, {"evry": 3}, "weekly", [-1], 1.5])
def test_a_faulty_schedule_is_refused(written: object) -> None:
    with pytest.raises(ValidationError):
        _Holder.model_validate({"at": written})


def test_every_beyond_the_end_keeps_both_ends() -> None:
    assert steps_of(Every(every=1000), 10) == (0, 10)
