"""Importing tables: what becomes of fragments, overlaps, two runs under one key, gaps, and bad mappings."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from jobs.errors import Corrupt, ImportRefused
from jobs.layout import study_key
from jobs.store import LocalStore, open_store
from orchestrator.cli import app
from orchestrator.imports.mapping import parse_mapping, read_mapping
from orchestrator.imports.runs import assemble
from orchestrator.imports.sources import measurements, read_table
from orchestrator.imports.stored import Source, store_import
from orchestrator.library import Library
from orchestrator.questions.headlines import headlines
from orchestrator.report import write_report
from orchestrator.text import amount
from orchestrator.verify import verify
from tests.orchestrator.imports.made import MAP, curve, write


def imported(store: LocalStore, table: Path, mapping: Path, study: str = "pythia") -> Library:
    source = read_mapping(mapping)
    store_import(
        store, study, assemble(measurements(read_table([table]), source), source.mapping), source, [Source.of(table)]
    )
    return Library(store)


@pytest.fixture
def library(store: LocalStore, tmp_path: Path) -> Library:
    return imported(store, *write(tmp_path))


def found(library: Library, sql: str) -> list[dict[str, object]]:
    return list(library.sql(sql, "pythia").to_pylist())


def test_every_run_is_a_row_with_its_end(library: Library) -> None:
    runs = found(library, "SELECT condition, seed_init, status, attempts, last_step, reason FROM runs ORDER BY ALL")
    assert [(r["condition"], r["seed_init"], r["status"], r["attempts"], r["last_step"]) for r in runs] == [
        ("model.size=14m", 1, "finished", 1, 100),
        ("model.size=14m", 2, "finished", 2, 100),
        ("model.size=14m", 3, "failed", 1, 60),
        ("model.size=14m", 4, "finished", 1, 100),
        ("model.size=14m", 4, "finished", 1, 100),
        ("model.size=31m", 1, "finished", 1, 100),
        ("model.size=31m", 2, "finished", 1, 100),
    ]
    assert runs[2]["reason"] == "the source ends at step 60 of 100"


def test_a_later_piece_supersedes_and_a_difference_is_a_finding(library: Library) -> None:
    rows = found(
        library,
        "SELECT step, value FROM metrics JOIN runs USING (run_id) "
        "WHERE condition = 'model.size=14m' AND seed_init = 2 AND metric = 'train.loss' ORDER BY step",
    )
    expected = {step: loss + (0.25 if step == 50 else 0) for step, (loss, _) in curve(2).items()}
    assert {row["step"]: row["value"] for row in rows} == pytest.approx(expected)
    audit = found(library, "SELECT step, detail FROM audit WHERE finding = 'disagreement'")
    assert [row["step"] for row in audit] == [50]
    assert "piece 1 (b)" in str(audit[0]["detail"])


def test_two_runs_under_one_key_are_two_runs_and_reported(library: Library) -> None:
    audit = found(library, "SELECT run_id, detail FROM audit WHERE finding = 'lineages'")
    assert len({row["run_id"] for row in audit}) == 2
    assert all("2 different runs have this key" in str(row["detail"]) for row in audit)
    losses = found(
        library,
        "SELECT run_id, list(value ORDER BY step) AS v FROM metrics "
        "WHERE metric = 'train.loss' AND run_id IN (SELECT run_id FROM audit WHERE finding = 'lineages') "
        "GROUP BY run_id",
    )
    assert sorted(row["v"] for row in losses) == sorted([loss for loss, _ in curve(run).values()] for run in (4, 5))


def test_missing_cells_stay_missing_and_repeated_rows_count_once(library: Library) -> None:
    counts = found(
        library,
        "SELECT seed_init, metric, count(*) AS n FROM metrics JOIN runs USING (run_id) "
        "WHERE condition = 'model.size=31m' GROUP BY ALL ORDER BY ALL",
    )
    assert [(row["seed_init"], row["metric"], row["n"]) for row in counts] == [
        (1, "heldout.accuracy", 9),
        (1, "train.loss", 11),
        (2, "heldout.accuracy", 11),
        (2, "train.loss", 11),
    ]
    assert found(library, "SELECT detail FROM audit WHERE finding = 'duplicates'") == [
        {"detail": "22 rows stood there again, word for word"}
    ]


def test_estimates_figures_and_the_report_work_on_it(library: Library, tmp_path: Path) -> None:
    question = library.question("pythia")
    summary = library.summary("pythia")
    small, large = summary.conditions
    assert (small.condition.label, large.condition.label) == ("model.size=14m", "model.size=31m")
    assert (small.successes, small.success.cohort.finished, small.success.cohort.censored) == (4, 4, 1)
    assert large.successes == 1
    assert small.bounds == (0.8, 1.0)
    page = write_report(question, headlines(question), tmp_path / "report")[0].read_text(encoding="utf-8")
    assert "model.size=31m" in page
    assert library.collect("pythia")["rollups"].num_rows == 2 * 2 * 11


@pytest.mark.parametrize(
    ("text", "size"), [("14m", 14e6), ("1.5B", 1.5e9), ("410", 410.0), (" 70M ", 70e6), ("large", None), ("-1", None)]
)
def test_sizes_as_texts_are_numbers(text: str, size: float | None) -> None:
    assert amount(text) == size


def test_a_scale_may_be_sizes_as_texts(library: Library) -> None:
    scales, conditions = library.question("pythia").by_scale()
    assert scales.tolist() == [14e6, 31e6]
    found = library.ask("success-over-scale", "pythia")
    assert found.curve.counts.k[0].tolist() == [condition.successes for condition in conditions]


def test_the_same_import_again_changes_nothing(library: Library, store: LocalStore, tmp_path: Path) -> None:
    before = {key: store.get(key) for key in store.keys("")}
    tables = library.tables("pythia")
    again = imported(store, *write(tmp_path))
    assert {key: store.get(key) for key in store.keys("")} == before
    assert all(again.tables("pythia")[name].equals(table) for name, table in tables.items())


def test_the_order_of_rows_and_the_form_of_the_file_change_no_number(library: Library, tmp_path: Path) -> None:
    table, mapping = write(tmp_path)
    rows = pa.csv.read_csv(table)
    order = np.random.default_rng(0).permutation(rows.num_rows)
    pq.write_table(rows.take(order), tmp_path / "export.parquet")
    other = imported(open_store(tmp_path / "other", create=True), tmp_path / "export.parquet", mapping)
    for name in ("runs", "metrics", "rollups"):
        assert other.tables("pythia")[name].equals(library.tables("pythia")[name]), name


def test_a_longer_table_later_keeps_the_ids(library: Library, store: LocalStore, tmp_path: Path) -> None:
    table, mapping = write(tmp_path)
    with table.open("a", encoding="utf-8") as file:
        file.writelines(
            f"14m,3,d,{step},{loss},{accuracy}\n" for step, (loss, accuracy) in curve(3).items() if step > 60
        )
    ids = {row["run_id"] for row in found(library, "SELECT run_id FROM runs")}
    longer = imported(store, table, mapping)
    assert {row["run_id"] for row in found(longer, "SELECT run_id FROM runs")} == ids
    assert found(longer, "SELECT count(*) AS n FROM runs WHERE status = 'finished'") == [{"n": 7}]
    assert store.exists(study_key("pythia", 2))


def test_damaged_rows_are_told(library: Library, store: LocalStore) -> None:
    assert not verify(store, library.declared("pythia")).findings
    key = next(key for key in store.keys("imports/") if key.endswith("rows.parquet"))
    path = store.local(key)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.unlink()
    path.write_bytes(damaged)
    with pytest.raises(Corrupt):
        library.tables("pythia")
    assert [finding.kind for finding in verify(store, library.declared("pythia")).findings] == ["corrupt"]


def test_an_import_that_was_cut_off_is_done_again(library: Library, store: LocalStore, tmp_path: Path) -> None:
    expected = {key: store.get(key) for key in store.keys("")}
    for key in store.keys("imports/"):
        if not key.endswith("rows.parquet"):
            store.delete(key)
    store.delete(study_key("pythia", 1))
    imported(store, *write(tmp_path))
    assert {key: store.get(key) for key in store.keys("")} == expected


def refused(text: str, table: str = "step,loss,seed\n0,1.0,1\n", folder: Path = Path()) -> list[str]:
    """Return the faults of a mapping, or of the table that it is put to."""

    def attempt() -> None:
        source = parse_mapping(text, "map.yaml")
        path = folder / "t.csv"
        path.write_text(table, encoding="utf-8")
        measurements(read_table([path]), source)

    with pytest.raises(ImportRefused) as error:
        attempt()
    return [str(fault) for fault in error.value.faults]


def test_every_fault_of_a_mapping_is_told_at_once() -> None:
    faults = refused("step: step\nmetrcs: {a: b}\nseed: 3\nscale: model.width\ntolerance: -1\n")
    assert len(faults) == 3
    assert "map.yaml:2" in faults[0]
    assert "did you mean 'metrics'" in faults[0]
    assert any("map.yaml:3: seed" in fault for fault in faults)
    assert any("map.yaml:5: tolerance" in fault for fault in faults)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("metric: name\nseed: seed\n", "a column of names (metric) and one of values (value)"),
        ("seed: seed\n", "either metrics (wide), or metric and value (long)"),
        ("metrics: {loss: loss}\nsuccess: {metric: loss}\n", "runs are told apart by a seed"),
        ("metrics: {loss: loss}\nseed: s\nseeds: {init: s}\nsuccess: {metric: loss}\n", "either one seed, or seeds"),
        ("metrics: {loss: loss}\nseed: s\nsuccess: {metric: los}\n", "did you mean 'loss'"),
        ("metrics: {loss: loss}\nseed: s\nscale: size\nsuccess: {metric: loss}\n", "'size' is not a factor"),
        ("- a list\n", "a mapping of keys to values"),
    ],
)
def test_mappings_that_contradict_themselves(text: str, said: str) -> None:
    assert any(said in fault for fault in refused(text))


WIDE = "step: step\nmetrics: {loss: loss}\nseed: seed\nsuccess: {metric: loss}\n"


@pytest.mark.parametrize(
    ("text", "table", "said"),
    [
        (
            WIDE.replace("step: step", "step: steps"),
            "step,loss,seed\n0,1,1\n",
            "no column 'steps'; did you mean 'step'",
        ),
        (WIDE, "step,loss,seed\n0,high,1\n", "does not hold numbers"),
        (WIDE, "step,loss,seed\n0,1,\n", "column 'seed' is empty in row 1"),
        (WIDE, "step,loss,seed\n0.5,1,1\n", "does not hold numbers of this kind"),
        (WIDE, "step,loss,seed\n", "no rows"),
        (WIDE, "step,loss,seed\n0,1,1\n0,1\n", "cannot be read"),
    ],
)
def test_tables_that_do_not_fit(text: str, table: str, said: str, tmp_path: Path) -> None:
    assert any(said in fault for fault in refused(text, table, tmp_path))


def test_a_long_table_as_json_lines(store: LocalStore, tmp_path: Path) -> None:
    path, mapping = tmp_path / "t.jsonl", tmp_path / "map.yaml"
    lines = [
        {"s": step, "name": name, "v": float(step), "i": seed, "d": 10 * seed}
        for seed in (1, 2)
        for step in (0, 5)
        for name in ("loss", "accuracy")
    ]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    mapping.write_text(
        "step: s\nmetric: name\nvalue: v\nseeds: {init: i, data: d}\nsuccess: {metric: accuracy, threshold: 5}\n"
    )
    library = imported(store, path, mapping)
    assert found(library, "SELECT seed_init, seed_data, seed_dropout FROM runs ORDER BY 1") == [
        {"seed_init": 1, "seed_data": 10, "seed_dropout": -1},
        {"seed_init": 2, "seed_data": 20, "seed_dropout": -1},
    ]
    assert library.summary("pythia").conditions[0].successes == 2


@pytest.mark.parametrize(("rule", "status"), [("missing", "failed"), ("diverged", "diverged")])
def test_values_that_are_not_finite(rule: str, status: str, store: LocalStore, tmp_path: Path) -> None:
    path, mapping = tmp_path / "t.csv", tmp_path / "map.yaml"
    path.write_text("step,loss,seed\n0,3,1\n5,2,1\n0,3,2\n5,nan,2\n", encoding="utf-8")
    mapping.write_text(WIDE + f"not_finite: {rule}\n")
    library = imported(store, path, mapping)
    assert found(library, "SELECT status FROM runs WHERE seed_init = 2") == [{"status": status}]
    assert len(found(library, "SELECT * FROM audit WHERE finding = 'not_finite'")) == 1


def test_pieces_without_names_are_told_by_their_steps(store: LocalStore, tmp_path: Path) -> None:
    """A log that was appended to after a resume, and a sorted table in which two runs lie side by side."""
    path, mapping = tmp_path / "t.csv", tmp_path / "map.yaml"
    appended = [(s, 10 - s, 1) for s in range(8)] + [(s, 10 - s, 1) for s in range(5, 12)]
    beside = [(s, v, 2) for s in range(12) for v in (10 - s, 20 - s)]
    text = "\n".join(f"{s},{v},{seed}" for s, v, seed in appended + beside)
    path.write_text("step,loss,seed\n" + text, encoding="utf-8")
    mapping.write_text(WIDE)
    library = imported(store, path, mapping)
    runs = found(library, "SELECT seed_init, last_step FROM runs ORDER BY 1")
    assert [(run["seed_init"], run["last_step"]) for run in runs] == [(1, 11), (2, 11), (2, 11)]
    assert not found(library, "SELECT * FROM audit WHERE finding = 'disagreement'")


def test_the_command_line(tmp_path: Path) -> None:
    table, mapping = write(tmp_path)
    common = ["import", "table", str(table), "--map", str(mapping), "--store", str(tmp_path / "s")]
    done = CliRunner().invoke(app, [*common, "--study", "pythia", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {
        "study": "pythia",
        "conditions": 2,
        "runs": 7,
        "rows": 148,
        "status": {"failed": 1, "finished": 6},
        "findings": {"disagreement": 1, "duplicates": 1, "lineages": 2},
    }
    bad = CliRunner().invoke(app, [*common, "--study", "a/b"])
    assert isinstance(bad.exception, ImportRefused)


def test_a_trained_study_is_not_written_over(store: LocalStore, study: object, tmp_path: Path) -> None:
    from orchestrator.declared import register

    register(store, study(), "tiny.yaml")  # type: ignore[operator]
    with pytest.raises(ImportRefused, match="trained into this store"):
        imported(store, *write(tmp_path), study="tiny")


def test_the_mappings_of_the_document_are_valid() -> None:
    text = (Path(__file__).parents[3] / "docs" / "import.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert len(shown) >= 2
    for example in [MAP, *shown]:
        assert parse_mapping(example, "map.yaml").mapping.success.metric
