"""Every storage operation of a study fails once, in every way; the same command again ends with the same bytes."""

from pathlib import Path

import pytest

from jobs.errors import SeedbedError
from tests.bitwise.crashing import MODES, Crash, Disk
from tests.bitwise.drives import final, one_command


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, int]:
    """Return what the study ends with where nothing fails, and how many operations it takes."""
    with Disk().in_place() as disk:
        tables = one_command(tmp_path_factory.mktemp("calm") / "store")
    return final(tables), disk.count


def fail_and_go_on(folder: Path, fails_at: int, mode: str) -> object:
    """Let one operation fail, then give the same command until it ends; returns what is there then."""
    with Disk(fails_at, mode).in_place() as disk:
        try:
            tables = one_command(folder)
            ended = True
        except (Crash, SeedbedError):
            ended = False
    assert disk.count > fails_at
    return final(tables if ended else one_command(folder))


@pytest.mark.parametrize("mode", MODES)
def test_every_storage_operation_may_fail(mode: str, calm: tuple[object, int], tmp_path: Path, every: int) -> None:
    expected, operations = calm
    assert operations > 60
    for number in range(0, operations, every):
        found = fail_and_go_on(tmp_path / str(number), number, mode)
        assert found == expected, f"operation {number} of {operations}, {mode}"
