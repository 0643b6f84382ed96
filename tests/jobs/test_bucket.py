"""The bucket's own promises: lost replies, refused credentials, rotten downloads, a bounded cache."""

import pickle
import stat
import threading
from pathlib import Path

import obstore
import pytest

from jobs.bucket import BucketStore, check_url, open_bucket
from jobs.bucket_log import BucketLog
from jobs.download_cache import DownloadCache
from jobs.errors import (
    AlreadyExists,
    Corrupt,
    ForeignStore,
    NotFound,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from jobs.store import commit, open_store, verified
from tests.s3 import relay


def through(monkeypatch: pytest.MonkeyPatch, url: str, endpoint: str, patience_s: float = 20.0) -> BucketStore:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    return open_bucket(url, patience_s)


def test_a_put_whose_reply_was_lost_is_ours(bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with relay(s3_endpoint, lambda method, path, n: "lose-reply" if method == "PUT" and n == 0 else "pass") as address:
        store = through(monkeypatch, bucket_url, address)
        store.put("claim.json", b"mine")
        with pytest.raises(AlreadyExists):
            store.put("claim.json", b"mine")


def test_a_put_whose_request_was_lost_is_sent_again(
    bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(s3_endpoint, lambda method, path, n: "lose-request" if method == "PUT" and n < 2 else "pass") as address:
        store = through(monkeypatch, bucket_url, address)
        store.put("claim.json", b"mine")
        assert store.get("claim.json") == b"mine"


def test_a_lost_reply_to_the_loser_does_not_make_a_winner(
    bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_bucket(bucket_url).put("claim.json", b"the same bytes")
    with (
        relay(s3_endpoint, lambda method, path, n: "lose-reply" if method == "PUT" and n == 0 else "pass") as address,
        pytest.raises(AlreadyExists),
    ):
        through(monkeypatch, bucket_url, address).put("claim.json", b"the same bytes")


def test_a_server_that_is_busy_is_asked_again(
    bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(s3_endpoint, lambda method, path, n: "503" if n < 2 else "pass") as address:
        store = through(monkeypatch, bucket_url, address)
        store.put("a", b"x")
        assert store.get("a") == b"x"
        assert store.keys("") == ["a"]
        store.delete("a")
        assert not store.exists("a")


def test_a_bucket_that_does_not_answer_is_unreachable_within_its_patience(
    bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relay(s3_endpoint, lambda method, path, n: "503") as address:
        store = through(monkeypatch, bucket_url, address, patience_s=0.5)
        for call in (
            lambda: store.put("a", b"x"),
            lambda: store.get("a"),
            lambda: store.keys(""),
            lambda: store.exists("a"),
            lambda: store.local("a"),
            lambda: store.delete("a"),
        ):
            with pytest.raises(StoreUnreachable, match="cannot be reached"):
                call()


def test_a_missing_bucket_and_refused_credentials_say_so(
    bucket_url: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for create in (True, False):
        with pytest.raises(StoreError, match="no such bucket"):
            open_store("s3://no-such-bucket/prefix", create=create)
    store = open_bucket(bucket_url)

    def refuse(*_: object, **__: object) -> None:
        raise obstore.exceptions.PermissionDeniedError("Forbidden https://x/?X-Amz-Signature=CANARY\n\nDebug source:")

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "get", refuse)
        with pytest.raises(StoreDenied, match="was denied") as caught:
            store.get("a")
    assert "CANARY" not in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("s3://KEY:CANARY@bucket/prefix", "no credentials"),
        ("s3://bucket/prefix?sig=CANARY", "no credentials"),
        ("https://account.blob.example/x?sig=CANARY", "s3, gs, az"),
        ("s3:///prefix", "names no bucket"),
        ("ftp://bucket/x", "s3, gs, az"),
    ],
)
def test_an_address_that_is_none_or_tells_a_secret_is_refused_without_repeating_it(url: str, told: str) -> None:
    with pytest.raises(ForeignStore, match=told) as caught:
        open_store(url)
    assert "CANARY" not in str(caught.value)


def test_addresses_of_all_three_clouds_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    for url in ("s3://bucket/a/b", "gs://bucket/a/b/", "az://container/a"):
        assert open_bucket(url).url == check_url(url) == url.rstrip("/")


def test_a_bucket_that_ignores_the_condition_is_refused(bucket_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = obstore.put

    def overwrite(*arguments: object, mode: object = None, **options: object) -> object:
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", overwrite)
    with pytest.raises(StoreError, match="no store can lie here"):
        open_store(bucket_url, create=True)


def test_a_rotten_object_is_found_and_a_rotten_download_is_fetched_again(bucket_url: str) -> None:
    store = open_store(bucket_url, create=True)
    manifest = commit(store, "d/f.bin", lambda path: path.write_bytes(b"payload") and {})
    remote = store._remote  # type: ignore[attr-defined]
    marks = obstore.get(remote, "d/f.bin").attributes
    obstore.put(remote, "d/f.bin", b"pay1oad", attributes=marks)  # the bytes differ, their mark does not
    for call in (lambda: store.get("d/f.bin"), lambda: verified(store, manifest)):
        with pytest.raises(Corrupt, match="not what was put"):
            call()
    obstore.put(remote, "d/f.bin", b"payload", attributes=marks)
    assert verified(store, manifest).read_bytes() == b"payload"


def test_the_cache_is_private_bounded_and_forgets_what_was_deleted(tmp_path: Path) -> None:
    cache = DownloadCache(most_bytes=10_000)
    assert stat.S_IMODE(cache.folder.parent.stat().st_mode) == 0o700
    kept = []
    for number in range(30):
        with cache.filling("s3://b", str(number)) as staged:
            staged.write_bytes(bytes(1000))
            kept.append(cache.keep("s3://b", f"some/{number}.bin", staged))
    assert [path.exists() for path in kept] == [False] * 20 + [True] * 10
    assert cache.find("s3://b", "some/29.bin") == kept[29]
    assert cache.find("s3://other", "some/29.bin") is None
    cache.drop("s3://b", "some/29.bin")
    assert cache.find("s3://b", "some/29.bin") is None
    assert not kept[29].exists()
    cache.close()
    assert not cache.folder.parent.exists()


def test_a_log_survives_an_upload_that_fails_and_leaves_out_the_middle_of_too_much() -> None:
    uploads: list[str] = []
    failed = threading.Event()

    def upload(text: str) -> None:
        if not failed.is_set():
            failed.set()
            raise StoreUnreachable("log", "cannot be reached")
        uploads.append(text)

    with BucketLog(upload, every_s=0.01) as log:
        log.write("one\n")
        failed.wait()
        log.write("x" * (5 << 20))
    assert uploads[-1].startswith("one\nxxx")
    assert "characters left out" in uploads[-1]
    assert len(uploads[-1]) < (4 << 20) + 100


def test_nothing_is_left_of_a_deleted_key(bucket_url: str) -> None:
    store = open_store(bucket_url, create=True)
    store.put("a", b"one")
    first = store.local("a")
    assert store.local("a") == first, "downloaded once"
    store.delete("a")
    with pytest.raises(NotFound):
        store.local("a")
    assert not first.exists()
