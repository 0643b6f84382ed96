"""Every storage operation of a study fails once, in every way; the same command again ends with the same bytes.

The command runs in a process of its own that really ends at the operation: its threads, its heart and its lease die
with it. The next one is this process, and finds what a user's second try would find.
"""

import os
import traceback
from pathlib import Path

import pytest

from jobs.errors import SeedbedError
from tests.bitwise.crashing import KILLED, MODES, Disk
from tests.bitwise.drives import final, one_command

ENDED, NOT_MET, TOLD, UNKNOWN = 0, 2, 3, 4
FEWEST = 60


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Return what the study ends with where nothing fails."""
    return final(one_command(tmp_path_factory.mktemp("calm") / "store"))


def one_failing_command(folder: Path, fails_at: int, mode: str) -> int:
    """Give the command in a process that meets the failure; returns its exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        with Disk(fails_at, mode, really=True).in_place() as disk:
            one_command(folder)
        os._exit(ENDED if disk.count > fails_at else NOT_MET)
    except SeedbedError:
        os._exit(TOLD)
    except BaseException:
        traceback.print_exc()
        os._exit(UNKNOWN)


@pytest.mark.parametrize("mode", MODES)
def test_every_storage_operation_may_fail(mode: str, calm: object, tmp_path: Path, every: int) -> None:
    """From the first operation on, until the command ends before its failure comes."""
    number = 0
    while (code := one_failing_command(tmp_path / str(number), number, mode)) != NOT_MET:
        assert code in ((ENDED, TOLD) if mode == "error" else (KILLED,)), f"operation {number}, {mode}"
        assert final(one_command(tmp_path / str(number))) == calm, f"operation {number}, {mode}"
        number += every
    assert number > FEWEST
