"""Text becomes a corpus: the same bytes however often it was interrupted, and a clear error for every bad file."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.bucket import open_bucket
from jobs.errors import Corrupt, NotFound, StoreFull, TextRefused
from jobs.store import LocalStore, open_store
from jobs.text.corpus import Corpus, CorpusInfo, read_info
from jobs.text.documents import find_sources, read_documents
from jobs.text.tokenizer import ByteTokenizer, read_tokenizer, train_tokenizer
from jobs.text.writer import Form, tokenize

LINES = [f"Seed {index} learns late, and ünlike its twin." for index in range(50)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text("First line.\nSecond line.\n\nAnother paragraph.\n", encoding="utf-8")
    with gzip.open(folder / "b.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": line, "n": 1}) + "\n" for line in LINES)
    pq.write_table(pa.table({"text": ["from a table", None, " "]}), folder / "c.parquet")
    (folder / "notes.bin").write_bytes(b"\0")
    return folder


def made(texts: Path, to: Path, **form: int) -> tuple[CorpusInfo, Corpus]:
    store = open_store(to, create=True)
    info = tokenize(store, find_sources([str(texts)]), ByteTokenizer(), Form(**form))  # type: ignore[arg-type]
    return info, Corpus(store, info)


def test_a_corpus_is_its_documents_each_with_its_end(texts: Path, tmp_path: Path) -> None:
    info, corpus = made(texts, tmp_path / "corpus", shard_tokens=100)
    documents = ["First line.\nSecond line.\n\nAnother paragraph.\n", *LINES, "from a table"]
    expected = [part for text in documents for part in (*text.encode(), 256)]
    assert corpus.tokens(0, info.tokens).tolist() == expected
    assert (info.documents, info.tokens, info.vocabulary) == (len(documents), len(expected), 257)
    assert len(info.shards) > 10
    places = np.arange(corpus.count(7))
    rows = corpus.sequences(places, 7)
    assert all(row.tolist() == expected[7 * place : 7 * place + 8] for place, row in zip(places, rows, strict=True))


def test_equal_text_is_an_equal_digest_wherever_it_lies(texts: Path, tmp_path: Path) -> None:
    first, _ = made(texts, tmp_path / "one")
    second, _ = made(texts, tmp_path / "two")
    assert first.digest == second.digest
    (texts / "a.txt").write_text("Other.", encoding="utf-8")
    assert made(texts, tmp_path / "three")[0].digest != first.digest


class Full(LocalStore):
    """A store whose disk fills up with the third shard."""

    def put_file(self, key: str, path: Path) -> None:
        if key.endswith("000003.tokens"):
            raise StoreFull(key)
        super().put_file(key, path)


def test_an_interrupted_corpus_is_none_and_the_same_command_goes_on(texts: Path, tmp_path: Path) -> None:
    whole, _ = made(texts, tmp_path / "whole", shard_tokens=100)
    open_store(tmp_path / "corpus", create=True)
    sources, form = find_sources([str(texts)]), Form(shard_tokens=100)
    with pytest.raises(StoreFull):
        tokenize(Full(tmp_path / "corpus"), sources, ByteTokenizer(), form)
    with pytest.raises(NotFound):
        read_info(open_store(tmp_path / "corpus"))
    kept = sorted((tmp_path / "corpus" / "shards").glob("*.tokens"))
    before = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 3
    assert made(texts, tmp_path / "corpus", shard_tokens=100)[0] == whole
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_another_job_in_the_same_place_is_refused(texts: Path, tmp_path: Path) -> None:
    made(texts, tmp_path / "corpus")
    assert made(texts, tmp_path / "corpus")[0].documents == 52
    (texts / "d.txt").write_text("One more.", encoding="utf-8")
    with pytest.raises(TextRefused, match="holds a corpus with other sources: give another folder"):
        made(texts, tmp_path / "corpus")


def test_a_changed_shard_is_not_read(texts: Path, tmp_path: Path) -> None:
    info, corpus = made(texts, tmp_path / "corpus", shard_tokens=100)
    path = tmp_path / "corpus" / info.shards[2].key
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises(Corrupt, match=r"shards/000002\.tokens"):
        corpus.tokens(0, info.tokens)
    assert len(corpus.tokens(0, info.shards[0].tokens)) == info.shards[0].tokens


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        ("file", ["a\nb\n\n\nc\n"]),
        ("paragraph", ["a\nb", "c"]),
        ("line", ["a", "b", "c"]),
    ],
)
def test_what_a_document_of_plain_text_is(split: str, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("a\nb\n\n\nc\n", encoding="utf-8")
    (source,) = find_sources([str(tmp_path)])
    assert list(read_documents(source, split, "text")) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"txt": "y"}\n', r"a\.jsonl:2: text: is not in this line"),
        ("a.jsonl", b'{"text": 3}\n', r"a\.jsonl:1: text: is not text but int"),
        ("a.jsonl", b"text\n", r"a\.jsonl:1: is not JSON"),
        ("a.jsonl.gz", b"plain", r"a\.jsonl\.gz: cannot be read"),
        ("a.txt", b"\xff\xfe", r"a\.txt: cannot be read"),
        ("a.parquet", b"PAR1", r"a\.parquet: cannot be read"),
    ],
)
def test_a_bad_file_is_named(name: str, data: bytes, fault: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    (source,) = find_sources([str(tmp_path / name)])
    with pytest.raises(TextRefused, match=fault):
        list(read_documents(source, "file", "text"))


def test_files_that_are_not_there_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TextRefused) as raised:
        find_sources([str(tmp_path / "none.txt"), str(tmp_path / "empty")])
    assert [fault.message.split(":")[0][:12] for fault in raised.value.faults] == ["cannot be re", "no file here"]


def test_a_trained_vocabulary_reads_back_what_was_written(texts: Path, tmp_path: Path) -> None:
    tokenizer = train_tokenizer(LINES, 300)
    assert train_tokenizer(LINES, 300).name == tokenizer.name
    store = open_store(tmp_path / "corpus", create=True)
    info = tokenize(store, find_sources([str(texts)]), tokenizer, Form())
    assert info.vocabulary == 300
    (tmp_path / "tokenizer.json").write_bytes(tokenizer.file)
    again = read_tokenizer(str(tmp_path / "tokenizer.json"))
    assert (again.name, again.end) == (info.tokenizer, info.end)
    first = again.ids(["First line.\nSecond line.\n\nAnother paragraph.\n"])[0]
    assert Corpus(store, info).tokens(0, len(first) + 1).tolist() == [*first.tolist(), info.end]
    assert info.tokens < made(texts, tmp_path / "bytes")[0].tokens


@pytest.mark.parametrize("name", ["none.json", "bad.json"])
def test_a_file_that_is_no_tokenizer_is_said(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}", encoding="utf-8")
    with pytest.raises(TextRefused, match=name):
        read_tokenizer(str(tmp_path / name))


def test_text_and_corpus_may_lie_in_a_bucket(texts: Path, tmp_path: Path, bucket_url: str) -> None:
    whole, _ = made(texts, tmp_path / "corpus", shard_tokens=300)
    raw = open_bucket(f"{bucket_url}/raw")
    for path in sorted(texts.iterdir()):
        raw.put(path.name, path.read_bytes())
    store = open_store(f"{bucket_url}/corpus", create=True)
    sources = find_sources([f"{bucket_url}/raw"])
    assert [Path(source.name).name for source in sources] == ["a.txt", "b.jsonl.gz", "c.parquet"]
    assert [source.size_bytes for source in find_sources([f"{bucket_url}/raw/a.txt"])] == [sources[0].size_bytes]
    info = tokenize(store, sources, ByteTokenizer(), Form(shard_tokens=300))
    assert info == whole
    there = Corpus(open_store(f"{bucket_url}/corpus"), info)
    assert there.tokens(0, 5).tolist() == list(b"First")
