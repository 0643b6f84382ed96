"""`seedbed tokenize`, and a study on what it made: real text from files to rows, replayed byte for byte."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seedbed
from jobs.errors import TextRefused
from jobs.store import open_store
from jobs.text.corpus import open_corpus
from orchestrator.cli import app
from orchestrator.stored_study import stored_study
from tests.cli import invoke

STUDY = """
study: verse
task: {name: text, corpora: {verse: corpora/verse}, context: 12, test_size: 4}
model: {family: gpt, layers: 1, width: 8, heads: 2}
optimizer: {learning_rate: 1e-2}
training: {steps: 6, batch_size: 4}
probes: {every: 3}
seeds: {design: paired, count: 2}
success: {metric: verse.token_accuracy, threshold: 0.5, sustained: 1}
execution: {pack_width: 2}
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder with lines of text in it, made the current one."""
    (tmp_path / "lines.txt").write_text("\n".join(f"Each seed has its day, and this is day {n}." for n in range(60)))
    (tmp_path / "verse.yaml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEEDBED_STORE", raising=False)
    return tmp_path


def test_from_text_to_rows(home: Path) -> None:
    command = ("tokenize", "lines.txt", "--to", "corpora/verse", "--split", "line", "--train", "270")
    made = json.loads(invoke(*command, "--json"))
    assert (made["documents"], made["vocabulary"]) == (60, 270)
    assert json.loads(invoke(*command, "--json")) == made
    assert made["digest"] == open_corpus(str(home / "corpora" / "verse")).info.digest
    told = json.loads(invoke("run", "verse.yaml", "--cluster", "inline", "--json"))
    assert [condition["finished"] for condition in told["conditions"]] == [2]
    rows = seedbed.open("seedbed-store").sql("SELECT DISTINCT metric FROM metrics").pandas()
    assert {"verse.loss", "verse.token_accuracy", "train.loss"} <= set(rows["metric"])
    (home / "verse.yaml").unlink()
    assert json.loads(invoke("verify", "verse", "--json"))["findings"] == []


def test_what_a_model_knows_is_rows(home: Path) -> None:
    invoke("tokenize", "lines.txt", "--to", "corpora/verse", "--split", "line", "--train", "270")
    (home / "pairs.jsonl").write_text('{"good": "Each seed", "bad": "seed Each", "phenomenon": "order"}\n')
    (home / "classes.json").write_text('{"stop": ["."], "end": ["<|endoftext|>"]}')
    more = """, planted: {corpus: verse, counts: [0, 3], each: 2, steps: 6}, probes: {pairs: {grammar: pairs.jsonl},
        memorised: {prompt: 4, continuation: 4, sequences: 4}, classes: classes.json}}"""
    (home / "verse.yaml").write_text(STUDY.replace("test_size: 4}", f"test_size: 4{more}"))
    invoke("run", "verse.yaml", "--cluster", "inline", "--no-report", "--json")
    for name in ("verse.yaml", "pairs.jsonl", "classes.json"):
        (home / name).unlink()
    rows = seedbed.open("seedbed-store").sql("SELECT DISTINCT metric, total FROM metrics WHERE step = 6").pandas()
    totals = dict(zip(rows["metric"], rows["total"], strict=True))
    assert totals["grammar.accuracy"] == totals["grammar.order.accuracy"] == 1
    assert totals["memorised.verse.trained.extractable"] == 4
    assert totals["memorised.planted_3.extractable"] == totals["memorised.planted_0.extractable"] == 2
    assert totals["memorised.planted_3.token_match"] == 8
    assert {"verse.stop.loss", "verse.end.token_accuracy", "memorised.verse.heldout.prefix"} <= set(totals)
    assert json.loads(invoke("verify", "verse", "--json"))["findings"] == []
    with stored_study(open_store(home / "seedbed-store"), "verse") as (again, declared):
        assert [run.id for run in again.runs] == [run.id for run in declared.runs]


def test_a_tokenizer_of_another_size_is_no_silent_answer(home: Path) -> None:
    invoke("tokenize", "lines.txt", "--to", "corpora/verse", "--train", "270")
    result = CliRunner().invoke(app, ["tokenize", "lines.txt", "--to", "corpora/verse", "--train", "300"])
    assert isinstance(result.exception, TextRefused)
    assert "300 ids were asked for, and this corpus has a tokenizer of 270" in str(result.exception)


def test_two_tokenizers_are_one_too_many(home: Path) -> None:
    arguments = ["tokenize", "lines.txt", "--to", "corpora/verse", "--train", "270", "--tokenizer", "tokenizer.json"]
    assert isinstance(CliRunner().invoke(app, arguments).exception, TextRefused)
    assert not (home / "corpora").exists()


def test_help_shows_an_example() -> None:
    assert "seedbed tokenize books/ --to corpora/books --train 8192" in invoke("tokenize", "--help")
