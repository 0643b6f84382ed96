"""Folders for what nobody counts on."""

import gc
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.scratch import Scratch


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def begin(what: str) -> "subprocess.Popen[str]":
    """Start a process that makes a folder and then waits for ever."""
    code = f"from jobs.scratch import Scratch; s = Scratch({what!r}); print(s.folder, flush=True); input()"
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def folder_of(process: "subprocess.Popen[str]") -> Path:
    assert process.stdout is not None
    return Path(process.stdout.readline().strip())


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    with begin("things") as dead, begin("things") as living, begin("others") as other:
        folders = [folder_of(process) for process in (dead, living, other)]
        assert all(folder.is_dir() and tmp_path in folder.parents for folder in folders)
        for process in (dead, other):
            process.kill()
            process.wait()
        with Scratch("things") as mine:
            assert [folder.exists() for folder in folders] == [False, True, True]
        assert not mine.parent.exists()
        living.communicate("\n")
        assert not folders[1].exists(), "a process that ends removes its own"


def test_one_that_is_being_made_is_not_taken_for_a_dead_one(tmp_path: Path) -> None:
    made = tmp_path / Path(Scratch("things").folder.parent.name).with_suffix(".x").name
    made.mkdir()
    (made / "alive.new").touch()
    with Scratch("things"):
        assert made.is_dir()


def test_it_is_private_and_goes_with_its_last_user() -> None:
    scratch = Scratch("things")
    top = scratch.folder.parent
    assert stat.S_IMODE(top.stat().st_mode) == 0o700
    (scratch.folder / "a").mkdir()
    (scratch.folder / "a" / "file").write_text("x")
    del scratch
    gc.collect()
    assert not top.exists()
