"""Tables shaped like public ones: nested pieces, two runs under one key, rows without steps that versions repeat."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from jobs.errors import ImportRefused
from jobs.store import LocalStore, get_record, put_record
from orchestrator.cli import app
from orchestrator.declared import read_declared
from orchestrator.imports.mapping import MappingFile, parse_mapping, read_mapping
from orchestrator.imports.runs import Imported, assemble
from orchestrator.imports.sources import measurements, read_table
from orchestrator.imports.stored import Source, imported_tables, store_import
from orchestrator.library import Library
from orchestrator.questions.asked import Options

EXAMPLES = Path(__file__).parents[3] / "docs" / "examples"
STEPS = (1, 2, 4, 8, 16, 32, 64, 128)
# Seed 1 lies in four pieces, three in holes of others; seed 2 names two runs; seed 3 was tried in vain from 8 to 32.
PIECES = {
    (1, "whole"): (1, 2, 128),
    (1, "hole"): (4, 8, 64),
    (1, "deeper"): (16,),
    (1, "deepest"): (32,),
    (2, "one"): STEPS,
    (2, "other"): STEPS,
    (3, "to the end"): STEPS,
    (3, "in vain"): (8, 16, 32),
}


def loss(seed: int, name: str, step: int) -> float:
    return 11 - step / 16 + seed / 100 + {"other": 2.0, "in vain": 0.001}.get(name, 0.0)


@pytest.fixture
def losses(tmp_path: Path) -> Path:
    path = tmp_path / "losses.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "seed", "fragment", "step", "loss"])
        writer.writerows(
            ["14m", seed, name, step, loss(seed, name, step)]
            for (seed, name), steps in PIECES.items()
            for step in steps
        )
    return path


@pytest.fixture
def times(tmp_path: Path) -> Path:
    """Write two suites of one row a run; version 2 repeats version 1, but for run 0 at batch size 16."""
    path = tmp_path / "times.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["version", "benchmark", "batch_size", "run", "epochs_to_converge"])
        for version in (1, 2):
            for size in (16, 32):
                for run in range(5):
                    again = version == 2 and (size, run) == (16, 0)
                    writer.writerow([version, "llama31_8b", size, run, 1000 * size + 10 * (run // 2) + 500 * again])
        writer.writerow([1, "other", 16, 0, "x"])
    return path


def read(path: Path, mapping: MappingFile) -> Imported:
    return assemble(measurements(read_table([path]), mapping), mapping.mapping)


def stored(store: LocalStore, path: Path, mapping: MappingFile) -> Library:
    store_import(store, "s", read(path, mapping), mapping, [Source.of(path)])
    return Library(store)


def test_pieces_in_holes_fill_them_and_take_no_step_away(store: LocalStore, losses: Path) -> None:
    library = stored(store, losses, read_mapping(EXAMPLES / "polypythias.yaml"))
    runs = library.sql("SELECT seed_init, status, last_step, attempts FROM runs ORDER BY ALL", "s").to_pylist()
    assert [tuple(run.values()) for run in runs] == [
        (1, "finished", 128, 4),
        (2, "finished", 128, 1),
        (2, "finished", 128, 1),
        (3, "finished", 128, 2),
    ]
    rows = library.sql(
        "SELECT seed_init, list(value ORDER BY step, value) AS v FROM metrics JOIN runs USING (run_id) "
        "GROUP BY ALL ORDER BY ALL",
        "s",
    ).to_pylist()
    assert rows[0]["v"] == pytest.approx([loss(1, "whole", step) for step in STEPS])
    assert len(rows[1]["v"]) == 2 * len(STEPS)
    assert rows[2]["v"] == pytest.approx([loss(3, "to the end", step) for step in STEPS]), "nothing of the try in vain"


def test_a_try_in_vain_is_compared_with_what_stands(losses: Path) -> None:
    found = read(losses, read_mapping(EXAMPLES / "polypythias.yaml")).findings
    assert [(f["finding"], f["step"]) for f in found if f["finding"] != "lineages"] == [
        ("disagreement", step) for step in (8, 16, 32)
    ]
    text = (EXAMPLES / "polypythias.yaml").read_text(encoding="utf-8") + "tolerance: 0.01\n"
    assert {f["finding"] for f in read(losses, parse_mapping(text, "m.yaml")).findings} == {"lineages"}


def test_a_resumed_run_still_goes_on_from_where_it_was_resumed(tmp_path: Path) -> None:
    path = tmp_path / "resumed.csv"
    rows = [("a", step, 5.0 - step / 100) for step in range(0, 60, 10)]
    rows += [("b", step, 5.0 - step / 100) for step in (35, 55, 75)]
    path.write_text("fragment,step,loss,seed,size\n" + "".join(f"{f},{s},{v},0,14m\n" for f, s, v in rows))
    (run,) = read(path, read_mapping(EXAMPLES / "polypythias.yaml")).runs
    assert run.pieces == (("a", 0, 50, 35), ("b", 35, 75, -1)), "not mixed, though b lacks the steps of a"


def test_an_import_that_kept_no_limits_reads_as_it_did(store: LocalStore, losses: Path) -> None:
    library = stored(store, losses, read_mapping(EXAMPLES / "polypythias.yaml"))
    declared = read_declared(store, "s")
    key = f"imports/{declared.imported}/source.json"
    body = get_record(store, key)
    for run in body["runs"]:
        run[8] = sorted((piece[:3] for piece in run[8]), key=lambda piece: piece[1])
    store.delete(key)
    put_record(store, key, body)
    before = imported_tables(store, declared)["metrics"]
    assert before.num_rows < library.tables("s")["runs"].num_rows * len(STEPS)


def test_rows_without_steps_are_runs_that_every_question_takes(store: LocalStore, times: Path) -> None:
    library = stored(store, times, read_mapping(EXAMPLES / "mlperf.yaml"))
    runs = library.sql("SELECT condition, status, last_step, count(*) AS n FROM runs GROUP BY ALL ORDER BY ALL", "s")
    assert [tuple(row.values()) for row in runs.to_pylist()] == [
        ("batch_size=16", "finished", 0, 6),
        ("batch_size=32", "finished", 0, 5),
    ], "equal rows of two versions are one run; another value under one number is another run"
    means = library.ask("mean", "s").conditions
    assert means["batch_size=32"].t.value == pytest.approx(32000 + 8)
    curve = library.ask("survival-curve", "s").conditions["batch_size=32"]
    assert curve.value.tolist() == pytest.approx([1, 0.6, 0.2]), "ties stay ties"
    assert library.ask("distances", "s").w1[0].distance.value > 15_000
    modes = library.ask("modes", "s", Options(gap=1000)).conditions["batch_size=32"]
    assert "two modes (" not in modes.score.says


def test_where_chooses_rows_by_any_kind_of_column(times: Path) -> None:
    text = (EXAMPLES / "mlperf.yaml").read_text(encoding="utf-8")
    for where, runs in (
        ("{benchmark: llama31_8b, version: 1}", 10),
        ("{benchmark: [llama31_8b], version: [1, 2]}", 11),
    ):
        assert len(read(times, parse_mapping(text.replace("{benchmark: llama31_8b}", where), "m.yaml")).runs) == runs


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("{benchmark: llama31}", "no row has 'llama31' in column 'benchmark'; did you mean 'llama31_8b'?"),
        ("{suite: a}", "the table has no column 'suite'"),
        ("{benchmark: other, version: 2}", "no row has all of these values"),
        ("{version: [1, 3]}", "no row has 3 in column 'version'"),
        ("{benchmark: other}", "does not hold numbers of this kind"),
    ],
)
def test_where_that_means_nothing_is_told(times: Path, where: str, says: str) -> None:
    text = (EXAMPLES / "mlperf.yaml").read_text(encoding="utf-8").replace("{benchmark: llama31_8b}", where)
    with pytest.raises(ImportRefused, match=r"m\.yaml") as refused:
        read(times, parse_mapping(text, "m.yaml"))
    assert says in str(refused.value)


def test_a_fault_names_the_row_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "counts.csv"
    path.write_text("suite,run,right\na,0,1\nb,0,3\nb,1,9\n")
    text = "metrics: {acc: {correct: right, total: 5}}\nrun: run\nwhere: {suite: b}\nsuccess: {metric: acc}\n"
    with pytest.raises(ImportRefused, match="in row 3"):
        read(path, parse_mapping(text, "m.yaml"))


def test_the_list_of_a_store_says_how_imported_runs_ended(store: LocalStore, times: Path) -> None:
    stored(store, times, read_mapping(EXAMPLES / "mlperf.yaml"))
    (row,) = json.loads(CliRunner().invoke(app, ["list", "--store", store.url, "--json"]).output)
    assert (row["runs"], row["status"]["finished"], row["status"]["waiting"]) == (11, 11, 0)
