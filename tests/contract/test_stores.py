"""What every store must do: a folder, and a bucket behind a real S3 API over HTTP."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.errors import AlreadyExists, Corrupt, ForeignStore, NotFound
from jobs.pack import get_outcome
from jobs.store import (
    Store,
    commit,
    committed,
    get_record,
    manifest_key,
    open_store,
    put_record,
    read_manifest,
    verified,
)
from orchestrator.cli import app
from tests.orchestrator.conftest import STUDY

# Two processes meet at the first key and then race for all of them; what they won is what they print.
RACER = """
import sys
from jobs.errors import AlreadyExists
from jobs.store import open_store
store = open_store(sys.argv[1])
store.put(f"ready/{sys.argv[2]}", b"")
while len(store.keys("ready/")) < 2:
    pass
for key in range(40):
    try:
        store.put(f"race/{key:02d}", b"the same bytes")
    except AlreadyExists:
        continue
    print(key)
"""


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of a place where no store is yet."""
    return str(tmp_path / "store") if request.param == "folder" else str(request.getfixturevalue("bucket_url"))


@pytest.fixture
def store(url: str) -> Store:
    return open_store(url, create=True)


def _write(data: bytes):
    def write(path: Path) -> dict[str, int]:
        path.write_bytes(data)
        return {"rows": len(data)}

    return write


def test_put_if_absent(store: Store) -> None:
    store.put("a/b.json", b"first")
    for again in (b"second", b"first"):
        with pytest.raises(AlreadyExists):
            store.put("a/b.json", again)
    assert store.get("a/b.json") == b"first"
    assert store.exists("a/b.json")
    assert not store.exists("a/b")
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert not store.exists("a/b.json")
    for read in (store.get, store.local):
        with pytest.raises(NotFound):
            read("a/b.json")
    store.put("a/b.json", b"third")
    assert store.local("a/b.json").read_bytes() == b"third"


def test_two_processes_that_race_share_the_keys_without_overlap(store: Store) -> None:
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, store.url, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    won = [[int(line) for line in racer.communicate()[0].split()] for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert sorted(won[0] + won[1]) == list(range(40))


def test_only_one_of_many_threads_wins_with_the_same_bytes(store: Store) -> None:
    barrier = threading.Barrier(6)
    won: list[int] = []

    def race() -> None:
        for key in range(10):
            barrier.wait()
            try:
                store.put(f"race/{key}", b"the same")
            except AlreadyExists:
                continue
            won.append(key)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(10))


def test_keys_are_sorted_and_a_prefix_need_not_end_at_a_slash(store: Store) -> None:
    hostile = ["h/a 0", "h/a'; echo foo", "h/ä→b", "h/-rf", "h/50%25", "h/a+b?c#d"]
    for key in ("p/2", "p/1", "p/10", "q", *hostile):
        store.put(key, key.encode())
    with store.scratch(".part") as staged:
        staged.write_bytes(b"half")
        assert store.keys("p/") == ["p/1", "p/10", "p/2"]
        assert store.keys("p/1") == ["p/1", "p/10"]
        assert store.keys("") == sorted(["format.json", "p/1", "p/10", "p/2", "q", *hostile])
    assert not staged.exists()
    assert store.keys("nowhere/") == []
    assert [store.get(key).decode() for key in hostile] == hostile


