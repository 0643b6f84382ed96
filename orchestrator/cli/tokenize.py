"""`seedbed tokenize`: text → a corpus that studies train on."""

import time
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from jobs.errors import Fault, TextRefused
from jobs.store import Store, open_store
from jobs.text.corpus import TOKENIZER_KEY
from jobs.text.documents import Source, Split, find_sources, read_documents
from jobs.text.tokenizer import Tokenizer, VocabularyTokenizer, read_tokenizer, train_tokenizer
from jobs.text.writer import Form, tokenize
from orchestrator.cli.options import AsJson
from orchestrator.cli.show import console, print_json, working
from orchestrator.text import duration


def command(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Plain text, JSON lines or Parquet: files, folders, s3://bucket/prefix."),
    ],
    to: Annotated[str, typer.Option("--to", metavar="CORPUS", help="A new folder, or s3://bucket/prefix.")],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="`bytes`, or the tokenizer.json of a model; see also --train.")
    ] = "bytes",
    train: Annotated[
        int, typer.Option("--train", metavar="IDS", min=0, help="Train a byte-level BPE with so many ids on the text.")
    ] = 0,
    split: Annotated[
        Split, typer.Option("--split", help="What a document of a plain text file is: file, paragraph or line.")
    ] = "file",
    field: Annotated[str, typer.Option("--field", help="The key or column of the text: JSON lines, Parquet.")] = "text",
    shard_tokens: Annotated[int, typer.Option("--shard-tokens", min=1, help="The size of a file of tokens.")] = 1 << 25,
    as_json: AsJson = False,
) -> None:
    """Turn text into a corpus: hashed files of tokens that a study's task `text` trains on.

    The same command goes on where an earlier one was interrupted, and does nothing where a corpus is whole.

    [bold]Example:[/bold] seedbed tokenize books/ --to corpora/books --train 8192
    """
    if train and tokenizer != "bytes":
        raise TextRefused((Fault("--train", 0, "", "is for a new tokenizer, and --tokenizer names one"),))
    began = time.monotonic()
    sources, form = find_sources(files), Form(split, field, shard_tokens)
    store = open_store(to, create=True)
    with working(f"{to}: reading", quiet=as_json) as watch:
        made = _trained(store, sources, form, train) if train else read_tokenizer(tokenizer)
        info = tokenize(store, sources, made, form, watch)
    if as_json:
        told = {"corpus": store.url, "digest": info.digest, "tokenizer": info.tokenizer, "vocabulary": info.vocabulary}
        print_json(told | {"documents": info.documents, "tokens": info.tokens, "shards": len(info.shards)})
        return
    text = f"{to}: {info.documents:,} documents, {info.tokens:,} tokens of {info.vocabulary:,} ids, {info.digest[:19]}…"
    console.print(f"{text}, in {duration(time.monotonic() - began)}.", highlight=False, markup=False)
    name = Path(to).name.replace("-", "_")
    console.print(f"In a study: task: {{name: text, corpora: {{{name}: {to}}}, context: 128}}", markup=False)


def _trained(store: Store, sources: list[Source], form: Form, vocabulary: int) -> Tokenizer:
    """Return the tokenizer that was trained for this corpus, or train one."""
    if store.exists(TOKENIZER_KEY):
        made = VocabularyTokenizer(store.get(TOKENIZER_KEY))
        if made.vocabulary != vocabulary:
            told = f"{vocabulary} ids were asked for, and this corpus has a tokenizer of {made.vocabulary}"
            raise TextRefused((Fault("--train", 0, "", f"{told}: give another folder"),))
        return made
    documents = chain.from_iterable(read_documents(source, form.split, form.field) for source in sources)
    return train_tokenizer(documents, vocabulary)
