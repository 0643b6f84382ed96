"""Small corpora of bytes for tests."""

from collections.abc import Sequence
from pathlib import Path

from jobs.store import open_store
from jobs.text.documents import find_sources
from jobs.text.tokenizer import ByteTokenizer
from jobs.text.writer import Form, tokenize


def small_corpus(folder: Path, name: str, lines: Sequence[str]) -> None:
    """Make the corpus folder/name of lines, each a document."""
    (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    store = open_store(folder / name, create=True)
    tokenize(store, find_sources([str(folder / f"{name}.txt")]), ByteTokenizer(), Form("line", shard_tokens=300))
