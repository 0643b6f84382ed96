"""What is measured of a language model: against sums made by hand, and against models whose answers are known."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from jobs.errors import Corrupt, StudyError, TextRefused
from jobs.seeds import Seeds, Streams
from jobs.store import open_store
from jobs.study import Study
from jobs.study_file import parse_study
from jobs.study_files import files_of, laid_out
from jobs.tasks import IGNORE, Batch, Score
from jobs.tasks.task import Mean
from jobs.tasks.text import Text
from jobs.tasks.text_probes import Memorised, extraction_scores, extraction_set, pair_scores, pair_set, pairs_in
from jobs.text.classes import byte_classes, read_classes
from jobs.text.corpus import open_corpus
from jobs.text.documents import find_sources
from jobs.text.pairs import Pair, read_pairs
from jobs.text.tokenizer import ByteTokenizer, tokenizer_of, train_tokenizer
from jobs.text.writer import Form, tokenize
from orchestrator.declared import register
from workers.stored import load_task

PAIRS = [
    {"good": "The seeds see.", "bad": "The seeds sees.", "phenomenon": "agreement"},
    {"sentence_good": "It sees.", "sentence_bad": "It see.", "UID": "agreement"},
    {"good": "A seed.", "bad": "Seed a."},
]
STUDY = """
study: words
task:
  name: text
  corpora: {plain: plain}
  context: 20
  test_size: 3
  planted: {corpus: plain, counts: [0, 2, 5], each: 2, steps: 10}
  probes: {pairs: {grammar: pairs.jsonl}, memorised: {prompt: 4, continuation: 8, sequences: 6}, classes: bytes}
