"""Make the pictures of the documents: python docs/make_images.py demo-store.

The README's come from the demo's store. Those of figures.md are drawn from arrays with known truth, which needs no
store: python docs/make_images.py
"""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np

from orchestrator import plots
from orchestrator.estimates.distribution_law import distribution_law
from orchestrator.estimates.estimate import Cohort
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.questions.headlines import headlines
from orchestrator.report import write_report
from seedbed import open as open_store

IMAGES = Path(__file__).parent / "images"
WIDTHS = np.array([4.0, 8, 16, 32, 64, 128])
RUNS = 60


def main() -> None:
    """Draw the demo's figures where its store is given, and those of figures.md."""
    IMAGES.mkdir(exist_ok=True)
    if len(sys.argv) > 1:
        with tempfile.TemporaryDirectory() as folder:
            question = open_store(sys.argv[1]).library.question("demo")
            write_report(question, headlines(question), Path(folder))
            for name in ("success", "scores"):
                shutil.copy(Path(folder) / f"{name}.png", IMAGES / f"demo-{name}.png")
    with plots.house_style():
        _law()
        _fan()


def _law() -> None:
    """Draw runs that get no better, but of which more and more succeed, and the two laws."""
    rng = np.random.default_rng(3)
    p = 1 / (1 + np.exp(-4.5 * (np.log10(WIDTHS) - 1.3)))
    scores = [
        np.where(rng.random(RUNS) < share, 1 - 0.04 * rng.random(RUNS), 0.5 + 0.02 * rng.normal(size=RUNS))
        for share in p
    ]
    total = RUNS * len(WIDTHS)
    outcomes = Outcomes.of(WIDTHS, scores, Cohort.of([f"made-{i}" for i in range(total)], total, 0))
    law = distribution_law(outcomes, 0.9, np.geomspace(4, 256, 101), rng)
    figure = plots.new_figure(6.8, 4.6)
    plots.law_beside_mean(figure.add_subplot(), law, outcomes, "accuracy at the last step", "model.width")
    plots.footnote(figure, "made up", outcomes.cohort, "bands: 95 % from resampled runs")
    plots.write(figure, IMAGES / "figure-law.png")


def _fan() -> None:
    """Draw runs of which 55 in 100 break through, at a time of their own; a quarter end early."""
    rng = np.random.default_rng(4)
    steps = np.arange(0, 1501, 50)
    onset = np.where(rng.random(RUNS) < 0.55, rng.gamma(6, 110, RUNS), 1e5)
    late = np.clip((steps - onset[:, None]) / 60, -50, 50)
    values = 0.5 + 0.47 / (1 + np.exp(-late)) + 0.015 * rng.normal(size=late.shape)
    values[: RUNS // 4, steps > 900] = np.nan
    figure = plots.new_figure(8.4, 3.8)
    left, right = figure.subplots(1, 2)
    plots.quantile_fan(left, steps, values, "accuracy", 0.9)
    left.legend(loc="lower right")
    plots.ridgeline(right, steps, values, "accuracy")
    cohort = Cohort.of([f"made-{i}" for i in range(RUNS)], RUNS - RUNS // 4, 0)
    plots.footnote(figure, "made up", cohort, "strip: n measured at each step; histograms are not smoothed")
    plots.write(figure, IMAGES / "figure-fan.png")


if __name__ == "__main__":
    main()
