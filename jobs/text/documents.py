"""Documents from files: plain text, JSON lines, Parquet; read one by one, never a file at once but for plain text.

Their order is that of the files as given, folders sorted by name: the same command gives the same corpus anywhere.
"""

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.errors import Fault, TextRefused
from jobs.store import is_url

Split = Literal["file", "paragraph", "line"]
_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
_PLAIN = (".txt", ".text", ".md", ".rst")
KINDS = (*_PLAIN, *_LINES, ".parquet")


@dataclass(frozen=True, slots=True)
class Source:
    """A file with documents: its name as given, and where it lies here."""

    name: str
    path: Path
    size_bytes: int


def find_sources(names: Sequence[str]) -> list[Source]:
    """Return the files that are named, in folders and buckets those of a known kind; raises TextRefused for none."""
    found: list[Source] = []
    faults = []
    for name in names:
        try:
            here = list(_in_bucket(name) if is_url(name) else _in_folder(Path(name)))
        except OSError as error:
            faults.append(Fault(name, 0, "", f"cannot be read: {error.strerror}"))
            continue
        if not here:
            faults.append(Fault(name, 0, "", f"no file here ends in {', '.join(KINDS)}"))
        found += here
    if faults:
        raise TextRefused(tuple(faults))
    return found


def _in_folder(path: Path) -> Iterator[Source]:
    files = [path] if not path.is_dir() else sorted(p for p in path.rglob("*") if p.is_file() and _kind(p.name))
    for file in files:
        yield Source(str(file), file, file.stat().st_size)


def _in_bucket(url: str) -> Iterator[Source]:
    from jobs.bucket import open_bucket  # a client that who has a folder does not need

    folder, _, last = url.rpartition("/")
    # A file is named with its ending; everything else is a prefix.
    store, keys = (open_bucket(folder), [last]) if _kind(last) else (open_bucket(url), None)
    for key in store.keys("") if keys is None else keys:
        if _kind(key):
            path = store.local(key)
            yield Source(f"{store.url}/{key}", path, path.stat().st_size)


def _kind(name: str) -> str:
    return next((ending for ending in KINDS if name.lower().endswith(ending)), "")


def read_documents(source: Source, split: Split, field: str) -> Iterator[str]:
    """Yield the documents of a file; raises TextRefused that names the file, and the line where there is one.

    split  what a document of a plain text file is
    field  the key of the text in JSON lines, the column of the text in Parquet
    """
    kind = _kind(source.name)
    try:
        if kind in _LINES:
            yield from _json_lines(source, field)
        elif kind == ".parquet":
            yield from _parquet(source, field)
        else:
            yield from _plain(source, split)
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:
        raise TextRefused((Fault(source.name, 0, "", f"cannot be read: {error}"),)) from error


def _plain(source: Source, split: Split) -> Iterator[str]:
    if split == "file":
        yield from filter(str.strip, [source.path.read_text(encoding="utf-8")])
        return
    held: list[str] = []
    with source.path.open(encoding="utf-8") as lines:
        for line in lines:
            if line.strip():
                held.append(line)
            if held and (split == "line" or not line.strip()):
                yield "".join(held).rstrip("\n")
                held.clear()
    if held:
        yield "".join(held).rstrip("\n")


def _json_lines(source: Source, field: str) -> Iterator[str]:
    zipped = source.name.lower().endswith(".gz")
    with gzip.open(source.path, "rb") if zipped else source.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                text = json.loads(line)[field]
            except ValueError as error:
                raise TextRefused((Fault(source.name, number, "", f"is not JSON: {error}"),)) from None
            except (KeyError, TypeError):
                raise TextRefused((Fault(source.name, number, field, "is not in this line"),)) from None
            if not isinstance(text, str):
                raise TextRefused((Fault(source.name, number, field, f"is not text but {type(text).__name__}"),))
            if text.strip():
                yield text


def _parquet(source: Source, field: str) -> Iterator[str]:
    with pq.ParquetFile(source.path) as file:
        if field not in file.schema_arrow.names:
            there = ", ".join(file.schema_arrow.names)
            raise TextRefused((Fault(source.name, 0, field, f"is no column; there are {there}"),))
        for batch in file.iter_batches(1024, columns=[field]):
            for text in batch.column(0).to_pylist():
                if isinstance(text, str) and text.strip():
                    yield text
