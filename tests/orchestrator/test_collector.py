"""The collector: verified rows only, the right attempt's, and the same bytes however often and in what order."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from jobs.claims import FRESH, attempts_of, claim
from jobs.errors import Corrupt, NotFound
from jobs.layout import PackKeys, part_key, table_folder
from jobs.pack import PackOutcome, RunOutcome, put_outcome
from jobs.parquet import write_table
from jobs.records import METRICS, TABLES, Status
from jobs.store import LocalStore, commit, get_record, open_store, put_record
from jobs.study import Study
from orchestrator.clusters.inline import InlineCluster
from orchestrator.collector import Collector
from orchestrator.declared import Declared, declare, register
from orchestrator.library import Library
from orchestrator.scheduler import drive
from orchestrator.tables import commit_tables, layout_of, read_tables

MakeStudy = Callable[..., Study]


def put_shard(store: LocalStore, pack_id: str, number: int, rows: list[tuple[str, int, int, float]]) -> str:
    """Commit rows (run, attempt, step, value) of one metric as a shard; returns its key."""
    records = [
        {"run_id": r, "attempt": a, "step": s, "metric": "m", "value": v, "correct": None, "total": None}
        for r, a, s, v in rows
    ]

    def write(path: Path) -> dict[str, int]:
        write_table(pa.Table.from_pylist(records, schema=METRICS), path)
        return {"rows": len(records), "first_step": 0, "last_step": 0}

    return commit(store, PackKeys(pack_id).shard(number), write).key


@pytest.fixture
def declared(study: MakeStudy) -> Declared:
    return declare(study(), "tiny.yaml")


def attempt(store: LocalStore, declared: Declared, pack_id: str, resumed: int = FRESH, run: int = 0) -> str:
    run_id = declared.runs[run].id
    claim(store, run_id, pack_id, (resumed, ""), {}, after=len(attempts_of(store, run_id)))
    return run_id


def values(tables: dict[str, pa.Table]) -> list[tuple[int, float]]:
    return list(zip(tables["metrics"]["step"].to_pylist(), tables["metrics"]["value"].to_pylist(), strict=True))


def test_rows_past_a_later_attempts_resume_step_are_out(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    put_shard(store, "p1", 0, [(run, 1, step, float(step)) for step in (0, 4, 8, 12)])
    attempt(store, declared, "p2", resumed=5)
    put_shard(store, "p2", 0, [(run, 2, 8, 8.0), (run, 2, 12, 12.5)])
    tables = Collector(store, declared).collect()
    assert values(tables) == [(0, 0.0), (4, 4.0), (8, 8.0), (12, 12.5)]
    assert tables["metrics"]["attempt"].to_pylist() == [1, 1, 2, 2]
    findings = tables["audit"].to_pylist()
    assert [(f["finding"], f["run_id"], f["step"]) for f in findings] == [("disagreement", run, 12)]
    assert findings[0]["detail"] == "m: attempt 1 measured 12.0, attempt 2 12.5"


def test_a_zombies_late_rows_change_nothing(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    put_shard(store, "p1", 0, [(run, 1, 0, 0.0)])
    attempt(store, declared, "p2")
    put_shard(store, "p2", 0, [(run, 2, 0, 0.0), (run, 2, 4, 4.0)])
    before = Collector(store, declared).collect()
    put_shard(store, "p1", 1, [(run, 1, 4, 4.0), (run, 1, 8, 99.0)])
    late = (RunOutcome(run_id=run, attempt=1, status=Status.FINISHED, step=12),)
    put_outcome(store, PackOutcome(pack_id="p1", runs=late))
    after = Collector(store, declared).collect()
    for name in ("metrics", "runs", "audit"):
        assert after[name].equals(before[name]), name
    assert after["runs"].filter(pc.field("run_id") == run)["status"].to_pylist() == ["running"]


def test_rows_of_another_study_or_without_a_claim_are_out(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    put_shard(store, "p1", 0, [(run, 1, 0, 1.0), ("r1-other", 1, 0, 2.0), (run, 7, 0, 3.0)])
    assert values(Collector(store, declared).collect()) == [(0, 1.0)]


def test_every_declared_run_is_a_row(store: LocalStore, declared: Declared) -> None:
    attempt(store, declared, "p1")
    runs = Collector(store, declared).collect()["runs"]
    assert runs["run_id"].to_pylist() == [run.id for run in declared.runs]
    assert runs["status"].to_pylist() == ["running", *["waiting"] * 5]
    assert runs["last_step"].to_pylist() == [-1] * 6
    assert runs["factors"][0].as_py() == '{"model.width":4}'


def test_any_broken_shard_is_named_and_the_rest_stays_readable(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    put_shard(store, "p1", 0, [(run, 1, 0, 1.0)])
    key = put_shard(store, "p1", 1, [(run, 1, 4, 2.0)])
    path = store.local(key)
    whole = path.read_bytes()
    generator = np.random.default_rng(3)
    for _ in range(100):
        broken = bytearray(whole)
        broken[generator.integers(len(whole))] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(broken))
        tables = Collector(store, declared).collect()
        assert values(tables) == [(0, 1.0)]
        assert [(f["finding"], f["key"]) for f in tables["audit"].to_pylist()] == [("corrupt", key)]
    path.write_bytes(whole[:-1])
    assert values(Collector(store, declared).collect()) == [(0, 1.0)]
    path.unlink()
    assert values(Collector(store, declared).collect()) == [(0, 1.0)]


def test_reading_on_equals_reading_anew(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    incremental = Collector(store, declared)
    for number in range(4):
        put_shard(store, "p1", number, [(run, 1, step, 0.5 * step) for step in (8 - 2 * number, 9 + number)])
        seen = incremental.collect()
        fresh = Collector(store, declared).collect()
        assert all(seen[name].equals(fresh[name]) for name in TABLES)


def test_two_stores_that_trained_in_other_packs_collect_to_the_same_rows(tmp_path: Path, study: MakeStudy) -> None:
    tables = []
    for width in (1, 6):
        store = open_store(tmp_path / f"width{width}", create=True)
        each = study(execution=f"{{pack_width: {width}}}")
        cluster = InlineCluster(cpus=1)
        drive(each, store, cluster)
        cluster.close()
        tables.append(Collector(store, register(store, each, "tiny.yaml")).collect())
    assert tables[0]["metrics"].equals(tables[1]["metrics"])
    assert tables[0]["runs"].equals(tables[1]["runs"])
    hashes = [t["checkpoints"].select(["run_id", "step", "kind", "sha256"]) for t in tables]
    assert hashes[0].equals(hashes[1])
    assert tables[0]["metrics"].num_rows == 6 * (4 * 3 + 3 * 2)


def tables_of(store: LocalStore, declared: Declared) -> dict[str, pa.Table]:
    return Collector(store, declared).collect()


def test_tables_are_versions_and_the_same_again_is_none(store: LocalStore, declared: Declared) -> None:
    run = attempt(store, declared, "p1")
    with pytest.raises(NotFound):
        read_tables(store, "tiny")
    for number in range(4):
        put_shard(store, "p1", number, [(run, 1, number, float(number))])
        now = tables_of(store, declared)
        assert commit_tables(store, "tiny", now) == number + 1
        assert commit_tables(store, "tiny", tables_of(store, declared)) == number + 1
        assert all(table.equals(now[name]) for name, table in read_tables(store, "tiny").items())
    kept = {key.split("/")[1] for key in store.keys("tables/")}
    assert kept == {"tiny.000003", "tiny.000004"}


def test_half_a_version_is_never_read(store: LocalStore, declared: Declared) -> None:
    commit_tables(store, "tiny", tables_of(store, declared))
    store.put(table_folder("tiny", 2) + "metrics.parquet", b"half")
    assert read_tables(store, "tiny")["metrics"].num_rows == 0
    attempt(store, declared, "p1")
    assert commit_tables(store, "tiny", tables_of(store, declared)) == 3
    path = store.local(table_folder("tiny", 3) + "runs.parquet")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(Corrupt):
        read_tables(store, "tiny")


def test_tables_of_other_columns_are_collected_again(
    store: LocalStore, study: MakeStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(store, study(), "tiny.yaml")
    with monkeypatch.context() as before:
        # As a Seedbed wrote them that knew a column less.
        fewer = {**TABLES, "runs": TABLES["runs"].remove(TABLES["runs"].get_field_index("toward_run"))}
        before.setattr("orchestrator.tables._LAYOUT", layout_of(fewer))
        Library(store).collect("tiny")
    with pytest.raises(NotFound, match="another version of Seedbed"):
        read_tables(store, "tiny")
    assert Library(store).tables("tiny")["runs"].schema.equals(TABLES["runs"])


def test_tables_of_another_layout_are_collected_again(store: LocalStore, study: MakeStudy) -> None:
    register(store, study(), "tiny.yaml")
    Library(store).collect("tiny")
    manifest = table_folder("tiny", 1) + "manifest.json"
    older = {name: value for name, value in get_record(store, manifest).items() if name not in ("layout", "parts")}
    store.delete(manifest)
    put_record(store, manifest, older)
    with pytest.raises(NotFound, match="another version of Seedbed"):
        read_tables(store, "tiny")
    Library(store).collect("tiny")
    assert read_tables(store, "tiny")["runs"].num_rows > 0


def test_other_programs_read_the_tables(store: LocalStore, study: MakeStudy) -> None:
    import duckdb
    import pandas as pd

    declared = register(store, study(), "tiny.yaml")
    run = attempt(store, declared, "p1")
    put_shard(store, "p1", 0, [(run, 1, 0, 1.0), (run, 1, 4, 3.0)])
    Library(store).collect("tiny")
    path = str(store.local(part_key("tiny", 1, declared.conditions[0].id, 0)))
    assert pd.read_parquet(path)["value"].tolist() == [1.0, 3.0]
    assert duckdb.sql(f"SELECT avg(value) FROM read_parquet('{path}')").fetchall() == [(2.0,)]  # noqa: S608
