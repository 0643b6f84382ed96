"""Users' SQL: more than sixty attacks, each refused; limits of time, memory, rows and size; the next query goes on."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet
import pytest

from jobs.errors import QueryError
from orchestrator.dashboard.sandbox import Limits, Sandbox
from tests.dashboard.conftest import Visitor
from tests.orchestrator.made import made
from tests.orchestrator.test_query import ATTACKS

MORE = [
    "SELECT * FROM read_text('/proc/self/environ')",
    "SELECT * FROM read_text(['/etc/passwd'])",
    "SELECT * FROM read_csv_auto('/etc/passwd')",
    "SELECT * FROM parquet_metadata('/etc/passwd')",
    "SELECT * FROM read_json_objects('/etc/passwd')",
    "SELECT * FROM read_ndjson('/etc/passwd')",
    "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    "SELECT * FROM query_table('/etc/passwd')",
    "SELECT * FROM 's3://bucket/key.parquet'",
    "SELECT * FROM read_parquet('s3://bucket/key')",
    "SELECT * FROM '/proc/self/mem'",
    "SELECT * FROM 'file:///etc/passwd'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "COPY runs FROM '/etc/passwd'",
    "SET VARIABLE x = 1",
    "SET GLOBAL memory_limit = '100GB'",
    "SET lock_configuration = false",
    "PRAGMA enable_profiling",
    "PRAGMA disable_checkpoint_on_shutdown",
    "FORCE INSTALL json",
    "ATTACH 'https://example.com/x.db'",
    "CREATE TEMP TABLE t AS SELECT 1",
    "CREATE FUNCTION f() AS 1",
    "TRUNCATE runs",
    "MERGE INTO runs USING runs AS r ON true WHEN MATCHED THEN DELETE",
    "COMMENT ON TABLE runs IS 'x'",
    "SELECT 1;;SELECT 2",
    "SELECT 1 UNION SELECT content FROM read_text('/etc/passwd')",
    "SELECT * FROM runs WHERE EXISTS (FROM read_blob('/etc/shadow'))",
    "PIVOT (SELECT 1 AS a, 2 AS b) ON a USING sum(b)",
    "\0",
    "SELECT '" + "x" * 30_000 + "'",
    "SELECT " + "(" * 4_000 + "1" + ")" * 4_000,
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, table in made([0.25, 0.5])[1].items():
        with pa.ipc.new_file(str(folder / name), table.schema) as writer:
            writer.write_table(table)
        found[name] = [folder / name]
    return found


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made_here = Sandbox(Limits(seconds=1.0, memory_bytes=128 * 1024**2, rows=50), width=1)
    yield made_here
    made_here.close()


def test_there_are_at_least_sixty_attacks() -> None:
    assert len({*ATTACKS, *MORE}) >= 60


@pytest.mark.parametrize("attack", [*ATTACKS, *MORE])
def test_an_attack_is_an_error_and_the_next_query_goes_on(
    sandbox: Sandbox, files: dict[str, list[Path]], attack: str
) -> None:
    with pytest.raises(QueryError) as error:
        sandbox.ask(attack, files)
    assert "root:" not in str(error.value)
    assert sandbox.ask("SELECT count(*) AS n FROM runs", files).table.to_pylist() == [{"n": 40}]


def test_answers_are_cut_and_say_so(sandbox: Sandbox, files: dict[str, list[Path]]) -> None:
    assert sandbox.ask("SELECT * FROM range(50)", files).cut is False
    cut = sandbox.ask("SELECT * FROM range(51)", files)
    assert (cut.table.num_rows, cut.cut) == (50, True)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count(*) FROM range(100000000) a, range(100000000) b WHERE (a.range * b.range) % 7 = 3",
        "WITH RECURSIVE t(x) AS (SELECT 1 UNION ALL SELECT x FROM t) SELECT count(*) FROM t",
        "SELECT list(range) FROM range(300000000)",
        "SELECT sum(length(repeat('x', 100000000 + range))) FROM range(1000)",
        "SELECT count(DISTINCT hash(range)) FROM range(2000000000)",
    ],
)
def test_what_takes_too_much_is_ended(sandbox: Sandbox, files: dict[str, list[Path]], text: str) -> None:
    with pytest.raises(QueryError, match=r"longer than|Out of Memory|memory"):
        sandbox.ask(text, files)
    assert sandbox.ask("SELECT 1 AS one", files).table.num_rows == 1


def test_the_process_is_another_one_without_this_ones_environment(
    files: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "CANARY-7f3a")
    box = Sandbox(Limits(), width=1)
    try:
        box.ask("SELECT 1", files)
        process = box._idle.get()
        assert process is not None
        box._idle.put(process)
        assert process.pid != os.getpid()
        assert b"CANARY" not in Path(f"/proc/{process.pid}/environ").read_bytes()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        assert [line.split()[3:5] for line in limits.splitlines() if line.startswith("Max file size")] == [["0", "0"]]
        process.kill()
        process.wait()
        assert box.ask("SELECT 2 AS two", files).table.to_pylist() == [{"two": 2}]
    finally:
        box.close()
    assert not list(tmp_path.iterdir())


def test_the_page_answers_and_files_are_the_same_numbers(reader: Visitor) -> None:
    text = "SELECT%20condition,%20count(*)%20AS%20n%20FROM%20runs%20GROUP%20BY%20ALL%20ORDER%20BY%20ALL"
    page = reader.get(f"/sql.json?q={text}").json
    assert page["answer"]["data"] == [["model.width=4", "model.width=8"], [3, 3]]
    assert reader.get(f"/answer.csv?q={text}").text.splitlines() == [
        '"condition","n"',
        '"model.width=4",3',
        '"model.width=8",3',
    ]
    assert reader.get(f"/answer.json?q={text}").json["data"] == page["answer"]["data"]
    parquet = pa.parquet.read_table(pa.BufferReader(reader.get(f"/answer.parquet?q={text}").body))
    assert parquet["n"].to_pylist() == [3, 3]


def test_sql_is_over_all_studies_and_each_shared_run_counts_once(two_studies: Visitor) -> None:
    def ask(text: str, study: str = "") -> list[list[object]]:
        page = two_studies.get(f"/sql.json?study={study}&q={quote(text)}").json
        assert page["error"] == ""
        return list(page["answer"]["data"])

    library = two_studies.dashboard.view.feed.library
    assert ask("SELECT study, count(*) AS n FROM runs GROUP BY ALL ORDER BY ALL") == [["larger", "tiny"], [8, 6]]
    count = "SELECT count(*) AS n FROM metrics"
    assert ask(count) == [[library.sql(count)["n"][0].as_py()]] == ask(count, "larger")
    assert ask(count, "tiny")[0][0] < ask(count, "larger")[0][0]
    rolled = "SELECT count(*) AS n, sum(n) AS of FROM rollups"
    assert ask(rolled) == [[v] for v in library.sql(rolled).to_pylist()[0].values()], "a sum is a number"


def test_estimates_are_those_of_the_command_line(two_studies: Visitor) -> None:
    library = two_studies.dashboard.view.feed.library
    for text in ("SELECT * FROM estimates ORDER BY ALL", "SELECT study, name, value FROM ESTIMATES ORDER BY ALL"):
        page = two_studies.get(f"/answer.parquet?q={quote(text)}")
        assert pa.parquet.read_table(pa.BufferReader(page.body)).to_pylist() == library.sql(text).to_pylist() != []


def test_half_an_answer_is_no_file(reader: Visitor) -> None:
    assert reader.get("/answer.csv?q=SELECT%20*%20FROM%20range(20000)").status == 400
    assert reader.get("/answer.exe?q=SELECT%201").status == 400


def test_the_clock_of_a_query_is_kept(files: dict[str, list[Path]]) -> None:
    box = Sandbox(Limits(seconds=0.2), width=1)
    try:
        box.ask("SELECT 1", files)
        began = time.process_time()
        with pytest.raises(QueryError, match=r"0\.2 s"):
            box.ask("SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = 3.5", files)
        assert time.process_time() - began < 5
    finally:
        box.close()
