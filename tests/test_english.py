"""The study `english`: its corpus is prose, the same each time; its pairs are what their maker makes; it is sound."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType

import pytest

from jobs.store import open_store
from jobs.study_file import read_study
from jobs.text.documents import find_sources
from jobs.text.pairs import read_pairs
from jobs.text.tokenizer import train_tokenizer
from jobs.text.writer import Form, tokenize

ROOT = Path(__file__).parents[1]


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_prose_is_kept_and_nothing_else() -> None:
    prose = "Return the value of the :class:`Store` that is in ``use``, or an error if there is none of it."
    others = [
        ">>> is_it(1)\nand so on, with the rest of the words that are here to fill the line.",
        "Args:\n    name: the name of the thing that is to be found in the list of all of them.",
        "x : int\n    The number of the things that are to be made by this, and of those that are not.",
        "too short to be it.",
        "without a full stop at the end of the line that is long enough to be a sentence of the English",
        "Sum_i a_ij * b_jk = c_ik, 0 <= i < n, 0 <= k < m, if the a is of the x_1, x_2, x_3, x_4.",
    ]
    found = list(example("english_text").paragraphs("\n\n".join([prose, *others])))
    assert found == ["Return the value of the Store that is in use, or an error if there is none of it."]


def test_a_paragraph_stands_once_and_the_order_is_that_of_files(tmp_path: Path) -> None:
    line = "This is the text of the module that is read, and it is long enough to be kept."
    for name in ("b.py", "a.py", "sub/c.py", "tests/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""{line}\n\n{line.replace("module", "file " + name[0])}"""\n')
    text = example("english_text")
    found = list(text.documents(tmp_path, set()))
    assert [document.count("\n") for document in found] == [2, 1, 1]
    assert ["file " + name in found[place] for place, name in enumerate("abs")] == [True] * 3
    assert found == list(text.documents(tmp_path, set()))


def test_the_pairs_are_what_their_maker_makes(tmp_path: Path) -> None:
    stored = ROOT / "jobs" / "studies" / "english-pairs.jsonl"
    example("english_pairs").main(tmp_path / "pairs.jsonl")
    assert (tmp_path / "pairs.jsonl").read_bytes() == stored.read_bytes()
    pairs = read_pairs(stored.read_text(encoding="utf-8"), stored.name)
    assert all(len(pair.good.split()) == len(pair.bad.split()) for pair in pairs)
    assert len({(pair.good, pair.bad) for pair in pairs}) == len(pairs) == 280


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Return the study's file beside a small corpus of the same making."""
    folder = tmp_path / "jobs" / "studies"
    folder.mkdir(parents=True)
    for name in ("english.yaml", "english-pairs.jsonl"):
        shutil.copy(ROOT / "jobs" / "studies" / name, folder / name)
    documents = list(example("english_text").documents(ROOT / "orchestrator", set()))
    (tmp_path / "english.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in documents * 4))
    store = open_store(tmp_path / "corpora" / "english", create=True)
    tokenize(store, find_sources([str(tmp_path / "english.jsonl")]), train_tokenizer(documents, 1024), Form())
    return folder / "english.yaml"


def test_the_study_is_sound(copied: Path) -> None:
    study = read_study(copied)
    assert (study.name, len(study.points), len(study.runs)) == ("english", 2, 16)
    assert study.scale == "model.width"
