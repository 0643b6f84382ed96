"""Tokenizers: bytes, or a `tokenizer.json` of Hugging Face's `tokenizers`, from a file or trained here.

`tokenizers` is needed to make tokens of a vocabulary, never to train on them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from jobs.errors import Fault, TextRefused
from jobs.identity import sha256
from jobs.text.corpus import BYTES, Corpus

END = "<|endoftext|>"
Ids = NDArray[np.int64]


class Tokenizer(Protocol):
    """What makes tokens of documents.

    name        `bytes`, or the SHA-256 of `file`
    vocabulary  how many ids there are, that of the end of a document with them
    end         the id of the end of a document
    file        the bytes of tokenizer.json; empty for bytes
    """

    name: str
    vocabulary: int
    end: int
    file: bytes

    def ids(self, documents: Sequence[str]) -> list[Ids]:
        """Return the token ids of each document, without its end."""


class ByteTokenizer:
    """The bytes of UTF-8, and 256 for the end of a document."""

    name, vocabulary, end, file = BYTES, 257, 256, b""

    def ids(self, documents: Sequence[str]) -> list[Ids]:
        """Return the bytes of each document."""
        return [np.frombuffer(text.encode(), np.uint8).astype(np.int64) for text in documents]


class VocabularyTokenizer:
    """A tokenizer of `tokenizers`; where it knows no `<|endoftext|>`, the id after its last one is the end."""

    def __init__(self, file: bytes) -> None:
        self._inner = _tokenizers().Tokenizer.from_str(file.decode())
        self._inner.no_truncation()
        self._inner.no_padding()
        self.file, self.name = file, f"sha256:{sha256(file)}"
        known = self._inner.token_to_id(END)
        ids = self._inner.get_vocab(with_added_tokens=True).values()
        after = max(ids, default=-1) + 1
        self.end = after if known is None else known
        self.vocabulary = max(after, self.end + 1)

    def ids(self, documents: Sequence[str]) -> list[Ids]:
        """Return the ids of each document, without special tokens."""
        found = self._inner.encode_batch(list(documents), add_special_tokens=False)
        return [np.array(encoded.ids, np.int64) for encoded in found]


def read_tokenizer(name: str) -> Tokenizer:
    """Return the tokenizer `bytes`, or the one in a file; raises TextRefused."""
    if name == BYTES:
        return ByteTokenizer()
    try:
        return VocabularyTokenizer(Path(name).read_bytes())
    except OSError as error:
        hint = "a tokenizer is `bytes`, or the tokenizer.json of a model"
        raise TextRefused((Fault(name, 0, "", f"cannot be read ({error.strerror}): {hint}"),)) from None
    except TextRefused:
        raise
    except Exception as error:  # the border to a library that raises nothing narrower
        raise TextRefused((Fault(name, 0, "", f"is no tokenizer.json: {error}"),)) from error


def tokenizer_of(corpus: Corpus) -> Tokenizer:
    """Return the tokenizer that made a corpus; raises Corrupt, and TextRefused without the package `tokenizers`."""
    file = corpus.tokenizer_file()
    return VocabularyTokenizer(file) if file else ByteTokenizer()


def train_tokenizer(documents: Iterable[str], vocabulary: int) -> Tokenizer:
    """Return a byte-level BPE with so many ids (Sennrich et al. 2016; bytes as in GPT-2); raises TextRefused."""
    if vocabulary < 257:
        raise TextRefused((Fault("--train", 0, "", f"{vocabulary} ids are fewer than the 256 bytes and an end"),))
    parts = _tokenizers()
    made = parts.Tokenizer(parts.models.BPE())
    made.pre_tokenizer = parts.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = parts.decoders.ByteLevel()
    trainer = parts.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=parts.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(documents, trainer)
    return VocabularyTokenizer(made.to_str().encode())


def _tokenizers() -> Any:
    try:
        import tokenizers
    except ImportError:
        told = "needs the package `tokenizers`: pip install 'seedbed[text]'; `--tokenizer bytes` needs nothing"
        raise TextRefused((Fault("tokenizer", 0, "", told),)) from None
    return tokenizers