model: {family: gpt, layers: 1, width: 4, heads: 1}
optimizer: {learning_rate: 1e-3}
training: {steps: 10, batch_size: 4}
seeds: {design: paired, count: 2}
success: {metric: grammar.accuracy, threshold: 0.5}
"""
DRAWN = np.random.default_rng(0).integers(0, 26, (80, 12))  # no two sequences of tokens are equal
LINES = [f"The seed {''.join(chr(97 + letter) for letter in row)} saw, and did not forget." for row in DRAWN]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "plain.txt").write_text("\n".join(LINES), encoding="utf-8")
    store = open_store(tmp_path / "plain", create=True)
    tokenize(store, find_sources([str(tmp_path / "plain.txt")]), ByteTokenizer(), Form("line", shard_tokens=900))
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, PAIRS)), encoding="utf-8")
    return tmp_path


def streams(data: int = 1) -> Streams:
    return Streams(Seeds(0, data, 0, 0))


def task(folder: Path, **changed: object) -> Text:
    given = {"corpora": {"plain": str(folder / "plain")}, "context": 20, "test_size": 3} | changed
    return Text.model_validate(given)


def planted(folder: Path, **changed: object) -> Text:
    rule = {"corpus": "plain", "counts": [0, 2, 5], "each": 2, "steps": 10} | changed
    return task(folder, planted=rule, probes={"memorised": {"prompt": 4, "continuation": 8, "sequences": 6}})


def bigram_losses(batch: Batch, table: np.ndarray) -> np.ndarray:
    """Return -log p of each target by a table of p(next | token), 0 where there is none."""
    losses = -np.log(table[batch.inputs, np.maximum(batch.targets, 0)])
    return np.where(batch.targets == IGNORE, 0.0, losses).astype(np.float32)


def test_a_pair_is_judged_by_the_log_likelihood_of_whole_sentences(folder: Path) -> None:
    text = (folder / "pairs.jsonl").read_text(encoding="utf-8")
    table = np.random.default_rng(0).dirichlet(np.full(257, 0.3), 257) + 1e-9
    batch = pair_set(text, "grammar", open_corpus(str(folder / "plain")), 20)
    assert batch.inputs.shape == (6, 15)

    def log_likelihood(sentence: str) -> float:
        ids = [256, *sentence.encode()]
        return sum(np.log(table[a, b]) for a, b in pairwise(ids))

    pairs = pairs_in(text, "grammar")
    right = [log_likelihood(pair.good) > log_likelihood(pair.bad) for pair in pairs]
    assert pair_scores("grammar", pairs, bigram_losses(batch, table)) == [
        Score("grammar.accuracy", sum(right), 3),
        Score("grammar.agreement.accuracy", sum(right[:2]), 2),
    ]


def test_a_tie_is_not_right() -> None:
    pairs = (Pair("a", "b"), Pair("c", "d", "x"))
    assert pair_scores("p", pairs, np.ones((4, 3), np.float32))[0] == Score("p.accuracy", 0, 2)


def test_extraction_of_a_memoriser_and_of_one_who_misses_a_token() -> None:
    rows = np.random.default_rng(1).integers(0, 257, (5, 80))
    batch = extraction_set(rows, Memorised())
    assert batch.inputs.shape == (5, 63)
    assert np.array_equal(batch.targets[:, 31:], rows[:, 32:64])
    assert (batch.targets[:, :31] == IGNORE).all()
    said = batch.targets.copy()
    said[0, 31 + 30] += 1  # 31 of 32: one short of all
    assert extraction_scores("m", batch, said) == [
        Score("m.extractable", 4, 5),
        Score("m.prefix", 4 * 32 + 30, 5 * 32),
        Score("m.token_match", 5 * 32 - 1, 5 * 32),
    ]
    never = np.full_like(said, 300)
    assert [score.correct for score in extraction_scores("m", batch, never)] == [0, 0, 0]


def test_exposures_are_what_the_batches_hold(folder: Path) -> None:
    one = planted(folder)
    rows = one.planted_sequences(streams())
    assert rows.shape == (6, 21)
    seen = np.concatenate([one.batch(streams(), step, 4).inputs for step in range(15)])
    counted = [int((seen == row[:-1]).all(axis=1).sum()) for row in rows]
    assert counted == [0, 0, 2, 2, 5, 5]
    assert one.planted_exposures(streams(), 15, 4).tolist() == counted
    some = one.planted_exposures(streams(), 6, 4)
    assert some.tolist() == [int((seen[:24] == row[:-1]).all(axis=1).sum()) for row in rows]
    order = one.order("plain", streams())
    assert int(one.exposures("plain", streams(), np.arange(order.size), 15, 4).sum()) == 15 * 4 - 14


def test_planted_sequences_are_the_same_for_all_runs_and_held_out_of_the_rest(folder: Path) -> None:
    one = planted(folder)
    assert np.array_equal(one.planted_sequences(streams(1)), one.planted_sequences(streams(2)))
    order = one.order("plain", streams())
    reserved = order.never_shown(9)[3:]
    assert not set(reserved.tolist()) & set(order.at(np.arange(order.shown)).tolist())
    assert np.array_equal(one.held_out(streams())["plain"].inputs, task(folder).held_out(streams())["plain"].inputs)


def test_random_ones_are_of_no_text_and_end_no_document(folder: Path) -> None:
    one = planted(folder, of="random", counts=[1, 3], each=50)
    rows = one.planted_sequences(streams())
    assert rows.shape == (100, 21)
    assert rows.min() >= 0
    assert rows.max() == 255
    assert one.order("plain", streams()).held_out == 3


def test_planted_in_one_corpus_of_a_mixture(folder: Path) -> None:
    both = {"plain": str(folder / "plain"), "again": str(folder / "plain")}
    mixed = planted(folder).model_copy(update={"corpora": both, "weights": {"again": 3.0}})
    seen = np.concatenate([mixed.batch(streams(), step, 8).inputs for step in range(12)])
    counted = [int((seen == row[:-1]).all(axis=1).sum()) for row in mixed.planted_sequences(streams())]
    assert np.array_equal(mixed.planted_exposures(streams(), 12, 8), [0, 0, 2, 2, 5, 5])
    assert all(
        found >= asked for found, asked in zip(counted, [0, 0, 2, 2, 5, 5], strict=True)
    )  # `again` has them, too


def test_the_sets_of_extraction(folder: Path) -> None:
    sets = planted(folder).held_out(streams())
    names = {name: batch.inputs.shape for name, batch in sets.items() if name.startswith("memorised.")}
    assert names == {
        "memorised.plain.trained": (6, 11),
        "memorised.plain.heldout": (3, 11),
        "memorised.planted_0": (2, 11),
        "memorised.planted_2": (2, 11),
        "memorised.planted_5": (2, 11),
    }
    one = planted(folder)
    trained = one.order("plain", streams()).always_shown(6)
    assert (one.exposures("plain", streams(), trained, 1000, 4) > 0).all()


def test_classes_part_the_loss(folder: Path) -> None:
    one = task(folder, probes={"classes": "bytes"})
    batch = one.held_out(streams())["plain"]
    losses = np.random.default_rng(2).random(batch.targets.shape, np.float32)
    predicted = batch.targets.copy()
    predicted[:, ::3] = 0
    found = {m.metric: m for m in one.measure("plain", batch, predicted, losses)}
    counts = {name: score.total for name, score in found.items() if isinstance(score, Score)}
    assert counts.pop("plain.token_accuracy") == 60 == sum(counts.values())
    means = {name.removesuffix(".loss"): m.value for name, m in found.items() if isinstance(m, Mean)}
    whole = sum(means[kind] * counts[f"{kind}.token_accuracy"] for kind in means)
    assert whole == pytest.approx(losses.sum(dtype=np.float64))
    letters = np.isin(batch.targets, byte_classes()["letter"])
    assert means["plain.letter"] == pytest.approx(losses[letters].mean())


def test_classes_of_a_file_are_tokens_of_the_corpus() -> None:
    tokenizer = train_tokenizer(LINES, 280)
    classes = read_classes(json.dumps({"marks": [".", ","], "end": [tokenizer.end]}), "c.json", tokenizer)
    assert classes["end"].tolist() == [tokenizer.end]
    assert len(classes["marks"]) == 2
    with pytest.raises(TextRefused, match="'qux' is not one token of this corpus"):
        read_classes('{"marks": ["qux"]}', "c.json", tokenizer)


def test_pairs_on_a_vocabulary(folder: Path) -> None:
    store = open_store(folder / "bpe", create=True)
    tokenize(store, find_sources([str(folder / "plain.txt")]), train_tokenizer(LINES, 280), Form("line"))
    corpus = open_corpus(str(folder / "bpe"))
    batch = pair_set('{"good": "seed saw", "bad": "saw seed"}', "p", corpus, 20)
    ids = tokenizer_of(corpus).ids(["seed saw"])[0]
    assert batch.targets[0, : len(ids)].tolist() == ids.tolist()
    assert batch.inputs[0, 0] == corpus.info.end


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no pair"),
        ("{", "p.jsonl:1: is not JSON"),
        ('{"good": "a", "bad": "b"}\n[]', "p.jsonl:2: is no pair"),
        ('{"good": "a", "bad": "a"}', "the same sentence"),
        ('{"good": "a"}', "good and bad are sentences"),
        ('{"good": "a", "bad": "b", "phenomenon": "a b"}', "a phenomenon is a name"),
    ],
)
def test_a_wrong_line_is_named(text: str, fault: str) -> None:
    with pytest.raises(TextRefused, match=fault):
        read_pairs(text, "p.jsonl")


def study(folder: Path, text: str = STUDY) -> Study:
    return parse_study(text, "words.yaml", folder)


def test_identity_holds_what_is_in_the_file_and_not_its_name(folder: Path) -> None:
    ids = [run.id for run in study(folder).runs]
    (folder / "pairs.jsonl").rename(folder / "moved.jsonl")
    assert [run.id for run in study(folder, STUDY.replace("pairs.jsonl", "moved.jsonl")).runs] == ids
    (folder / "pairs.jsonl").write_text('{"good": "a", "bad": "b"}', encoding="utf-8")
    assert not set(ids) & {run.id for run in study(folder).runs}


def test_a_study_without_probes_has_the_id_that_it_always_had(tmp_path: Path) -> None:
    text = "\n".join(f"What seed {index} saw, it will not forget." for index in range(40))
    (tmp_path / "plain.txt").write_text(text, encoding="utf-8")
    store = open_store(tmp_path / "plain", create=True)
    tokenize(store, find_sources([str(tmp_path / "plain.txt")]), ByteTokenizer(), Form("line", shard_tokens=300))
    lines = [line for line in STUDY.splitlines() if not line.lstrip().startswith(("planted:", "probes:"))]
    one = study(tmp_path, "\n".join(lines).replace("context: 20", "context: 8").replace("grammar", "plain"))
    assert "planted" not in one.points[0].spec["task"]["parameters"]
    assert [run.id for run in one.runs] == ["r1-ede1773a1d69bfa88550", "r1-c8e73162f903247ed95c"]


def test_a_stored_study_has_its_files_with_it(folder: Path, tmp_path: Path) -> None:
    one = study(folder)
    with laid_out(files_of(one), "words.yaml") as elsewhere:
        assert [run.id for run in parse_study(STUDY, "words.yaml", elsewhere).runs] == [run.id for run in one.runs]
    store = open_store(tmp_path / "store", create=True)
    register(store, one, "words.yaml")
    (folder / "pairs.jsonl").unlink()
    loaded = load_task(store, one.points[0].condition.task)
    assert loaded.held_out(streams())["grammar"].inputs.shape == (6, 15)
    (file,) = (tmp_path / "store" / "files").iterdir()
    file.chmod(0o644)
    file.write_text('{"good": "a", "bad": "b"}', encoding="utf-8")
    with pytest.raises(Corrupt, match="is another file than the study was made for"):
        load_task(store, one.points[0].condition.task).held_out(streams())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("pairs.jsonl", "none.jsonl"), "none.jsonl: cannot be read: No such file"),
        (("corpus: plain", "corpus: loud"), "'loud' is none of the corpora"),
        (("counts: [0, 2, 5]", "counts: [2, 2]"), "each of them once"),
        (("continuation: 8", "continuation: 80"), "84 tokens of prompt and continuation, and a sequence has 21"),
        (("grammar: pairs", "plain: pairs"), "is the name of a corpus, too"),
        (("each: 2", "each: 2000"), "not enough for a test_size of 3 and 6000 planted ones"),
        (("context: 20", "context: 12"), "sentences do not fit"),
        (("classes: bytes", "classes: letters"), "letters: cannot be read"),
    ],
)
def test_wrong_probes_are_refused_with_the_study(change: tuple[str, str], fault: str, folder: Path) -> None:
    with pytest.raises(StudyError, match=fault):
        study(folder, STUDY.replace(*change))
