"""Figures of a paper: every kind on whole, broken and tiny studies; what they show, where it is not clipped, bytes."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from typer.testing import CliRunner

from jobs.errors import QueryError
from jobs.records import METRICS, Status
from jobs.seeds import Seeds
from orchestrator import plots
from orchestrator.cli import app
from orchestrator.plots import by_number
from orchestrator.plots.by_scale import _beside
from orchestrator.plots.kinds import KINDS, _along
from orchestrator.plots.style import SERIES, house_style, new_figure, scale_axis, write
from orchestrator.questions.asked import Options, Question
from orchestrator.summary import Curves
from tests.orchestrator.conftest import STUDY
from tests.orchestrator.dirty import ON_LINES
from tests.orchestrator.made import made

CARRIES = "heldout.carries"
CHOICES = {
    "order": Options(against=CARRIES),
    "map": Options(conditions=("model.width=16",)),
    "distances": Options(conditions=("model.width=8", "model.width=16")),
    "numbered": Options(metric="seen_0.accuracy"),
    "steps": Options(metric="seen_*.accuracy"),
}


def study(shares: tuple[float, ...] = (0.1, 0.4, 0.6, 0.9), seeds: int = 16, **more: object) -> Question:
    """Return a made-up study with a second metric that breaks through one probe earlier, and crossed seeds."""
    declared, tables = made(list(shares), seeds=seeds, **more)  # type: ignore[arg-type]
    rows = tables["metrics"].to_pylist()
    for row in rows:
        if row["metric"] == "heldout.accuracy" and row["step"] >= 50 and int(row["run_id"][-3:]) < seeds // 2:
            rows.append({**row, "metric": CARRIES, "value": 0.95})
        elif row["metric"] == "heldout.accuracy":
            rows.append({**row, "metric": CARRIES})
        if row["metric"] == "heldout.accuracy":
            rows += [{**row, "metric": f"seen_{number}.accuracy"} for number in (0, 5, 50)]
    side = int(seeds**0.5)
    runs = tuple(replace(run, seeds=Seeds(i % seeds // side, i % side, 0, 0)) for i, run in enumerate(declared.runs))
    tables["metrics"] = pa.Table.from_pylist(rows, schema=METRICS)
    return Question(replace(declared, runs=runs), tables, Options())


def draw(kind: str, question: Question) -> Figure:
    with house_style():
        return KINDS[kind].draw(replace(question, options=CHOICES.get(kind, question.options)))


DRAWN = [kind for kind in KINDS if kind not in ON_LINES]


@pytest.fixture(scope="module")
def whole() -> Question:
    return study()


@pytest.fixture(scope="module")
def figures(whole: Question) -> dict[str, Figure]:
    return {kind: draw(kind, whole) for kind in DRAWN}


@pytest.mark.parametrize("kind", DRAWN)
def test_every_figure_says_n_cohort_and_units_and_clips_nothing(kind: str, figures: dict[str, Figure]) -> None:
    figure = figures[kind]
    assert re.search(r"\d+ of \d+ runs ended.*cohort [0-9a-f]{8}; ", figure.get_supxlabel().replace("\n", " "))
    for axes in figure.axes:
        if not (axes.get_visible() and axes.axison and axes.lines):
            continue
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        low, high = sorted(axes.get_ylim())
        for line in axes.lines:
            y = np.asarray(line.get_ydata(), float)
            if line.get_transform() == axes.transData:
                assert np.all(np.isnan(y) | ((low <= y) & (y <= high))), "no point lies outside of the axes"


def test_pictures_are_drawn_and_their_text_is_text(figures: dict[str, Figure], tmp_path: Path) -> None:
    for kind, figure in figures.items():
        picture = imread(write(figure, tmp_path / f"{kind}.png"))
        assert picture[..., :3].std() > 0.02
        svg = write(figure, tmp_path / f"{kind}.svg").read_text()
        assert "runs ended" in svg, "the footnote can be found and read aloud"
        assert "<dc:date>" not in svg


def test_equal_runs_give_equal_bytes_in_every_format(whole: Question, tmp_path: Path) -> None:
    for name in ("a", "b"):
        for kind, ending in (("law", "pdf"), ("onsets", "svg"), ("scores", "png")):
            write(draw(kind, whole), tmp_path / name / f"{kind}.{ending}")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert b"/CreationDate" not in (tmp_path / "a" / "law.pdf").read_bytes()


def test_the_order_of_rows_moves_no_byte(whole: Question, tmp_path: Path) -> None:
    mixed = {
        name: table.take(np.random.default_rng(1).permutation(table.num_rows)) for name, table in whole.tables.items()
    }
    for name, tables in (("a", whole.tables), ("b", mixed)):
        for kind in ("law", "distances"):
            write(draw(kind, replace(whole, tables=tables)), tmp_path / f"{name}-{kind}.svg")
    for kind in ("law", "distances"):
        assert (tmp_path / f"a-{kind}.svg").read_bytes() == (tmp_path / f"b-{kind}.svg").read_bytes()


def test_colours_are_told_apart_in_grey_too() -> None:
    light = [np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)) for colour in SERIES[:2]]
    assert len(set(SERIES)) == 7
    assert abs(light[0] - light[1]) > 0.02


def test_a_fan_thins_where_runs_end_and_says_so() -> None:
    values = np.random.default_rng(0).random((10, 4))
    values[3:, 2:] = np.nan
    axes = plots.quantile_fan(new_figure().add_subplot(), np.arange(4), values, "loss")
    strip = axes.child_axes[0]
    heights = strip.collections[0].get_paths()[0].vertices[:, 1]
    assert {0.0, 3.0, 10.0} <= set(heights.tolist())
    median = next(line for line in axes.lines if line.get_label() == "median")
    assert median.get_ydata() == pytest.approx(np.nanmedian(values, axis=0))


def test_steps_beside_steps_are_means_over_the_runs_that_were_measured() -> None:
    gap = np.nan
    one = Curves(("a", "b"), np.array([0, 5]), np.array([[1.0, gap], [3.0, 2.0]]))
    other = Curves(("a", "b"), np.array([5, 9]), np.array([[gap, 4.0], [gap, 6.0]]))
    steps, means = by_number.means_at([one, other])
    assert steps.tolist() == [0, 5, 9]
    assert means == pytest.approx(np.array([[2.0, 2.0, gap], [gap, gap, 5.0]]), nan_ok=True)
    axes = by_number.between_steps(new_figure().add_subplot(), steps, [0, 1200], means, (0.0, 6.0))
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "5", "9"]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "1,200"]
    assert axes.images[0].get_array().mask.sum() == 3


def test_a_number_that_a_condition_has_no_value_of_is_left_out_of_its_line() -> None:
    question = study(seeds=4)
    table = question.tables["metrics"]
    first = {run.id for run in question.declared.runs if run.condition.label == "model.width=4"}
    kept = [not (row["metric"] == "seen_50.accuracy" and row["run_id"] in first) for row in table.to_pylist()]
    question.tables["metrics"] = table.filter(pa.array(kept))
    lines = draw("numbered", question).axes[0].containers
    assert [len(line[0].get_xdata()) for line in lines] == [2, 3, 3, 3]


@pytest.mark.parametrize(
    ("steps", "scale"),
    [
        (np.arange(0, 1001, 100), "linear"),
        (np.array([0, *2 ** np.arange(12)]), "symlog"),
        (np.array([0, 1, 900]), "linear"),
    ],
)
def test_steps_that_double_are_drawn_on_an_axis_that_does(steps: np.ndarray, scale: str) -> None:
    values = np.random.default_rng(0).random((5, len(steps)))
    axes = plots.quantile_fan(new_figure().add_subplot(), steps, values, "loss")
    assert (axes.get_xscale(), axes.get_xlabel()) == (scale, "step (optimiser updates)")
    FigureCanvasAgg(axes.figure)
    axes.figure.draw_without_rendering()
    assert not [tick.get_text() for tick in axes.get_xticklabels() if "$" in tick.get_text()]


def test_large_scales_have_short_names() -> None:
    axes = new_figure().add_subplot()
    scale_axis(axes, np.array([410.0, 14e6, 1.4e9]), "model.size")
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["410", "14M", "1.4B"]


def test_onsets_are_counted_as_before_after_tied_and_neither() -> None:
    inf = np.inf
    a = np.array([0.0, 10, 10, 20, -inf]), np.array([10.0, 20, 20, inf, 0])
    b = np.array([10.0, 0, 10, 20, 20]), np.array([20.0, 10, 20, inf, inf])
    axes = plots.onset_against_onset(new_figure().add_subplot(), a, b, ("A", "B"), 20.0)
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["A first: 2", "B first: 1", "not told apart: 1", "neither, ever: 1"]


def test_the_curve_of_onsets_is_slanted_within_brackets_and_flat_between() -> None:
    one, gone = np.array([1.0]), np.array([0.25])
    axes = plots.share_without_onset(new_figure().add_subplot(), 100 * one, 150 * one, gone, gone, gone, "c", 0, 400.0)
    assert axes.lines[0].get_xdata().tolist() == [0, 100, 150, 400]
    assert axes.lines[0].get_ydata().tolist() == [1, 1, 0.25, 0.25]


def test_the_figure_of_the_law_shows_both_laws_and_the_share(figures: dict[str, Figure]) -> None:
    labels = [text.get_text() for text in figures["law"].axes[0].get_legend().get_texts()]
    assert {"mixture's mean", "one power law of the mean", "mean of the runs"} <= set(labels)
    assert "of the change of the mean is a change of P(success)" in figures["law"].get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize(
    ("kind", "question", "told"),
    [
        ("law", lambda: study((0.0, 0.0, 0.0)), "no run reaches 0.9"),
        ("law", lambda: study((0.5,)), "needs a scale"),
        ("probability", lambda: study((0.2, 0.8), factor="model.norm", values=["rms", "layer"]), "not a positive"),
        ("map", lambda: replace(study(), options=Options()), "one condition"),
        ("order", lambda: replace(study(), options=Options()), "--against, one of heldout.accuracy, heldout.carries"),
        ("steps", lambda: replace(study(), options=Options()), "names fewer than two steps"),
        ("variance", lambda: study(seeds=3), "crosses initialisation with data order"),
        ("scores", lambda: replace(study(), options=Options(metric="heldout.acuracy")), "did you mean 'heldout.acc"),
        ("scores", lambda: replace(study(), options=Options(conditions=("depth",))), "no condition is called 'depth'"),
        ("probability", lambda: replace(study(), options=Options(scale="model.depth")), "no factor is called"),
        (
            "onsets",
            lambda: study((0.5,), seeds=2, statuses={(0, s): Status.WAITING for s in range(2)}),
            "no run has ended",
        ),
    ],
)
def test_what_cannot_be_drawn_is_an_answer(kind: str, question: object, told: str) -> None:
    with house_style(), pytest.raises(QueryError, match=re.escape(told)):
        KINDS[kind].draw(question())  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["fan", "ridgeline", "scores", "probability"])
def test_unfinished_studies_are_drawn_as_far_as_they_are(kind: str) -> None:
    waiting = {(0, seed): Status.WAITING for seed in range(5)} | {(1, 2): Status.RUNNING, (2, 1): Status.DIVERGED}
    figure = draw(kind, study((0.2, 0.5, 0.8), seeds=5, statuses=waiting))
    assert "9 of 15 runs ended, 1 diverged" in figure.get_supxlabel()


def test_the_second_onset_may_have_a_level_of_its_own(whole: Question) -> None:
    told = []
    for level in (0.9, 0.999):
        asked = replace(whole, options=Options(against=CARRIES, against_threshold=level))
        with house_style():
            figure = KINDS["order"].draw(asked)
        told.append(sum(int(text.get_text().rpartition(": ")[2]) for axes in figure.axes for text in _second(axes)))
        assert f"at 0.9 and {level:g}" in figure.get_supxlabel()
    assert told[0] > told[1] == 0, "nobody is right so often"


def _second(axes: Axes) -> list[Text]:
    legend = axes.get_legend()
    return [text for text in legend.get_texts() if text.get_text().startswith(f"{CARRIES} first")] if legend else []


def test_a_whole_label_means_that_condition_alone() -> None:
    question = replace(study((0.1,) * 6), options=Options(conditions=("model.width=4",)))
    assert [c.condition.label for c in question.summary().conditions] == ["model.width=4"]
    part = replace(question, options=Options(conditions=("width=1",)))
    assert [c.condition.label for c in part.summary().conditions] == ["model.width=16", "model.width=128"]


def test_a_figure_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="pdf, svg, png"):
        write(new_figure(), tmp_path / "fig.jpeg")
    (tmp_path / "file").write_text("")
    with pytest.raises(QueryError, match="cannot be written"):
        write(new_figure(), tmp_path / "file" / "fig.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_verb_draws_lists_and_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(STUDY)
    call = CliRunner().invoke
    assert call(app, ["run", "tiny.yaml", "--cluster", "inline", "--no-report", "--store", "s"]).exit_code == 0
    done = call(app, ["plot", "fan", "--store", "s", "-o", "out/fan.svg", "--json"], catch_exceptions=False)
    assert json.loads(done.output) == {"kind": "fan", "study": "tiny", "file": "out/fan.svg"}
    assert "heldout.accuracy" in (tmp_path / "out" / "fan.svg").read_text()
    listed = json.loads(call(app, ["plot", "--list", "--json"]).output)
    assert [entry["kind"] for entry in listed] == list(KINDS)
    assert all(entry["kind"] in call(app, ["plot", "--list"]).output for entry in listed)
    for arguments, told in (
        (["plot", "fam", "--store", "s"], "did you mean 'fan'"),
        (["plot", "--store", "s"], "say which figure"),
    ):
        error = call(app, arguments).exception
        assert isinstance(error, QueryError)
        assert told in str(error)
        assert "the distributional scaling law" in str(error)


def test_what_stands_beside_a_scale_stays_on_its_side_however_near_the_next_one_is() -> None:
    assert _beside(np.array([8.0, 16.0, 64.0]), 0.07) == 0.07
    near = np.array([1525.0, 1550.0, 1575.0, 1650.0])
    assert 1550 * (1 + _beside(near, 0.07)) < 1575
    assert 1575 * (1 - _beside(near, 0.07)) > 1550
    assert _beside(np.array([8.0]), 0.06) == 0.06


def test_laws_are_drawn_no_farther_past_the_scales_than_these_reach() -> None:
    assert _along(np.array([8.0, 64.0]))[-1] == pytest.approx(128.0)
    assert _along(np.array([1500.0, 1650.0]))[-1] == pytest.approx(1815.0)
