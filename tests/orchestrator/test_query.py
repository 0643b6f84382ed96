"""SQL: answers over the tables, and nothing else within reach."""

import pyarrow as pa
import pytest

from jobs.errors import QueryError
from orchestrator.query import runs_with_factors, sql
from tests.orchestrator.made import made

ATTACKS = [
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_blob('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT * FROM read_json('/etc/passwd')",
    "SELECT * FROM sniff_csv('/etc/passwd')",
    "SELECT * FROM glob('/etc/*')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "FROM read_text('../../etc/passwd')",
    "WITH x AS (SELECT * FROM read_text('/etc/passwd')) SELECT * FROM x",
    "SELECT (SELECT content FROM read_text('/etc/passwd'))",
    "COPY runs TO '/tmp/x.csv'",
    "COPY (SELECT 1) TO '/tmp/x.parquet'",
    "EXPORT DATABASE '/tmp/x'",
    "IMPORT DATABASE '/tmp/x'",
    "ATTACH '/tmp/x.db'",
    "ATTACH ':memory:' AS other",
    "DETACH memory",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads=1",
    "SET enable_external_access=true",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "PRAGMA threads=1",
    "CHECKPOINT",
    "VACUUM",
    "CREATE TABLE t AS SELECT 1",
    "CREATE VIEW v AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "CREATE MACRO m() AS 1",
    "DROP VIEW runs",
    "INSERT INTO runs SELECT * FROM runs",
    "DELETE FROM runs",
    "UPDATE runs SET status = 'finished'",
    "ALTER TABLE runs ADD COLUMN x INT",
    "BEGIN TRANSACTION",
    "CALL pragma_version()",
    "EXECUTE p",
    "PREPARE p AS SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP VIEW runs",
    "SELECT 1 /* */ ; -- \n SET threads=1",
    "SELECT getenv('HOME')",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT * FROM postgres_scan('x', 'y', 'z')",
    "SELECT * FROM sqlite_scan('x', 'y')",
    "USE memory.main",
    "",
    ";",
    "nonsense",
    "SELECT * FROM nowhere",
    "SELECT nothing FROM runs",
]


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return made([0.25, 0.5])[1]


def test_answers(tables: dict[str, pa.Table]) -> None:
    text = "SELECT condition, count(*) AS n FROM runs GROUP BY ALL ORDER BY condition DESC"
    assert sql(tables, text).to_pylist() == [
        {"condition": "model.width=8", "n": 20},
        {"condition": "model.width=4", "n": 20},
    ]
    share = """SELECT avg((value >= 0.9)::INT) AS p FROM metrics JOIN runs USING (run_id)
               WHERE step = planned_steps AND condition = 'model.width=8'"""
    assert sql(tables, share).to_pylist() == [{"p": 0.5}]
    assert sql(tables, "FROM runs SELECT count(*) AS n").to_pylist() == [{"n": 40}]


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_else_is_within_reach(tables: dict[str, pa.Table], attack: str) -> None:
    with pytest.raises(QueryError):
        sql(tables, attack)


def test_python_variables_are_no_tables(tables: dict[str, pa.Table]) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(QueryError):
        sql(tables, "SELECT * FROM secret")
    assert secret.num_rows == 1


def test_a_query_that_never_ends_is_stopped(tables: dict[str, pa.Table]) -> None:
    with pytest.raises(QueryError, match=r"longer than 0\.2 s"):
        sql(tables, "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE a.range * b.range % 7 = 3", 0.2)


def test_each_factor_is_a_column_of_its_own_type() -> None:
    factors = [
        '{"model.width":4,"task.order":"plain","optimizer.learning_rate":1,"model.tied_head":true,"x":[1]}',
        '{"model.width":8,"optimizer.learning_rate":0.5,"model.tied_head":false,"x":"a"}',
    ]
    runs = runs_with_factors(pa.table({"run_id": ["a", "b"], "factors": factors}))
    assert runs["model.width"].to_pylist() == [4, 8]
    assert runs["task.order"].to_pylist() == ["plain", None]
    assert runs["optimizer.learning_rate"].to_pylist() == [1.0, 0.5]
    assert runs["model.tied_head"].to_pylist() == [True, False]
    assert runs["x"].to_pylist() == ["[1]", "a"]
