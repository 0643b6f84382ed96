"""Tables in the store: one folder per version, committed by one manifest, so that a reader never sees half.

    tables/NAME.000007/claim.json                            who writes this version; nobody else may
    tables/NAME.000007/runs.parquet …                        the small tables
    tables/NAME.000007/metrics/condition_id=C/part-00000.parquet
    tables/NAME.000007/manifest.json                         comes last, names every file with its hash

A version is whole by itself, in plain Parquet with folders as Hive names them: any reader opens the folder without
Seedbed. A part that did not change is the same file under one more name, not a copy, where the store's disk can do
that. A version with the bytes of the newest one is not written. The two newest stay; an older one goes only after its
successor is durable.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs.errors import AlreadyExists, Corrupt, NotFound
from jobs.identity import canonical_json, sha256
from jobs.layout import part_key, table_folder
from jobs.local_files import hash_file, storage_errors
from jobs.parquet import read_table, write_table
from jobs.records import TABLES
from jobs.store import Manifest, Store, get_record, put_record, verified
from orchestrator.collected import Collected, Placed, Tables
from orchestrator.parts import Part
from orchestrator.plain_parts import collected_from

_KEPT = 2
_MEANING = 1  # of the manifest's fields


def layout_of(schemas: Mapping[str, pa.Schema]) -> str:
    """Return the name of what a manifest and its tables mean; tables of other columns are not read."""
    columns = {name: [[field.name, str(field.type)] for field in schema] for name, schema in schemas.items()}
    return f"{_MEANING}-{sha256(canonical_json(columns))[:16]}"


_LAYOUT = layout_of(TABLES)
_MANIFEST = "manifest.json"
_CLAIM = "claim.json"
_IN_VERSION = re.compile(r"^tables/.+\.\d{6}/")
_SMALL = {name: schema for name, schema in TABLES.items() if name != "metrics"}


def commit_tables(store: Store, study: str, tables: Tables) -> int:
    """Make `tables` the newest version of the study's tables, if they differ from it; returns its number."""
    collected = tables if isinstance(tables, Collected) else collected_from(tables)
    versions = _versions(store, study)
    whole = [number for number in versions if versions[number]]
    newest = max(whole, default=0)
    with contextlib.ExitStack() as stack:
        staged: dict[str, Path] = {}
        small: dict[str, dict[str, str | int]] = {}
        for name in _SMALL:
            staged[name] = stack.enter_context(store.scratch(".parquet"))
            with storage_errors(f"tables/{study}"):
                write_table(collected.small[name], staged[name])
                digest, size_bytes = hash_file(staged[name], sync=True)
            small[name] = {"sha256": digest, "size_bytes": size_bytes, "rows": collected.small[name].num_rows}
        parts = [asdict(placed.part) for placed in collected.parts]
        body = {"layout": _LAYOUT, "tables": small, "parts": parts, "rolled": collected.rolled}
        if newest and _is_same(store, study, newest, body):
            return newest
        number = _claim(store, study, max(versions, default=0) + 1)
        for name, path in staged.items():
            store.put_file(f"{table_folder(study, number)}{name}.parquet", path)
        for placed in collected.parts:
            _share(store, placed, part_key(study, number, placed.part.condition_id, placed.part.number))
        put_record(store, table_folder(study, number) + _MANIFEST, body)
    for placed in collected.parts:
        _settle(store, placed, part_key(study, number, placed.part.condition_id, placed.part.number))
    # Half versions of collectors that died go with the old ones; one that is at work is younger than the newest.
    for old in sorted(set(versions) - set(sorted([*whole, number])[-_KEPT:])):
        if old < number:
            _drop(store, study, old)
    return number


def _claim(store: Store, study: str, number: int) -> int:
    """Return the first number from `number` on that nobody else writes."""
    while True:
        try:
            put_record(store, table_folder(study, number) + _CLAIM, {"study": study, "version": number})
        except AlreadyExists:
            number += 1
        else:
            return number


def _share(store: Store, placed: Placed, key: str) -> None:
    """Give the part's file one more name in the store; its bytes are copied only where the disk cannot link them."""
    path = placed.path()
    with store.scratch(".parquet") as staged:
        with storage_errors(key):
            try:
                os.link(path, staged)
            except OSError:
                shutil.copyfile(path, staged)
                hash_file(staged, sync=True)
        store.put_file(key, staged)


def _settle(store: Store, placed: Placed, key: str) -> None:
    """Let the part lie in its version alone: where it was made it is not wanted any more."""
    before, was = placed.store, placed.key
    placed.moved(store, key)
    if before.url == store.url and not _IN_VERSION.match(was):
        before.delete(was)


def _is_same(store: Store, study: str, number: int, body: dict[str, Any]) -> bool:
    """Return whether that version has these tables; a version that cannot be read has not."""
    try:
        return canonical_json(get_record(store, table_folder(study, number) + _MANIFEST)) == canonical_json(body)
    except Corrupt:
        return False


def newest_tables(store: Store, study: str) -> Collected:
    """Return the newest tables of the study; small ones verified, each part of `metrics` when it is first read.

    Raises NotFound where none were collected, Corrupt.
    """
    while True:
        newest = max((number for number, whole in _versions(store, study).items() if whole), default=0)
        if not newest:
            raise NotFound(f"tables/{study}", "was not collected yet")
        try:
            return _read(store, study, newest)
        except NotFound:
            # Two versions were committed since it was found, and this one is gone; a file that is missing is an error.
            if max((number for number, whole in _versions(store, study).items() if whole), default=0) == newest:
                raise


def read_tables(store: Store, study: str) -> Collected:
    """Return the newest tables of the study, all of them verified; raises NotFound, Corrupt."""
    found = newest_tables(store, study)
    for placed in found.parts:
        placed.path()
    return found


def _read(store: Store, study: str, number: int) -> Collected:
    folder = table_folder(study, number)
    body = get_record(store, folder + _MANIFEST)
    if body.get("layout") != _LAYOUT or not set(_SMALL) <= set(body["tables"]):
        raise NotFound(folder, "was collected by another version of Seedbed; collect again")
    small: dict[str, pa.Table] = {}
    for name, schema in _SMALL.items():
        entry = body["tables"][name]
        manifest = Manifest(f"{folder}{name}.parquet", entry["size_bytes"], entry["sha256"], {})
        small[name] = read_table(verified(store, manifest), schema)
        if small[name].num_rows != entry["rows"]:
            raise Corrupt(manifest.key, "has another number of rows than was committed")
    parts = [Part(**_tuples(entry)) for entry in body["parts"]]
    placed = (Placed(part, store, part_key(study, number, part.condition_id, part.number)) for part in parts)
    return Collected(small, tuple(placed), body["rolled"])


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}


def _versions(store: Store, study: str) -> dict[int, bool]:
    """Return number → whether it is committed, for every version that has any file."""
    found: dict[int, bool] = {}
    for number, name in _files(store, study):
        found[number] = found.get(number, False) or name == _MANIFEST
    return found


def _files(store: Store, study: str) -> Iterator[tuple[int, str]]:
    pattern = re.compile(rf"^tables/{re.escape(study)}\.(\d{{6}})/(.+)$")
    for key in store.keys(f"tables/{study}."):
        if match := pattern.match(key):
            yield int(match[1]), match[2]


def _drop(store: Store, study: str, number: int) -> None:
    folder = table_folder(study, number)
    store.delete(folder + _MANIFEST)
    for key in store.keys(folder):
        store.delete(key)
