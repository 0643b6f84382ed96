"""Numbered records: the newest counts, names do not meet, and of two that are put at once neither is lost."""

from pathlib import Path

from jobs.numbered import newest, put_next
from jobs.store import get_record, open_store


def of(name: str, number: int) -> str:
    return f"things/{name}.{number:04d}.json"


def test_the_newest_counts_and_names_do_not_meet(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    assert newest(store, lambda number: of("a", number)) == 0
    for name in ("a", "a.b", "a.0007"):
        assert put_next(store, lambda number, name=name: of(name, number), lambda _: {}, 0) == 1
    assert put_next(store, lambda number: of("a", number), lambda number: {"n": number}, 11) == 12
    assert newest(store, lambda number: of("a", number)) == 12
    assert newest(store, lambda number: of("a.b", number)) == 1


def test_a_number_that_is_taken_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    for expected in (1, 2, 3):
        assert put_next(store, lambda number: of("a", number), lambda number: {"n": number}, 0) == expected
    assert [get_record(store, of("a", number))["n"] for number in (1, 2, 3)] == [1, 2, 3]


def test_there_may_be_more_than_four_digits_hold(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", create=True)
    assert put_next(store, lambda number: of("a", number), lambda _: {}, 9999) == 10000
    assert newest(store, lambda number: of("a", number)) == 10000
