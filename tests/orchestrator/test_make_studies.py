"""`make studies`: one study after another, what is there is not trained again, and a failure is told."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from jobs.errors import SeedbedError
from orchestrator.cli import app
from tests.orchestrator.conftest import STUDY

PROGRAM = Path(__file__).parents[2] / "docs" / "make_studies.py"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the program with a folder of studies of its own, in which `tiny` is sound and `broken` is not."""
    spec = importlib.util.spec_from_file_location("make_studies", PROGRAM)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)

    def in_this_process(*words: str, kept: bool = False) -> subprocess.CompletedProcess[str]:
        done = CliRunner().invoke(app, words)
        told = f"{done.exception}\n" if isinstance(done.exception, SeedbedError) else ""
        return subprocess.CompletedProcess(words, done.exit_code, done.output if kept else "", told)

    monkeypatch.setattr(module, "seedbed", in_this_process)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    (tmp_path / "broken.yaml").write_text("study: broken\n")
    monkeypatch.setattr(module, "STUDIES", tmp_path)
    monkeypatch.setattr(module, "PICTURES", tmp_path / "pictures")
    monkeypatch.setattr(module, "PAGES", tmp_path)
    for page in ("tiny", "broken"):
        (tmp_path / f"{page}.md").touch()
    return module


def test_studies_run_one_after_another_and_resume(
    program: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sound = program.Shown("tiny", (("success",),), {"fan": ("fan",)})
    chosen, store = [program.Shown("broken", (("success",),)), sound], str(tmp_path / "s")
    assert program.run_all(chosen, store, options=("--cluster", "inline")) == 1
    told = capfd.readouterr().out
    assert told.index("[1/2] broken") < told.index("FAILED") < told.index("[2/2] tiny")
    folder = tmp_path / "s.report" / "tiny"
    answers = (folder / "estimates.txt").read_text()
    assert answers.startswith("$ seedbed estimate success\ntiny: P(success)")
    assert str(folder / "fan.png") in told
    assert (folder / "fan.png").stat().st_size > 1000
    packs = sorted((tmp_path / "s" / "packs").iterdir())
    assert program.run_all([sound], store, options=("--cluster", "inline")) == 0
    assert sorted((tmp_path / "s" / "packs").iterdir()) == packs, "nothing is trained twice"
    assert (folder / "estimates.txt").read_text() == answers
    assert program.copy_pictures(chosen, store) == 1, "the broken study has none"
    drawn, copied = (
        Image.open(path).convert("RGB") for path in (folder / "fan.png", tmp_path / "pictures" / "tiny.png")
    )
    assert drawn.size == copied.size
    assert np.abs(np.asarray(drawn, float) - np.asarray(copied, float)).mean() < 2, "it looks the same"
    assert (tmp_path / "pictures" / "tiny.png").stat().st_size < (folder / "fan.png").stat().st_size
    (tmp_path / "tiny.md").unlink()
    (tmp_path / "pictures" / "tiny.png").unlink()
    assert program.copy_pictures([sound], store) == 0
    assert not (tmp_path / "pictures" / "tiny.png").exists(), "what has no page has no picture there"


def test_a_question_without_an_answer_is_a_failure(program: ModuleType, tmp_path: Path) -> None:
    asked = program.Shown("tiny", (("variance",),))
    assert program.run_all([asked], str(tmp_path / "s"), options=("--cluster", "inline")) == 1
    assert "crosses" in (tmp_path / "s.report" / "tiny" / "estimates.txt").read_text()


def test_an_imported_study_is_made_from_its_table(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, store = tmp_path / "times.csv", str(tmp_path / "s")
    rows = [f"1,llama31_8b,{size},{run},{1000 * size + run}\n" for size in (16, 32) for run in range(5)]
    table.write_text("version,benchmark,batch_size,run,epochs_to_converge\n" + "".join(rows))
    monkeypatch.setattr(sys, "argv", ["make_studies.py", store, "mlperf", "--table", str(table)])
    assert program.main() == 0
    assert "survival-curve" in (tmp_path / "s.report" / "mlperf" / "estimates.txt").read_text()
    for others in ([], ["twins"], ["mlperf", "polypythias"]):
        monkeypatch.setattr(sys, "argv", ["make_studies.py", store, *others, "--table", str(table)])
        with pytest.raises(SystemExit):
            program.main()
