"""A store in a bucket: S3 and what speaks its language, Google Cloud Storage, Azure.

Promises what a folder does: a key is put whole and once, and a reader gets the bytes that were put. Credentials
come from the environment or from what the machine is (an instance's role), never from the address.

A put whose reply is lost looks like a failure, or, tried again, like somebody else's success. So every object
carries a mark of its writer: who meets AlreadyExists under its own mark has won. It carries its SHA-256, too, and
a download that differs is fetched once more before it is called corrupt.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import urlsplit

import obstore
from obstore import exceptions as refused
from obstore.store import from_url

from jobs.bucket_log import BucketLog
from jobs.download_cache import DownloadCache, process_cache
from jobs.errors import AlreadyExists, Corrupt, ForeignStore, NotFound, StoreDenied, StoreError, StoreUnreachable
from jobs.identity import sha256
from jobs.local_files import hash_file, storage_errors

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

SCHEMES = ("s3", "gs", "az")
PATIENCE_S = 180.0  # of one request, with all its retries: a cluster's network comes back within it or not at all
_OPENING_S = 10.0  # the first request of all: a mistyped address shall not take minutes
_MOST_RETRIES = 30
_PUTS = 3  # a put is not repeated by the client once its bytes are under way; after asking who won, it is here
_WHOLE_BYTES = 512 << 20  # above, a file goes up in parts, and parts know no put-if-absent
_WRITER, _HASH = "seedbedwriter", "seedbedsha256"  # Azure wants names that are identifiers


def check_url(url: str) -> str:
    """Return the address without a slash at its end; raises ForeignStore where it is no bucket's, or tells a secret."""
    parts = urlsplit(url)
    safe = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in SCHEMES:
        raise ForeignStore(safe, f"a store is a folder, or an address that begins with {', '.join(SCHEMES)}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ForeignStore(safe, "an address holds no credentials and no options: they belong into the environment")
    if not parts.netloc:
        raise ForeignStore(safe, "names no bucket; an address is such as s3://bucket/prefix")
    return safe.rstrip("/")


def open_bucket(url: str, patience_s: float = PATIENCE_S) -> "BucketStore":
    """Return the store at the address; nothing is sent yet. Raises ForeignStore for an address that is none."""
    return BucketStore(check_url(url), patience_s)


@dataclass(frozen=True, slots=True)
class BucketStore:
    """A store under a prefix of a bucket.

    url         the address, such as s3://bucket/prefix
    patience_s  how long one request is tried again while the bucket cannot be reached
    """

    url: str
    patience_s: float = PATIENCE_S
    _remote: "ObjectStore" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_remote", _connect(self.url, self.patience_s))

    def impatient(self) -> "BucketStore":
        """Return the same store for the first request of all, which fails within seconds."""
        return BucketStore(self.url, min(_OPENING_S, self.patience_s))

    def put(self, key: str, data: bytes) -> None:
        """Make `data` durable under `key`."""
        self._create(key, data, sha256(data))

    def put_file(self, key: str, path: Path) -> None:
        """Upload the staged file; above 512 MiB the last of two writers of one key wins, and no key has two."""
        with storage_errors(key):
            digest, size_bytes = hash_file(path, sync=False)
        if size_bytes <= _WHOLE_BYTES:
            self._create(key, path, digest)
        elif self.exists(key):
            raise AlreadyExists(key)
        else:
            with self._answers(key):
                obstore.put(self._remote, _checked(key), path, attributes={_HASH: digest}, use_multipart=True)
        path.unlink(missing_ok=True)

    def _create(self, key: str, data: bytes | Path, digest: str) -> None:
        writer = secrets.token_hex(16)
        marks: Any = {_WRITER: writer, _HASH: digest}
        for attempt in range(1, _PUTS + 1):
            try:
                with self._answers(key):
                    obstore.put(self._remote, _checked(key), data, mode="create", attributes=marks, use_multipart=False)
                return
            except (AlreadyExists, StoreUnreachable) as error:
                holder = self._writer_of(key)
                if holder == writer:
                    return
                if holder is not None:
                    raise AlreadyExists(key) from None
                if isinstance(error, AlreadyExists) or attempt == _PUTS:
                    raise

    def _writer_of(self, key: str) -> str | None:
        """Return the mark of whoever put the key, "" where there is none, or None where nothing was put."""
        try:
            with self._answers(key):
                return str(obstore.get(self._remote, key).attributes.get(_WRITER, ""))
        except NotFound:
            return None

    def get(self, key: str) -> bytes:
        """Return the bytes under `key`; raises NotFound, or Corrupt where they are not those that were put."""
        for _ in range(2):
            with self._answers(key):
                answer = obstore.get(self._remote, _checked(key))
                data = bytes(answer.bytes())
            if answer.attributes.get(_HASH) in (None, sha256(data)):
                return data
        raise Corrupt(key, "was downloaded twice, and is not what was put")

    def exists(self, key: str) -> bool:
        """Return whether something is under `key`."""
        try:
            with self._answers(key):
                obstore.head(self._remote, _checked(key))
        except NotFound:
            return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, sorted."""
        # The client lists by whole segments of a path: `a/b` would not find `a/b.json`.
        folder = prefix.rpartition("/")[0]
        with self._answers(prefix):
            pages = obstore.list(self._remote, prefix=folder or None, chunk_size=1000)
            return sorted(str(item["path"]) for page in pages for item in page if item["path"].startswith(prefix))

    def delete(self, key: str) -> None:
        """Remove `key`."""
        _cache().drop(self.url, key)
        try:
            with self._answers(key):
                obstore.delete(self._remote, _checked(key))
        except NotFound:
            return

    def local(self, key: str) -> Path:
        """Return a downloaded copy, private to this process and its user; a key is downloaded once while it lasts."""
        cached = _cache().find(self.url, key)
        if cached is not None:
            return cached
        for _ in range(2):
            with self._answers(key):
                answer = obstore.get(self._remote, _checked(key))
                with storage_errors(key), _cache().filling(self.url, key) as staged:
                    with staged.open("wb") as file:
                        for chunk in answer:
                            file.write(bytes(chunk))
                    if answer.attributes.get(_HASH) in (None, hash_file(staged, sync=False)[0]):
                        return _cache().keep(self.url, key, staged)
        raise Corrupt(key, "was downloaded twice, and is not what was put")

    @contextmanager
    def scratch(self, suffix: str) -> Iterator[Path]:
        """Yield the path of a staged file on this machine, and remove what is left of it."""
        with storage_errors("scratch"):
            path = _cache().folder / f"{secrets.token_hex(6)}{suffix}"
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)

    @contextmanager
    def log(self, key: str) -> Iterator[TextIO]:
        """Yield a text file; what is written is in the bucket within seconds, and all of it at the end."""
        checked = _checked(key)

        def upload(text: str) -> None:
            with self._answers(key):
                obstore.put(self._remote, checked, text.encode())

        with BucketLog(upload) as log:
            yield log

    @contextmanager
    def _answers(self, key: str) -> Iterator[None]:
        """Turn the client's errors into the store's."""
        try:
            yield
        except refused.AlreadyExistsError:
            raise AlreadyExists(key) from None
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise StoreError(self.url, "there is no such bucket") from None
            raise NotFound(key) from None
        except (refused.PermissionDeniedError, refused.UnauthenticatedError) as error:
            raise StoreDenied(self.url, f"access to {key or 'the bucket'} was denied: {_brief(error)}") from None
        except (refused.BaseError, OSError) as error:
            raise self._failure(key, error) from None

    def _failure(self, key: str, error: Exception) -> StoreError:
        text = str(error)
        if "NoSuchBucket" in text or "ContainerNotFound" in text:
            return StoreError(self.url, "there is no such bucket")
        if "169.254.169.254" in text or "metadata.google" in text or "computeMetadata" in text:
            told = "no credentials in the environment, and this machine has no role; see docs/cluster.md"
            return StoreDenied(self.url, told)
        if "HTTP error" in text or "status code: 5" in text or "timed out" in text:
            return StoreUnreachable(self.url, f"cannot be reached: {_brief(error)}")
        return StoreError(key or self.url, _brief(error))


def _connect(url: str, patience_s: float) -> "ObjectStore":
    retry: RetryConfig = {
        "max_retries": _MOST_RETRIES,
        "retry_timeout": timedelta(seconds=patience_s),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=10), "base": 2},
    }
    client: ClientConfig = {"timeout": timedelta(minutes=10), "connect_timeout": timedelta(seconds=5)}
    if _speaks_http():
        client["allow_http"] = True
    try:
        # Called by the scheme at hand, the overloads of the client cannot tell which store it is.
        made: ObjectStore = from_url(url, client_options=client, retry_config=retry)
    except (refused.BaseError, ValueError, OSError) as error:
        raise ForeignStore(url, f"cannot be opened: {_brief(error)}") from None
    return made


def _speaks_http() -> bool:
    """Return whether the endpoint in the environment is one without TLS, on this machine or by the user's word."""
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "")
    allowed = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    return endpoint.scheme == "http" and (allowed or endpoint.hostname in ("localhost", "127.0.0.1", "::1"))


def _checked(key: str) -> str:
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise NotFound(key, "is not a key: it leads out of the store")
    return key


def _brief(error: Exception) -> str:
    """Return the first line of an error without what follows `?` in addresses, which may be a signature."""
    first = str(error).strip().partition("\n")[0]
    return re.sub(r"\?\S+", "?…", first)[:400]


def _cache() -> DownloadCache:
    return process_cache(os.getpid())
