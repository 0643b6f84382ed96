"""Which records of a store belong to a study and stay."""

import pytest

from jobs.layout import DriverKeys, beat_key, decision_key, is_of_study, proof_key, verdict_key


@pytest.mark.parametrize("make", [proof_key, decision_key, verdict_key])
def test_numbered_records_are_of_their_study_and_of_none_with_a_longer_name(make) -> None:  # type: ignore[no-untyped-def]
    assert is_of_study(make("a", 12), "a")
    assert is_of_study(make("a.b", 1), "a.b")
    assert not is_of_study(make("a.b", 1), "a")
    assert not is_of_study(make("a.0001", 1), "a")


def test_drivers_come_and_go_on_record_and_their_beats_do_not_stay() -> None:
    keys = DriverKeys("a", 3)
    assert is_of_study(keys.claim, "a")
    assert is_of_study(keys.released, "a")
    assert not is_of_study(keys.beat(7), "a")
    assert not is_of_study(keys.claim, "b")
    assert not is_of_study(beat_key("a", 1), "a")
