"""Tables in the store: one folder per version, committed by one manifest, so that a reader never sees half.

A version with the bytes of the newest one is not written. The two newest stay; an older one goes only after
its successor is durable. The files are plain Parquet: any reader opens them without Seedbed.
"""

import contextlib
import re
from pathlib import Path

from jobs.errors import AlreadyExists, Corrupt, NotFound
from jobs.layout import table_folder
from jobs.local_files import hash_file, storage_errors
from jobs.parquet import read_table, write_table
from jobs.records import TABLES
from jobs.store import Manifest, Store, get_record, put_record, verified
from orchestrator.collector import Tables

_KEPT = 2
_MANIFEST = "manifest.json"


def commit_tables(store: Store, study: str, tables: Tables) -> int:
    """Make `tables` the newest version of the study's tables, if they differ from it; returns its number."""
    versions = _versions(store, study)
    whole = [number for number in versions if versions[number]]
    newest = max(whole, default=0)
    with contextlib.ExitStack() as stack:
        staged: dict[str, Path] = {}
        body: dict[str, dict[str, str | int]] = {}
        for name in TABLES:
            staged[name] = stack.enter_context(store.scratch(".parquet"))
            with storage_errors(f"tables/{study}"):
                write_table(tables[name], staged[name])
                digest, size_bytes = hash_file(staged[name], sync=True)
            body[name] = {"sha256": digest, "size_bytes": size_bytes, "rows": tables[name].num_rows}
        if newest and _is_same(store, study, newest, body):
            return newest
        number = max(versions, default=0) + 1
        folder = table_folder(study, number)
        try:
            for name, path in staged.items():
                store.put_file(f"{folder}{name}.parquet", path)
            put_record(store, folder + _MANIFEST, {"tables": body})
        except AlreadyExists:  # somebody else collected at the same moment; theirs is as good
            return number
    for old in sorted(whole)[: -_KEPT + 1]:
        _drop(store, study, old)
    return number


def _is_same(store: Store, study: str, number: int, body: dict[str, dict[str, str | int]]) -> bool:
    """Return whether that version has these tables; a version that cannot be read has not."""
    try:
        return get_record(store, table_folder(study, number) + _MANIFEST) == {"tables": body}
    except Corrupt:
        return False


def read_tables(store: Store, study: str) -> Tables:
    """Return the newest tables of the study, verified; raises NotFound where none were collected, Corrupt."""
    newest = max((number for number, whole in _versions(store, study).items() if whole), default=0)
    if not newest:
        raise NotFound(f"tables/{study}", "was not collected yet")
    folder = table_folder(study, newest)
    listed = get_record(store, folder + _MANIFEST)["tables"]
    found: Tables = {}
    for name, schema in TABLES.items():
        entry = listed[name]
        manifest = Manifest(f"{folder}{name}.parquet", entry["size_bytes"], entry["sha256"], {})
        found[name] = read_table(verified(store, manifest), schema)
        if found[name].num_rows != entry["rows"]:
            raise Corrupt(manifest.key, "has another number of rows than was committed")
    return found


def _versions(store: Store, study: str) -> dict[int, bool]:
    """Return number → whether it is committed, for every version that has any file."""
    pattern = re.compile(rf"^tables/{re.escape(study)}\.(\d{{6}})/(.+)$")
    found: dict[int, bool] = {}
    for key in store.keys(f"tables/{study}."):
        if match := pattern.match(key):
            number = int(match[1])
            found[number] = found.get(number, False) or match[2] == _MANIFEST
    return found


def _drop(store: Store, study: str, number: int) -> None:
    folder = table_folder(study, number)
    store.delete(folder + _MANIFEST)
    for name in TABLES:
        store.delete(f"{folder}{name}.parquet")