def test_more_keys_than_one_page_of_a_listing(store: Store) -> None:
    names = [f"many/{n:04d}" for n in range(1005)]
    threads = [
        threading.Thread(target=lambda part: [store.put(n, b"") for n in part], args=(names[i::4],)) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.keys("many/") == names


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_key_cannot_leave_the_store(store: Store, key: str) -> None:
    for call in (lambda: store.put(key, b"x"), lambda: store.get(key), lambda: store.local(key)):
        with pytest.raises(NotFound):
            call()


def test_a_file_counts_only_with_its_manifest(store: Store) -> None:
    with store.scratch(".bin") as staged:
        staged.write_bytes(b"no manifest")
        store.put_file("d/orphan.bin", staged)
        assert not staged.exists(), "a staged file is used up"
    manifest = commit(store, "d/whole.bin", _write(b"payload"))
    assert committed(store, "d/") == ["d/whole.bin"]
    assert read_manifest(store, "d/whole.bin") == manifest
    assert verified(store, manifest).read_bytes() == b"payload"
    with pytest.raises(AlreadyExists):
        commit(store, "d/whole.bin", _write(b"another"))
    assert verified(store, manifest).read_bytes() == b"payload"


def test_a_large_file_comes_back_whole(store: Store) -> None:
    data = bytes(range(256)) * (12 << 12)  # 12 MiB
    manifest = commit(store, "d/large.bin", _write(data))
    assert manifest.size_bytes == len(data)
    assert verified(store, manifest).read_bytes() == data
    assert store.get("d/large.bin") == data


def test_an_exchanged_file_is_found(store: Store) -> None:
    first = commit(store, "d/1.bin", _write(b"payload one"))
    store.delete("d/1.bin")
    store.put("d/1.bin", b"payload two")
    with pytest.raises(Corrupt, match=r"d/1\.bin"):
        verified(store, first)
    put_record(store, "r.json", {"b": 1, "a": [1, 2]})
    text = store.get("r.json")
    store.delete("r.json")
    store.put("r.json", text.replace(b"[1,2]", b"[1,3]"))
    with pytest.raises(Corrupt):
        get_record(store, "r.json")
    assert manifest_key("d/1.bin") in store.keys("d/")


def test_a_log_can_be_read_while_it_grows_and_whole_at_its_end(store: Store) -> None:
    with store.log("packs/p/log.txt") as log:
        log.write("the first line\n")
        log.flush()
        while not store.exists("packs/p/log.txt"):  # the test's own timeout is the limit
            pass
        log.write("ä→b\n")
    assert store.get("packs/p/log.txt").decode() == "the first line\nä→b\n"


def test_opening(url: str) -> None:
    with pytest.raises(ForeignStore, match="no store here"):
        open_store(url)
    made = open_store(url, create=True)
    assert open_store(url).url == open_store(url, create=True).url == made.url
    made.delete("format.json")
    made.put("thesis.tex", b"precious")
    with pytest.raises(ForeignStore, match="not a Seedbed store"):
        open_store(url, create=True)
    made.put("format.json", b'{"format":"seedbed-store","version":99}')
    with pytest.raises(ForeignStore, match="version"):
        open_store(url, create=True)
    assert made.get("thesis.tex") == b"precious"


def test_a_whole_study_leaves_the_same_bytes_in_a_bucket_as_in_a_folder(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(STUDY)
    said = {
        place: json.loads(seedbed("run", "tiny.yaml", "--cluster", "inline", "--store", place, "--json"))
        for place in ("folder", bucket_url)
    }
    folder, bucket = open_store("folder"), open_store(bucket_url)
    # Shards are cut by the clock, and an outcome says how long it took to save; all else is of the study alone.
    kinds = (".safetensors", ".parquet")
    keys = [key for key in bucket.keys("") if key.endswith(kinds) and "/shards/" not in key]
    assert {key.partition("/")[0] for key in keys} == {"packs", "tables"}
    assert keys == [key for key in folder.keys("") if key.endswith(kinds) and "/shards/" not in key]
    assert all(bucket.get(key) == folder.get(key) for key in keys)
    ended = [key.split("/")[1] for key in bucket.keys("packs/") if key.endswith("outcome.json")]
    outcomes = [[get_outcome(store, pack) for pack in ended] for store in (bucket, folder)]
    assert [one.runs for one in outcomes[0]] == [one.runs for one in outcomes[1]] != []
    sizes = [[(one.saves.count, one.saves.size_bytes) for one in half] for half in outcomes]
    assert sizes[0] == sizes[1] != []
    assert said["folder"]["conditions"] == said[bucket_url]["conditions"]
    assert Path(said[bucket_url]["report"]) == Path("prefix.report/tiny/report.html")
    assert "ended" in bucket.get(next(k for k in bucket.keys("packs/") if k.endswith("log.txt"))).decode()

    for arguments in (["status"], ["query", "SELECT run_id, step, value FROM metrics ORDER BY ALL"]):
        answers = [json.loads(seedbed(*arguments, "--store", place, "--json")) for place in said]
        assert answers[0] == answers[1] != []
    assert json.loads(seedbed("verify", "--store", bucket_url, "--spans", "1", "--json"))["findings"] == []
    assert json.loads(seedbed("plan", "tiny.yaml", "--store", bucket_url, "--json"))["total"]["held"] == 6
    seedbed("report", "--store", bucket_url, "-o", "out")
    assert Path("out/report.html").is_file()
    run = bucket.keys("attempts/")[0].removeprefix("attempts/").partition(".")[0]
    assert json.loads(seedbed("replay", f"{run}@5", "--store", bucket_url, "--json"))["equals_checkpoint"] is not False


def test_a_task_of_the_users_own_trains_from_the_bucket(
    tmp_path: Path, bucket_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("odd.py").write_text("from jobs.tasks.parity import Parity\n\nclass Odd(Parity):\n    pass\n")
    Path("tiny.yaml").write_text(STUDY.replace("name: parity", 'name: "odd.py:Odd"'))
    said = json.loads(seedbed("run", "tiny.yaml", "--cluster", "inline", "-s", bucket_url, "--no-report", "--json"))
    assert [c["finished"] for c in said["conditions"]] == [3, 3]
    assert len(open_store(bucket_url).keys("tasks/")) == 1


def seedbed(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output
