"""Forecasts of a whole distribution: what they are made of, and a record that can be bad."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import wasserstein_distance

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.library import Library
from orchestrator.questions.asked import Options
from orchestrator.questions.forecast import Forecast
from orchestrator.questions.registry import ask
from tests.cli import invoke

WIDTHS = (4, 8, 16, 32, 64)


def imported(folder: Path, runs: int = 40, jump: bool = False) -> Library:
    """Import scores in two clusters: P rises with width; with `jump` the largest width is unlike what its law says."""
    rng = np.random.default_rng(5)
    lines = ["run,width,step,accuracy"]
    for width in WIDTHS:
        p = float(expit(3.0 * (np.log10(width) - 1.1) * 2))
        p = 0.05 if jump and width == WIDTHS[-1] else p
        for index in range(runs):
            good = rng.random() < p
            score = (0.95 if good else 0.5) + 0.02 * rng.standard_normal()
            lines.append(f"{width}-{index},{width},100,{score:.6f}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    (folder / "map.yaml").write_text(
        "step: step\nrun: run\nfactors: {width: width}\nmetrics: {accuracy: accuracy}\nscale: width\n"
        "success: {metric: accuracy, threshold: 0.8, sustained: 1}\n"
    )
    table, mapping, store = (str(folder / name) for name in ("scores.csv", "map.yaml", "s"))
    invoke("import", "table", table, "--map", mapping, "--study", "made", "--store", store)
    return Library(open_store(folder / "s"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return imported(tmp_path_factory.mktemp("forecast"))


def forecast(library: Library, *at: float) -> Forecast:
    found: Forecast = ask("forecast", library.declared("made"), library.tables("made"), Options(at=at))
    return found


def test_it_is_the_prediction_of_p_and_the_law_of_the_scores(library: Library) -> None:
    found = forecast(library, 128, 256)
    predicted = ask("predict", library.declared("made"), library.tables("made"), Options(at=(128, 256)))
    law = ask("scaling-law", library.declared("made"), library.tables("made"), Options(at=(128, 256))).law
    for scale in (128.0, 256.0):
        assert found.at[scale].probability == predicted.at[scale].estimate
        place = law.at.tolist().index(scale)
        assert found.at[scale].mean.value == law.mean.value[place]
        assert found.at[scale].successes.low == law.successes.low[place]
    assert found.at[128.0].q10 <= found.at[128.0].q50 <= found.at[128.0].q90


def test_the_record_forecasts_each_scale_from_the_smaller_ones(library: Library) -> None:
    found = forecast(library)
    assert list(found.at) == [128.0], "twice the largest, where none is named"
    assert [one.scale for one in found.record] == [32.0, 64.0]
    assert found.says.startswith("2 of 2 held-out means inside their intervals; 2 of 2 distributions closer than")
    rows = library.tables("made")["metrics"].to_pylist()
    runs = {r["run_id"]: r["condition"] for r in library.tables("made")["runs"].to_pylist()}
    scores = {w: [r["value"] for r in rows if runs[r["run_id"]] == f"width={w}"] for w in WIDTHS}
    for one, before in zip(found.record, (16, 32), strict=True):
        assert one.mean == pytest.approx(np.mean(scores[int(one.scale)]))
        assert one.error_of_last == pytest.approx(wasserstein_distance(scores[before], scores[int(one.scale)]))


def test_a_scale_unlike_the_others_is_a_bad_record(tmp_path: Path) -> None:
    found = forecast(imported(tmp_path, jump=True))
    assert not found.record[-1].inside
    assert found.record[-1].error > 0.2
    assert found.says.startswith("1 of 2 held-out means")


def test_the_verb_asks_it(library: Library) -> None:
    asked = ("predict", "made", "--at", "width=128", "--store", library.store.url)
    assert "held-out means inside" in invoke(*asked)
    assert f'"value": {forecast(library, 128).at[128.0].mean.value}' in invoke(*asked, "--json")


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ([], "say at which condition"),
        (["--at", "width"], "is not FACTOR=VALUE"),
        (["--at", "width=-1"], "is not FACTOR=VALUE"),
        (["--at", "width=2", "--at", "depth=2"], "along one factor"),
        (["--at", "with=2"], "no factor is called 'with'"),
    ],
)
def test_what_cannot_be_predicted_is_told(library: Library, at: list[str], told: str) -> None:
    with pytest.raises(QueryError, match=told):
        invoke("predict", "made", *at, "--store", library.store.url)
