"""The store: the folder or bucket that holds everything, and the only truth.

Small things are put whole and only where nothing is (`put`). Large files are staged, fsynced, hashed and
put, and count only from the moment that a manifest with their SHA-256 stands beside them (`commit`); what
has no manifest is not there. Nothing that was committed is ever overwritten.

The interface is the part of an object store that all of them have: put-if-absent, get, list, delete. A folder may
lie on NFS: a hard link is the one operation that its server decides for all clients, and a reader that asks for a
key by name finds it at once, while a listing may be seconds old.

    format.json                              what this folder is
    studies/NAME.0001.json                   a study as it was submitted
    tasks/DIGEST.py                          the source of a user's own task
    corpora/DIGEST.0001.json                 where a corpus lies that runs train on
    attempts/RUN.0001.json                   the claim of an attempt: the fence
    packs/PACK/…                             request, claim, shards, checkpoints, log, outcome of a pack
    tables/NAME.000001/…                     what the collector made of it
"""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TextIO

from jobs.errors import AlreadyExists, Corrupt, ForeignStore, NotFound, StoreError
from jobs.identity import canonical_json, sha256
from jobs.local_files import fsync_folder, hash_file, put_link, storage_errors, write_synced

FORMAT = {"format": "seedbed-store", "version": 2}
FORMAT_KEY = "format.json"
_STAGING = "staging"
_OWN_HASH = "self_sha256"


