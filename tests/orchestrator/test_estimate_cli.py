"""`seedbed estimate`, and that its number is the one of Python and SQL, bit for bit."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import seedbed
from jobs.errors import NotFound, QueryError
from jobs.records import ESTIMATES
from orchestrator.cli import app
from orchestrator.questions.registry import QUESTIONS
from tests.orchestrator.made import made

MAP = """\
step: step
metrics: {train.loss: loss, heldout.accuracy: accuracy}
factors: {model.width: width}
seed: seed
scale: model.width
success: {metric: heldout.accuracy, threshold: 0.9, sustained: 2}
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store with a study of 4 widths x 12 seeds."""
    folder = tmp_path_factory.mktemp("estimates")
    declared, tables = made([0.1, 0.35, 0.7, 0.9], seeds=12)
    runs = {run.id: (run.condition.factors["model.width"], run.seeds.init) for run in declared.runs}
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "seed", "step", "accuracy", "loss"])
        for row in tables["metrics"].to_pylist():
            loss = 2 - 1.5 * (row["value"] > 0.9) + row["value"] / 10
            writer.writerow([*runs[row["run_id"]], row["step"], row["value"], loss])
    (folder / "map.yaml").write_text(MAP)
    files = ["table", str(folder / "rows.csv"), "--map", str(folder / "map.yaml"), "--study", "widths"]
    assert CliRunner().invoke(app, ["import", *files, "--store", str(folder / "s")]).exit_code == 0
    return str(folder / "s")


def answer(store: str, *arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ["estimate", *arguments, "--store", store, "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.output)["answer"]


def test_command_line_python_and_sql_give_one_number(store: str) -> None:
    opened = seedbed.open(store)
    rows = {(r["question"], r["name"], r["condition"]): r for r in opened.estimates("widths").arrow().to_pylist()}
    assert opened.sql("SELECT * FROM estimates").arrow().to_pylist() == list(rows.values())
    assert opened.estimates().arrow().schema == ESTIMATES

    midpoint = rows["success-over-scale", "midpoint", ""]
    told = answer(store, "success-over-scale")["midpoint"]
    found = opened.estimate("success-over-scale").midpoint
    for name in ("value", "low", "high"):
        assert midpoint[name] == told[name] == getattr(found, name)

    label = "model.width=8"
    mean = rows["mean", "train.loss", label]
    told = answer(store, "mean", "--metric", "train.loss")["conditions"][label]["t"]
    found = opened.estimate("mean", metric="train.loss")[label].t
    for name in ("value", "low", "high"):
        assert mean[name] == told[name] == getattr(found, name)

    success = rows["success", "P(success)", label]
    assert success["value"] == opened.summary().conditions[1].success.value
    query = f"SELECT low FROM estimates WHERE question = 'success' AND condition = '{label}'"  # noqa: S608
    done = CliRunner().invoke(app, ["query", query, "--store", store, "--json"], catch_exceptions=False)
    assert json.loads(done.output) == [{"low": success["low"]}]
    assert answer(store, "success")["conditions"][label]["value"]["low"] == success["low"]


class Numbers(HTMLParser):
    """The numbers of a page, by question, condition and name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[tuple[str, str, str], tuple[str, str, str]] = {}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        if tag == "data" and "data-question" in told:
            key = told["data-question"], told["data-condition"], told["data-name"]
            assert key not in self.found
            self.found[key] = told["value"], told["data-low"], told["data-high"]


def test_the_report_has_every_number_of_sql_python_and_the_command_line(store: str, tmp_path: Path) -> None:
    asked = ("scaling-law", "distances", "survival-curve")
    arguments = [part for name in asked for part in ("--ask", name)]
    call = CliRunner().invoke
    written = json.loads(
        call(
            app, ["report", "--store", store, "-o", str(tmp_path), "--json", *arguments], catch_exceptions=False
        ).output
    )
    page = Numbers(Path(written[0]).read_text(encoding="utf-8")).found
    names = ", ".join(f"'{name}'" for name in asked)
    text = f"SELECT * FROM estimates WHERE question IN ({names}) OR question NOT IN ({names})"  # noqa: S608
    rows = seedbed.open(store).sql(text).arrow().to_pylist()
    assert page == {
        (r["question"], r["condition"], r["name"]): (str(r["value"]), str(r["low"]), str(r["high"])) for r in rows
    }
    share = seedbed.open(store).estimate("scaling-law").change.share
    assert page["scaling-law", "", "change.share"] == (str(share.value), str(share.low), str(share.high))
    told = answer(store, "scaling-law")["change"]["share"]  # type: ignore[index]
    assert (told["value"], told["low"], told["high"]) == (share.value, share.low, share.high)
    error = call(app, ["report", "--store", store, "-o", str(tmp_path / "no"), "--ask", "variance"]).exception
    assert isinstance(error, QueryError)
    assert not (tmp_path / "no" / "report.html").exists()


def test_options_reach_the_answer(store: str) -> None:
    told = answer(store, "predict", "--at", "64", "--at", "128", "--level", "0.9")["at"]
    assert set(told) == {"64.0", "128.0"}
    assert told["64.0"]["estimate"]["level"] == 0.9
    found = seedbed.open(store).estimate("predict", at=[64, 128], level=0.9).at[64]
    assert told["64.0"]["estimate"]["low"] == found.estimate.low
    one = answer(store, "success", "--condition", "model.width=8", "--threshold", "0.5")["conditions"]
    assert list(one) == ["model.width=8"]
    assert one["model.width=8"]["successes"] > 4


@pytest.mark.parametrize("question", ["success", "modes", "success-over-scale", "predict", "distances", "onset"])
def test_tables_say_n_cohort_method_level_unit_and_rule(store: str, question: str) -> None:
    arguments = ["estimate", question, "widths", "--store", store]
    text = CliRunner().invoke(app, arguments, catch_exceptions=False).output
    assert QUESTIONS[question].tells in text
    if question in ("modes", "distances"):
        assert ("two modes (ΔBIC" if question == "modes" else "adjusted_p") in text
        return
    digest = seedbed.open(store).summary().conditions[0].success.cohort.digest[:8]
    assert ("12 of 12" in text and digest in text) or "48 of 48" in text
    assert "95 %" in text
    assert "Unit of replication: run. Stopping rule: fixed number of seeds." in text


def test_questions_are_listed_and_bad_ones_answered(store: str) -> None:
    call = CliRunner().invoke
    listed = json.loads(call(app, ["estimate", "--list", "--json"]).output)
    assert [entry["question"] for entry in listed] == list(QUESTIONS)
    assert all(name in call(app, ["estimate", "--list"]).output for name in QUESTIONS)
    for arguments, kind, told in (
        (["estimate", "--store", store], QueryError, "say which question"),
        (["estimate", "sucess", "--store", store], QueryError, "did you mean 'success'"),
        (["estimate", "success", "widhts", "--store", store], NotFound, "it holds widths"),
        (["estimate", "success", "--store", store, "--metric", "loss"], QueryError, "no metric is called 'loss'"),
        (["estimate", "variance", "--store", store], QueryError, "use the seed design `crossed`"),
        (["estimate", "success", "--store", store, "--level", "95"], QueryError, "between 0 and 1"),
    ):
        error = call(app, arguments).exception
        assert isinstance(error, kind)
        assert told in str(error)
    with pytest.raises(QueryError, match="no option is called 'treshold'"):
        seedbed.open(store).estimate("success", treshold=0.5)
