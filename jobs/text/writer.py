"""Text → a corpus, shard by shard: what was committed stays, and the same command goes on behind it.

A shard holds whole documents. Memory holds one shard and the documents that are being encoded, whatever the size of
the text.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from jobs.errors import AlreadyExists, Fault, NotFound, TextRefused
from jobs.store import Store, commit, committed, get_record, put_record, put_same, read_manifest
from jobs.text.corpus import CORPUS_KEY, FORMAT, SHARDS, TOKENIZER_KEY, CorpusInfo, Shard, read_info
from jobs.text.documents import Source, Split, read_documents
from jobs.text.tokenizer import Ids, Tokenizer

_JOB_KEY = "job.json"  # what is being made: a second command must want the same
_AT_ONCE = 256  # documents that are encoded together

Watch = Callable[[int, int], None]  # bytes of text that were read, bytes that there are


@dataclass(frozen=True, slots=True)
class Form:
    """How files become documents and documents shards.

    split         what a document of a plain text file is
    field         the key or column of the text in JSON lines and Parquet
    shard_tokens  a shard ends with the document that makes it at least so long
    """

    split: Split = "file"
    field: str = "text"
    shard_tokens: int = 1 << 25


def tokenize(
    store: Store, sources: Sequence[Source], tokenizer: Tokenizer, form: Form, watch: Watch = lambda *_: None
) -> CorpusInfo:
    """Make the corpus of these files in `store`, or go on with it; returns what it is.

    Raises TextRefused where the store holds a corpus of something else, or where there is no text; Corrupt, StoreFull.
    """
    _agree_on(store, sources, tokenizer, form)
    try:
        return read_info(store)
    except NotFound:
        pass
    if tokenizer.file:
        put_same(store, TOKENIZER_KEY, tokenizer.file)
    shards = [_shard(store, key) for key in committed(store, SHARDS)]
    done = sum(shard.documents for shard in shards)
    documents = islice(_documents(sources, form, watch), done, None)
    dtype = "uint16" if tokenizer.vocabulary <= 1 << 16 else "uint32"
    for parts in _shards(documents, tokenizer, form.shard_tokens):
        shards.append(_commit(store, len(shards), parts, dtype))
    if not shards:
        raise TextRefused((Fault(sources[0].name if sources else "", 0, "", "there is no text here"),))
    info = CorpusInfo(tokenizer.name, tokenizer.vocabulary, tokenizer.end, dtype, tuple(shards))
    put_record(store, CORPUS_KEY, {"format": FORMAT, **asdict(info)})
    return info


def _agree_on(store: Store, sources: Sequence[Source], tokenizer: Tokenizer, form: Form) -> None:
    job = {
        "format": FORMAT,
        "tokenizer": tokenizer.name,
        "sources": [[source.name, source.size_bytes] for source in sources],
        "form": asdict(form),
    }
    try:
        put_record(store, _JOB_KEY, job)
    except AlreadyExists:
        found = get_record(store, _JOB_KEY)
        other = [name for name in job if found.get(name) != job[name]]
        if other:
            told = f"holds a corpus with other {', '.join(other)}: give another folder"
            raise TextRefused((Fault(store.url, 0, "", told),)) from None


def _shard(store: Store, key: str) -> Shard:
    manifest = read_manifest(store, key)
    return Shard(key, manifest.extra["tokens"], manifest.extra["documents"], manifest.sha256)


def _documents(sources: Sequence[Source], form: Form, watch: Watch) -> Iterator[str]:
    before, total = 0, sum(source.size_bytes for source in sources)
    for source in sources:
        inside = 0
        for text in read_documents(source, form.split, form.field):
            inside += len(text)  # characters: near enough for a bar
            watch(min(before + inside, total), total)
            yield text
        before += source.size_bytes


def _shards(documents: Iterable[str], tokenizer: Tokenizer, shard_tokens: int) -> Iterator[list[Ids]]:
    """Yield the documents of one shard after another, each with its end."""
    held: list[Ids] = []
    size, end = 0, np.array([tokenizer.end])
    rest = iter(documents)
    while some := list(islice(rest, _AT_ONCE)):
        for ids in tokenizer.ids(some):
            held.append(np.concatenate([ids, end]))
            size += len(ids) + 1
            if size >= shard_tokens:
                yield held
                held, size = [], 0
    if held:
        yield held


def _commit(store: Store, number: int, parts: list[Ids], dtype: str) -> Shard:
    tokens = np.concatenate(parts).astype(np.dtype(dtype).newbyteorder("<"))

    def write(path: Path) -> dict[str, Any]:
        tokens.tofile(path)
        return {"tokens": len(tokens), "documents": len(parts)}

    key = f"{SHARDS}{number:06d}.tokens"
    return Shard(key, len(tokens), len(parts), commit(store, key, write).sha256)
