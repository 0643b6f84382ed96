"""A corpus: documents as one row of tokens, in hashed shards, with what made them.

A corpus lies in a store of its own, a folder or a bucket:

    corpus.json             tokenizer, shards with their SHA-256, documents, tokens: the corpus is there from then on
    tokenizer.json          of `tokenizers`, where the tokens are not bytes
    shards/000000.tokens    little-endian uint16 or uint32, each document followed by the end-of-document token

Its digest names what the tokens are, wherever they lie: that, and no path, is in the identity of a run.
"""

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jobs.errors import Corrupt, NotFound
from jobs.identity import canonical_json, sha256
from jobs.store import Store, get_record, is_url, open_store, read_manifest, verified

CORPUS_KEY = "corpus.json"
TOKENIZER_KEY = "tokenizer.json"
SHARDS = "shards/"
FORMAT = "seedbed-corpus-1"
BYTES = "bytes"  # the tokenizer of 256 bytes and the end of a document


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of tokens."""

    key: str
    tokens: int
    documents: int
    sha256: str


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """What `corpus.json` says.

    tokenizer    `bytes`, or the SHA-256 of tokenizer.json
    vocabulary   how many token ids there are, the end-of-document token with them
    end          the id of the end-of-document token
    dtype        `uint16` or `uint32`
    """

    tokenizer: str
    vocabulary: int
    end: int
    dtype: str
    shards: tuple[Shard, ...]

    @property
    def tokens(self) -> int:
        """Return how many tokens there are, ends of documents with them."""
        return sum(shard.tokens for shard in self.shards)

    @property
    def documents(self) -> int:
        """Return how many documents there are."""
        return sum(shard.documents for shard in self.shards)

    @property
    def digest(self) -> str:
        """Return `sha256:…` of what the tokens are: equal for equal tokens, however they lie."""
        return f"sha256:{sha256(canonical_json({'format': FORMAT, **asdict(self)}))}"


class Corpus:
    """A corpus that is there, read where it is asked for; a shard's hash is compared before its first token counts."""

    def __init__(self, store: Store, info: CorpusInfo) -> None:
        self.info, self._store = info, store
        self._starts = np.array([0, *accumulate(shard.tokens for shard in info.shards)])
        self._open: dict[int, NDArray[np.uint16] | NDArray[np.uint32]] = {}

    def count(self, length: int) -> int:
        """Return how many sequences of `length` tokens there are, each with a token after it."""
        return max(self.info.tokens - 1, 0) // length

    def sequences(self, places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return tokens [len(places), length + 1]: sequence i begins at token i·length."""
        found = np.empty((len(places), length + 1), np.int64)
        starts = places * length
        first = np.searchsorted(self._starts, starts, side="right") - 1
        last = np.searchsorted(self._starts, starts + length, side="right") - 1
        offsets = (starts - self._starts[first]).tolist()
        numbers, whole = first.tolist(), (first == last).tolist()
        for row, (number, offset) in enumerate(zip(numbers, offsets, strict=True)):
            if whole[row]:  # row by row: one gather over all takes four times as long
                found[row] = self._shard(number)[offset : offset + length + 1]
            else:
                found[row] = self.tokens(int(starts[row]), int(starts[row]) + length + 1)
        return found

    def tokens(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the tokens from `start` up to `stop`, across shards; raises IndexError outside of the corpus."""
        if not 0 <= start <= stop <= self.info.tokens:
            raise IndexError(f"tokens {start} to {stop} of {self.info.tokens}")
        parts = []
        while start < stop:
            number = int(np.searchsorted(self._starts, start, side="right")) - 1
            end = min(stop, int(self._starts[number + 1]))
            parts.append(self._shard(number)[start - self._starts[number] : end - self._starts[number]])
            start = end
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)

    def tokenizer_file(self) -> bytes:
        """Return what is in tokenizer.json, nothing for bytes; raises Corrupt where it is another one."""
        if self.info.tokenizer == BYTES:
            return b""
        data = self._store.get(TOKENIZER_KEY)
        if f"sha256:{sha256(data)}" != self.info.tokenizer:
            raise Corrupt(TOKENIZER_KEY, "is not the tokenizer that corpus.json names")
        return data

    def _shard(self, number: int) -> NDArray[np.uint16] | NDArray[np.uint32]:
        if number not in self._open:
            shard = self.info.shards[number]
            manifest = read_manifest(self._store, shard.key)
            if manifest.sha256 != shard.sha256:
                raise Corrupt(shard.key, "is not the shard that corpus.json names")
            path = verified(self._store, manifest)
            mapped = np.memmap(path, np.dtype(self.info.dtype).newbyteorder("<"), "r")
            self._open[number] = mapped.view(np.ndarray)  # a slice of a memmap takes ten times as long
        return self._open[number]


def read_info(store: Store) -> CorpusInfo:
    """Return what the corpus in a store is; raises NotFound where there is none that is whole, Corrupt."""
    body = get_record(store, CORPUS_KEY)
    try:
        shards = tuple(Shard(**shard) for shard in body["shards"])
        info = CorpusInfo(body["tokenizer"], body["vocabulary"], body["end"], body["dtype"], shards)
    except (KeyError, TypeError) as error:
        raise Corrupt(CORPUS_KEY, f"is not a corpus ({error})") from None
    if body.get("format") != FORMAT or info.dtype not in ("uint16", "uint32"):
        raise Corrupt(CORPUS_KEY, f"has format {body.get('format')!r} and {info.dtype!r}: this version reads {FORMAT}")
    return info


@lru_cache(maxsize=32)
def open_corpus(url: str) -> Corpus:
    """Return the corpus at an address; raises ForeignStore, NotFound, Corrupt, and what a bucket's store raises."""
    store = open_store(url)
    try:
        return Corpus(store, read_info(store))
    except NotFound:
        raise NotFound(
            CORPUS_KEY, f"is not in {url}: no corpus, or one that `seedbed tokenize` has not finished"
        ) from None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A corpus, or a small file, as a study names it, what it is, and where it lies; `text` is what is in a file."""

    named: str
    digest: str
    url: str
    text: str = ""


def find_corpus(named: str, folder: Path) -> Place:
    """Return the corpus that a study in `folder` calls `named`; raises what `open_corpus` does."""
    url = address(named, folder)
    return Place(named, open_corpus(url).info.digest, url)


def address(named: str, folder: Path) -> str:
    """Return the address of a corpus that a study names by an address, or by a path from its own folder.

    A small file in the place of the corpus's folder says where it lies: so studies find theirs after they travelled.
    """
    if is_url(named):
        return named
    path = folder / named
    if path.is_file():
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["corpus"])
        except (ValueError, KeyError, TypeError, UnicodeDecodeError):
            raise NotFound(
                named, "is a file: a corpus is a folder that `seedbed tokenize` made, or an address"
            ) from None
    return str(path.absolute())


def pointer(url: str) -> str:
    """Return the text of a file that stands in the place of a corpus and says where it lies."""
    return json.dumps({"corpus": url})