class Store(Protocol):
    """What everything else may do with a store. Keys are relative POSIX paths."""

    @property
    def url(self) -> str:
        """Return the address under which `open_store` finds this store again."""

    def put(self, key: str, data: bytes) -> None:
        """Make `data` durable under `key`; raises AlreadyExists where something is, StoreFull, StoreError."""

    def put_file(self, key: str, path: Path) -> None:
        """Make the staged file at `path` durable under `key`, as `put` does; the staged file is used up."""

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`; raises NotFound."""

    def exists(self, key: str) -> bool:
        """Return whether something is under `key`."""

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove `key`; nothing happens where nothing is."""

    def local(self, key: str) -> Path:
        """Return a local file with the bytes of `key`, to be read only; raises NotFound."""

    def scratch(self, suffix: str) -> AbstractContextManager[Path]:
        """Return a context that gives the path of a staged file and removes what is left of it."""

    def log(self, key: str) -> AbstractContextManager[TextIO]:
        """Return a context that gives a text file to write on; a reader of `key` sees it grow. It decides nothing."""


@dataclass(frozen=True, slots=True)
class LocalStore:
    """A store in a folder of a local disk or a shared file system with atomic hard links."""

    root: Path

    @property
    def url(self) -> str:
        """Return the absolute path of the folder."""
        return str(self.root)

    def put(self, key: str, data: bytes) -> None:
        """Make `data` durable under `key`: stage, fsync, link, fsync the folder."""
        with self.scratch(".part") as staged:
            with storage_errors(key):
                write_synced(staged, data)
            self.put_file(key, staged)

    def put_file(self, key: str, path: Path) -> None:
        """Link the staged file to its name; a link cannot replace, so the first one wins."""
        target = self._path(key)
        with storage_errors(key):
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                fsync_folder(target.parent.parent)
            put_link(path, target, key)

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`."""
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise NotFound(key) from None

    def exists(self, key: str) -> bool:
        """Return whether a file is under `key`."""
        return self._path(key).is_file()

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, sorted; staged files are not there."""
        folder = prefix.rpartition("/")[0]
        top = self._path(folder) if folder else self.root
        names = (key for key in self._walk(top, folder) if key.startswith(prefix)) if top.is_dir() else iter(())
        return sorted(key for key in names if not key.startswith(_STAGING + "/"))

    def _walk(self, folder: Path, key: str) -> Iterator[str]:
        with os.scandir(folder) as entries:
            for entry in entries:
                inner = f"{key}/{entry.name}" if key else entry.name
                if entry.is_dir(follow_symlinks=False):
                    yield from self._walk(Path(entry.path), inner)
                else:
                    yield inner

    def delete(self, key: str) -> None:
        """Remove the file under `key`."""
        with storage_errors(key):
            self._path(key).unlink(missing_ok=True)

    def local(self, key: str) -> Path:
        """Return the file itself."""
        if not self.exists(key):
            raise NotFound(key)
        return self._path(key)

    @contextmanager
    def scratch(self, suffix: str) -> Iterator[Path]:
        """Yield the path of a staged file in the store's own file system, and remove what is left of it."""
        folder = self.root / _STAGING
        with storage_errors(_STAGING):
            folder.mkdir(exist_ok=True)
        # A name that no other process has; it decides nothing and appears nowhere.
        path = folder / f"{os.getpid()}-{secrets.token_hex(6)}{suffix}"
        try:
            yield path
        finally:
            with storage_errors(_STAGING):
                path.unlink(missing_ok=True)

    @contextmanager
    def log(self, key: str) -> Iterator[TextIO]:
        """Yield the file itself, open to be written on."""
        path = self._path(key)
        with storage_errors(key):
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a", encoding="utf-8")
        try:
            yield file
        finally:
            with suppress(OSError):  # what a full disk does to the log must not hide what it did to the store
                file.close()

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if key.startswith("/") or ".." in parts or "\0" in key:
            raise NotFound(key, "is not a key: it leads out of the store")
        return self.root.joinpath(*parts)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What makes a file count: its key, its size, its hash, and what else its writer said of it."""

    key: str
    size_bytes: int
    sha256: str
    extra: dict[str, Any]


def open_store(url: str | Path, *, create: bool = False) -> Store:
    """Return the store at `url`: a folder, or s3://bucket/prefix, gs://… or az://….

    With `create`, an empty or missing folder or prefix becomes a store. Raises ForeignStore for one that holds
    something else, or a store of another format; StoreDenied and StoreUnreachable.
    """
    if is_url(str(url)):
        return _open_bucket(str(url), create=create)
    root = Path(url).expanduser().absolute()
    store = LocalStore(root)
    if store.exists(FORMAT_KEY):
        _check_format(store)
        return store
    if root.exists() and not root.is_dir():
        raise ForeignStore(str(root), "is a file, not a store")
    if root.is_dir() and any(entry.name != _STAGING for entry in root.iterdir()):
        raise ForeignStore(str(root), "holds files but no format.json: this is not a Seedbed store")
    if not create:
        raise ForeignStore(str(root), "there is no store here")
    with storage_errors(str(root)):
        root.mkdir(parents=True, exist_ok=True)
    _put_format(store)
    return store


def is_url(url: str) -> bool:
    """Return whether an address is a bucket's, and not a folder's."""
    return "://" in url


def _open_bucket(url: str, *, create: bool) -> Store:
    from jobs.bucket import open_bucket  # a client that who has a folder does not need

    store = open_bucket(url)
    first = store.impatient()
    if first.exists(FORMAT_KEY):
        _check_format(first)
        return store
    if first.keys(""):
        raise ForeignStore(store.url, "holds files but no format.json: this is not a Seedbed store")
    if not create:
        raise ForeignStore(store.url, "there is no store here")
    _put_format(first)
    # Some that speak S3 ignore the condition of a put, and then every claim would be held by two.
    try:
        first.put(FORMAT_KEY, canonical_json(FORMAT))
    except AlreadyExists:
        return store
    raise StoreError(store.url, "overwrites where it was told to put only if nothing is there: no store can lie here")


def _put_format(store: Store) -> None:
    try:
        store.put(FORMAT_KEY, canonical_json(FORMAT))
    except AlreadyExists:  # another process opened the same store first
        _check_format(store)


def _check_format(store: Store) -> None:
    try:
        found = json.loads(store.get(FORMAT_KEY))
    except ValueError:
        found = None
    if found != FORMAT:
        raise ForeignStore(store.url, f"has format {found}; this version of Seedbed reads and writes {FORMAT}")


def commit(store: Store, key: str, write: Callable[[Path], dict[str, Any]]) -> Manifest:
    """Stage a file with `write`, hash it, put it under `key`, and commit it by its manifest; returns that.

    `write` fills the file at the path it is given and returns what the manifest shall say beside the hash.
    """
    with store.scratch(Path(key).suffix) as staged:
        with storage_errors(key):
            extra = write(staged)
            digest, size_bytes = hash_file(staged, sync=True)
        store.put_file(key, staged)
    manifest = Manifest(key, size_bytes, digest, extra)
    put_record(store, manifest_key(key), asdict(manifest))
    return manifest


def manifest_key(key: str) -> str:
    """Return the key of the manifest of the file under `key`."""
    return f"{key}.manifest.json"


def read_manifest(store: Store, key: str) -> Manifest:
    """Return the manifest of the file under `key`; raises NotFound, or Corrupt where it was changed."""
    name = manifest_key(key)
    try:
        manifest = Manifest(**get_record(store, name))
    except TypeError as error:
        raise Corrupt(name, f"is not a manifest ({error})") from None
    if manifest.key != key:
        raise Corrupt(name, f"is the manifest of {manifest.key}")
    return manifest


def committed(store: Store, prefix: str) -> list[str]:
    """Return the keys under `prefix` that are committed: those with a manifest beside them, sorted."""
    ending = manifest_key("")
    return [key.removesuffix(ending) for key in store.keys(prefix) if key.endswith(ending)]


def verified(store: Store, manifest: Manifest) -> Path:
    """Return a local file with the committed bytes, after comparing its hash; raises Corrupt, NotFound."""
    path = store.local(manifest.key)
    digest, size_bytes = hash_file(path, sync=False)
    if (digest, size_bytes) != (manifest.sha256, manifest.size_bytes):
        raise Corrupt(manifest.key, f"has SHA-256 {digest[:12]}…, was committed with {manifest.sha256[:12]}…")
    return path


def put_same(store: Store, key: str, data: bytes) -> None:
    """Put `data` under `key`, or find it there; raises Corrupt where there is something else."""
    try:
        store.put(key, data)
    except AlreadyExists:
        if store.get(key) != data:
            raise Corrupt(key, "holds other bytes than those that its name stands for") from None


def put_record(store: Store, key: str, body: dict[str, Any]) -> None:
    """Put a JSON object under `key` together with the hash of both; raises AlreadyExists."""
    store.put(key, canonical_json({**body, _OWN_HASH: _own_hash(key, body)}))


def get_record(store: Store, key: str) -> dict[str, Any]:
    """Return the JSON object under `key`; raises NotFound, or Corrupt where it is not what was put."""
    try:
        body = json.loads(store.get(key))
        own = body.pop(_OWN_HASH)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(key, f"is not a record ({type(error).__name__}: {error})") from None
    if own != _own_hash(key, body):
        raise Corrupt(key, "was changed after it was written, or is the record of another key")
    return dict(body)


def _own_hash(key: str, body: dict[str, Any]) -> str:
    """Return the hash that binds a record to its key, so that none can stand in another's place."""
    return sha256(key.encode() + b"\n" + canonical_json(body))
