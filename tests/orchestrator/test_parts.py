"""Parts and versions of the tables: the same bytes in any order, twice, late, and after a crash at any storage step."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from typer.testing import CliRunner

from jobs.claims import FRESH, claim
from jobs.errors import Corrupt, SeedbedError
from jobs.layout import PackKeys, part_key, table_folder
from jobs.pack import PackOutcome, RunOutcome, put_outcome
from jobs.parquet import write_table
from jobs.records import METRICS, TABLES, Status
from jobs.store import LocalStore, commit, get_record, open_store
from jobs.study import Study
from orchestrator import collector, parts
from orchestrator.cli import app
from orchestrator.clusters.ray import RayCluster
from orchestrator.clusters.ray_map import RayMap
from orchestrator.collected import Collected
from orchestrator.collector import Collector
from orchestrator.declared import Declared, declare, register
from orchestrator.library import Library
from orchestrator.plain_parts import collected_from
from orchestrator.query import sql
from orchestrator.tables import commit_tables, newest_tables, read_tables
from tests.bitwise.crashing import MODES, Crash, Disk

MakeStudy = Callable[..., Study]
Row = tuple[int, int, int, str, float]
# (pack, shard, rows): run 0 of both conditions and run 1; pack p3 takes run 0 up again at step 5.
SHARDS: list[tuple[str, int, list[Row]]] = [
    ("p1", 0, [(0, 1, s, m, s + 0.5) for s in (0, 4, 8) for m in ("loss", "acc")]),
    ("p1", 1, [(1, 1, s, m, 2.0 * s) for s in (8, 0, 4) for m in ("acc", "loss")]),
    ("p2", 0, [(3, 1, s, "acc", 0.25) for s in (0, 4)]),
    ("p3", 0, [(0, 2, 8, "acc", 8.5), (0, 2, 12, "acc", 1.0), (0, 2, 8, "loss", 99.0)]),
    ("p2", 1, [(3, 1, 8, "acc", 0.75)]),
]


@pytest.fixture
def declared(study: MakeStudy) -> Declared:
    return declare(study(), "tiny.yaml")


def put(store: LocalStore, declared: Declared, pack: str, number: int, rows: list[Row]) -> str:
    columns = list(zip(*rows, strict=True))
    ids = [declared.runs[run].id for run in columns[0]]
    nothing = [None] * len(rows)
    table = pa.table(dict(zip(METRICS.names, [ids, *columns[1:], nothing, nothing], strict=True)), schema=METRICS)

    def write(path: Path) -> dict[str, int]:
        write_table(table, path)
        return {"rows": len(rows), "first_step": 0, "last_step": 0}

    return commit(store, PackKeys(pack).shard(number), write).key


def claims(store: LocalStore, declared: Declared) -> None:
    for run, pack, resumed in ((0, "p1", FRESH), (1, "p1", FRESH), (3, "p2", FRESH), (0, "p3", 5)):
        before = sum(1 for other in (0,) if pack == "p3" and run == other)
        claim(store, declared.runs[run].id, pack, (resumed, "p1" if before else ""), {}, after=before)


def files_of(store: LocalStore, study: str = "tiny") -> dict[str, object]:
    """Return every file of the newest version by its name there: its bytes, or what the manifest says."""
    keys = store.keys(f"tables/{study}.")
    newest = max(key.split("/")[1] for key in keys if key.endswith("manifest.json"))
    prefix = f"tables/{newest}/"
    names = [key.removeprefix(prefix) for key in keys if key.startswith(prefix) and "claim" not in key]
    # A record's own hash covers its key, and with it the number of the version.
    return {n: get_record(store, prefix + n) if n.endswith(".json") else store.get(prefix + n) for n in names}


@pytest.fixture
def every(request: pytest.FixtureRequest) -> int:
    """Return which part of the crash points is tried."""
    return 1 if request.config.getoption("--full") else 5


def collect(store: LocalStore, declared: Declared) -> Collected:
    tables = Collector(store, declared).collect()
    commit_tables(store, declared.name, tables)
    return tables


@pytest.fixture
def expected(tmp_path: Path, declared: Declared) -> dict[str, object]:
    store = open_store(tmp_path / "expected", create=True)
    claims(store, declared)
    for shard in SHARDS:
        put(store, declared, *shard)
    collect(store, declared)
    return files_of(store)


@pytest.mark.parametrize("order", list(permutations(range(5)))[::11])
def test_any_order_of_arrival_gives_the_same_bytes(
    order: Sequence[int], tmp_path: Path, declared: Declared, expected: dict[str, object]
) -> None:
    store = open_store(tmp_path / "store", create=True)
    claims(store, declared)
    library = Collector(store, declared)
    for count, place in enumerate(order):
        put(store, declared, *SHARDS[place])
        tables = library.collect()
        if count % 2 == 0:  # a late shard meets a version that was committed without it
            commit_tables(store, "tiny", tables)
    assert files_of(store) == expected
    found = sql(tables, "SELECT step, value, attempt FROM metrics WHERE metric = 'acc' ORDER BY run_id, step")
    assert found.num_rows == 4 + 3 + 3
    assert [(f["finding"], f["step"]) for f in tables["audit"].to_pylist()] == [("disagreement", 8)]
    assert "attempt 1 measured 8.5, attempt 2 99.0" in tables["audit"]["detail"][0].as_py()


def test_rows_that_were_written_twice_are_rows_once_and_are_told(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    put(store, declared, "p2", 0, [(3, 1, 0, "acc", 0.25), (3, 1, 4, "acc", 0.5), (3, 1, 0, "acc", 0.25)])
    put(store, declared, "p2", 1, [(3, 1, 4, "acc", 0.75)])
    tables = Collector(store, declared).collect()
    assert tables["metrics"]["value"].to_pylist() == [0.25, 0.5]
    told = [(f["finding"], f["step"], f["detail"]) for f in tables["audit"].to_pylist()]
    assert told == [
        ("duplicate", 0, "acc: attempt 1 measured it twice"),
        ("disagreement", 4, "acc: attempt 1 measured 0.75, attempt 1 0.5"),
    ]


def test_a_row_counts_only_in_a_shard_of_the_pack_that_claimed_it(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    put(store, declared, "p1", 0, [(1, 1, 0, "acc", 1.0), (0, 2, 12, "acc", 7.0)])
    put(store, declared, "p3", 0, [(1, 1, 4, "acc", 2.0)])
    assert Collector(store, declared).collect()["metrics"]["value"].to_pylist() == [1.0]


def test_sparse_rows_are_sorted_like_dense_ones(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    generator = np.random.default_rng(0)
    steps = generator.choice(10**9, 3000, replace=False).tolist()
    put(store, declared, "p1", 0, [(s % 2, 1, s, "acc", float(s)) for s in steps if s % 2 or s < 5])
    put(store, declared, "p3", 0, [(0, 2, s, f"m{s % 3}", float(s)) for s in steps if s % 2 == 0 and s > 5])
    rows = Collector(store, declared).collect()["metrics"].to_pylist()
    assert [(r["metric"], r["run_id"], r["step"]) for r in rows] == sorted(
        (r["metric"], r["run_id"], r["step"]) for r in rows
    )
    assert sorted(r["value"] for r in rows) == sorted(map(float, steps))


@pytest.mark.parametrize("mode", MODES)
def test_a_crash_at_any_storage_operation_leaves_no_trace(
    mode: str, tmp_path: Path, declared: Declared, expected: dict[str, object], every: int
) -> None:
    def until(store: LocalStore) -> None:
        tables = Collector(store, declared).collect()
        commit_tables(store, "tiny", tables)

    before = open_store(tmp_path / "before", create=True)
    claims(before, declared)
    put(before, declared, *SHARDS[0])
    until(before)  # a version is there, and a reader has it
    for shard in SHARDS[1:]:
        put(before, declared, *shard)

    def prepared(name: str) -> LocalStore:
        shutil.copytree(tmp_path / "before", tmp_path / name)
        return open_store(tmp_path / name)

    with Disk().in_place() as disk:
        until(prepared("calm"))
    assert disk.count > 30
    for fails_at in range(every // 2, disk.count, every):
        store = prepared(f"crash{fails_at}")
        with Disk(fails_at, mode).in_place() as failing:
            try:
                until(store)
            except (Crash, SeedbedError):
                assert failing.count > fails_at
        assert read_tables(store, "tiny")["metrics"].num_rows in (4, 16), "the old version, or the new one, whole"
        until(store)
        assert files_of(store) == expected
    until(store)
    assert files_of(store) == expected


def test_only_parts_with_new_rows_are_made_and_the_others_are_the_same_files(
    store: LocalStore, declared: Declared
) -> None:
    claims(store, declared)
    for shard in SHARDS[:4]:
        put(store, declared, *shard)
    Library(store)
    collect(store, declared)
    put(store, declared, *SHARDS[4])
    made: list[str] = []

    def watching(function: Callable[[object], object], tasks: Sequence[object]) -> list[object]:
        made.extend(f"{type(task).__name__} {getattr(task, 'condition_id', '')}" for task in tasks)
        return [function(task) for task in tasks]

    again = Collector(store, declared, watching)
    again.knows(newest_tables(store, "tiny"))
    commit_tables(store, "tiny", again.collect())
    second = declared.conditions[1].id
    assert made == [f"PartTask {second}", "RollTask ", "OnsetTask ", "OnsetTask "]
    one, other = (
        [store.local(part_key("tiny", version, condition.id, 0)).stat().st_ino for version in (1, 2)]
        for condition in declared.conditions
    )
    assert one[0] == one[1], "what did not change is one file with two names"
    assert other[0] != other[1]
    again.collect()
    assert len(made) == 4, "nothing is new"


def test_new_seeds_and_conditions_touch_no_full_part(
    store: LocalStore, study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "PART_RUNS", 2)
    small, large = (declare(study(seeds=f"{{design: paired, count: {n}}}"), "tiny.yaml") for n in (2, 5))
    for place, run in enumerate(large.runs):
        claim(store, run.id, f"p{place}", (FRESH, ""), {}, after=0)
        put(store, large, f"p{place}", 0, [(place, 1, s, "acc", place + s / 8) for s in (0, 4)])
    few, many = (Collector(store, each).collect() for each in (small, large))
    assert [(p.part.number, p.part.rows) for p in many.parts] == [(0, 4), (1, 4), (2, 2)] * 2
    assert {p.part.sha256 for p in few.parts} < {p.part.sha256 for p in many.parts}
    assert many["rollups"]["n"].to_pylist() == [5] * 4


def test_a_changed_part_is_named_and_refused_and_made_again_from_the_shards(
    store: LocalStore, study: MakeStudy, declared: Declared
) -> None:
    claims(store, declared)
    for shard in SHARDS:
        put(store, declared, *shard)
    whole = collect(store, declared)["metrics"]
    key = part_key("tiny", 1, declared.conditions[0].id, 0)
    path = store.local(key)
    broken = bytearray(path.read_bytes())
    broken[len(broken) // 2] ^= 1
    path.write_bytes(bytes(broken))
    with pytest.raises(Corrupt, match=key):
        read_tables(store, "tiny")
    with pytest.raises(Corrupt, match=key):
        newest_tables(store, "tiny").metric("acc")
    healing = Collector(store, declared)
    healing.knows(newest_tables(store, "tiny"))
    assert healing.collect()["metrics"].equals(whole)


def test_a_version_is_a_plain_folder_of_parquet_for_everyone(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    for shard in SHARDS[:3]:
        put(store, declared, *shard)
    collect(store, declared)
    for shard in SHARDS[3:]:
        put(store, declared, *shard)
    tables = collect(store, declared)
    folder = store.root / table_folder("tiny", 2) / "metrics"
    count = tables["metrics"].num_rows
    by_duckdb = duckdb.sql(
        f"""SELECT condition_id, count(*), sum(value) FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=true)
            GROUP BY ALL ORDER BY ALL"""  # noqa: S608
    ).fetchall()
    frame = pd.read_parquet(folder)
    by_pandas = frame.groupby("condition_id", observed=True)["value"].agg(["size", "sum"])
    by_arrow = ds.dataset(folder, partitioning="hive").to_table()
    assert sum(row[1] for row in by_duckdb) == len(frame) == by_arrow.num_rows == count == 16
    assert [row[0] for row in by_duckdb] == sorted(by_pandas.index) == sorted(c.id for c in declared.conditions)
    assert [row[1:] for row in by_duckdb] == [tuple(row) for row in by_pandas.sort_index().to_numpy().tolist()]
    assert by_arrow.select(METRICS.names).schema.types == METRICS.types, "text, not dictionaries"


def test_plain_tables_become_the_same_parts(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    for shard in SHARDS:
        put(store, declared, *shard)
    ends = (RunOutcome(run_id=declared.runs[3].id, attempt=1, status=Status.FINISHED, step=8),)
    put_outcome(store, PackOutcome(pack_id="p2", runs=ends))
    tables = Collector(store, declared).collect()
    plain = {name: table.take(pa.array(range(table.num_rows)[::-1], pa.int64())) for name, table in tables.items()}
    plain["runs"] = tables["runs"]
    made = collected_from(plain)
    assert [p.part.sha256 for p in made.parts] == [p.part.sha256 for p in tables.parts]
    assert made["rollups"].equals(tables["rollups"])
    assert commit_tables(store, "other", made) == 1
    assert read_tables(store, "other")["metrics"].equals(tables["metrics"])
    assert sorted(TABLES) == sorted(made)


def test_two_collectors_at_once_write_two_versions(store: LocalStore, declared: Declared) -> None:
    claims(store, declared)
    put(store, declared, *SHARDS[0])
    early = Collector(store, declared).collect()
    store.put(table_folder("tiny", 1) + "claim.json", b"somebody is at work")
    assert commit_tables(store, "tiny", early) == 2
    assert read_tables(store, "tiny")["metrics"].num_rows == 4
    assert get_record(store, table_folder("tiny", 2) + "claim.json") == {"study": "tiny", "version": 2}


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[RayCluster]:
    cluster = RayCluster(cpus=2)
    yield cluster
    cluster.close()


@pytest.mark.ray
def test_ray_tasks_give_the_same_bytes_and_the_same_errors(
    ray_cluster: RayCluster, store: LocalStore, declared: Declared, expected: dict[str, object]
) -> None:
    import ray

    claims(store, declared)
    keys = [put(store, declared, *shard) for shard in SHARDS]
    tasks = RayMap(ray)
    found = Collector(store, declared, tasks, sink=(store, "tables/made/")).collect()
    commit_tables(store, "tiny", found)
    assert files_of(store) == expected
    path = store.local(keys[0])
    path.write_bytes(path.read_bytes()[:-1])
    broken = Collector(store, declared, tasks, sink=(store, "tables/made/")).collect()
    assert [(f["finding"], f["key"]) for f in broken["audit"].to_pylist()] == [("corrupt", keys[0])]
    missing = parts.PartTask(store.url + "x", "c", 0, (), (), ())
    with pytest.raises(SeedbedError, match="there is no store here"):
        list(tasks(parts.make_part, [missing]))


@pytest.mark.ray
def test_the_verb_makes_the_same_bytes_here_and_on_ray(store: LocalStore, declared: Declared, study: MakeStudy) -> None:
    register(store, study(), "tiny.yaml")
    claims(store, declared)
    for shard in SHARDS:
        put(store, declared, *shard)
    there = store.root.with_name("there")
    shutil.copytree(store.root, there)
    here = CliRunner().invoke(app, ["collect", "--store", str(store.root), "--json"], catch_exceptions=False)
    command = "from orchestrator.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "collect", "tiny", "--ray", "--cpus", "2", "--store", str(there), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(here.output)["rows"] == 16
    assert json.loads(done.stdout) == json.loads(here.output)
    assert files_of(open_store(there)) == files_of(store)
    assert not list(open_store(there).keys("tables/made/")), "parts are in their version alone"
    again = CliRunner().invoke(app, ["collect", "tiny", "--store", str(store.root)], catch_exceptions=False)
    assert again.output.startswith("tiny: 16 rows of 6 runs in 2 parts, ")
