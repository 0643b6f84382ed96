"""The store: put-if-absent, manifests, what a full disk or a flipped bit does."""

import errno
import os
import threading
from pathlib import Path

import pytest

from jobs.errors import AlreadyExists, Corrupt, ForeignStore, NotFound, StoreError, StoreFull
from jobs.store import (
    LocalStore,
    commit,
    committed,
    get_record,
    manifest_key,
    open_store,
    put_record,
    read_manifest,
    verified,
)

HOSTILE = ["a 0", "a'; echo foo", "ä→b", "-rf"]


@pytest.fixture(params=["plain", *HOSTILE])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> LocalStore:
    return open_store(tmp_path / request.param / "store", create=True)


def _write(data: bytes):
    def write(path: Path) -> dict[str, int]:
        path.write_bytes(data)
        return {"rows": len(data)}

    return write


def test_put_if_absent(store: LocalStore) -> None:
    store.put("a/b.json", b"first")
    with pytest.raises(AlreadyExists):
        store.put("a/b.json", b"second")
    assert store.get("a/b.json") == b"first"
    assert store.exists("a/b.json")
    store.delete("a/b.json")
    store.delete("a/b.json")
    with pytest.raises(NotFound):
        store.get("a/b.json")


def test_only_one_of_many_racing_writers_wins(store: LocalStore) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def race(number: int) -> None:
        for key in range(20):
            barrier.wait()
            try:
                store.put(f"race/{key}", bytes([number]))
            except AlreadyExists:
                continue
            won.append(key)

    threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(20))


def test_keys_are_sorted_and_staged_files_are_not_among_them(store: LocalStore) -> None:
    for key in ("p/2", "p/1", "p/10", "q"):
        store.put(key, b"x")
    with store.scratch(".part") as staged:
        staged.write_bytes(b"half")
        assert store.keys("p/") == ["p/1", "p/10", "p/2"]
        assert store.keys("p/1") == ["p/1", "p/10"]
        assert store.keys("") == ["format.json", "p/1", "p/10", "p/2", "q"]
    assert store.keys("nowhere/") == []
    assert list((store.root / "staging").iterdir()) == []


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_key_cannot_leave_the_store(store: LocalStore, key: str) -> None:
    with pytest.raises(NotFound):
        store.put(key, b"x")
    with pytest.raises(NotFound):
        store.get(key)


def test_a_file_counts_only_with_its_manifest(store: LocalStore) -> None:
    with store.scratch(".bin") as staged:
        staged.write_bytes(b"no manifest")
        store.put_file("d/orphan.bin", staged)
    manifest = commit(store, "d/whole.bin", _write(b"payload"))
    assert committed(store, "d/") == ["d/whole.bin"]
    assert read_manifest(store, "d/whole.bin") == manifest
    assert verified(store, manifest).read_bytes() == b"payload"
    assert manifest.extra == {"rows": 7}


def test_every_flipped_bit_of_file_and_manifest_is_found(store: LocalStore) -> None:
    manifest = commit(store, "d/f.bin", _write(b"payload"))
    for key, check in (
        ("d/f.bin", lambda: verified(store, read_manifest(store, "d/f.bin"))),
        (manifest_key("d/f.bin"), lambda: read_manifest(store, "d/f.bin")),
    ):
        path = store.local(key)
        whole = path.read_bytes()
        for bit in range(len(whole) * 8):
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << (bit % 8)
            path.write_bytes(bytes(broken))
            with pytest.raises(Corrupt):
                check()
        path.write_bytes(whole)
    assert verified(store, manifest).read_bytes() == b"payload"


def test_a_truncated_or_exchanged_file_is_found(store: LocalStore) -> None:
    first = commit(store, "d/1.bin", _write(b"payload one"))
    second = commit(store, "d/2.bin", _write(b"payload two"))
    one, two = store.local("d/1.bin"), store.local("d/2.bin")
    content = one.read_bytes()
    one.write_bytes(two.read_bytes())
    with pytest.raises(Corrupt, match=r"d/1\.bin"):
        verified(store, first)
    one.write_bytes(content[:-1])
    with pytest.raises(Corrupt):
        verified(store, first)
    assert verified(store, second).read_bytes() == b"payload two"
    swapped = store.local(manifest_key("d/2.bin")).read_bytes()
    store.local(manifest_key("d/1.bin")).write_bytes(swapped)
    with pytest.raises(Corrupt, match="record of another key"):
        read_manifest(store, "d/1.bin")


def test_records_carry_their_own_hash(store: LocalStore) -> None:
    put_record(store, "r.json", {"b": 1, "a": [1, 2]})
    assert get_record(store, "r.json") == {"a": [1, 2], "b": 1}
    store.local("r.json").write_bytes(store.get("r.json").replace(b"[1,2]", b"[1,3]"))
    with pytest.raises(Corrupt):
        get_record(store, "r.json")


@pytest.mark.parametrize(
    ("code", "kind"), [(errno.ENOSPC, StoreFull), (errno.EDQUOT, StoreFull), (errno.EIO, StoreError)]
)
def test_a_disk_that_refuses_leaves_no_trace(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError]
) -> None:
    store.put("before", b"x")

    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(kind) as caught:
            store.put("after", b"y")
    assert type(caught.value) is kind
    assert store.keys("") == ["before", "format.json"]
    assert store.get("before") == b"x"
    store.put("after", b"y")
    assert store.get("after") == b"y"


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ForeignStore, match="not a Seedbed store"):
        open_store(tmp_path, create=True)
    with pytest.raises(ForeignStore, match="no store here"):
        open_store(tmp_path / "absent")
    with pytest.raises(ForeignStore, match="is a file"):
        open_store(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", [b'{"format":"seedbed-store","version":99}', b"\xff\xfe", b"[]", b""])
def test_another_format_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "format.json").write_bytes(content)
    with pytest.raises(ForeignStore):
        open_store(tmp_path, create=True)
    assert (tmp_path / "format.json").read_bytes() == content
