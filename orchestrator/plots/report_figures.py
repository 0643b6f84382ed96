"""The three figures of the report: P(success) against scale, the final score of every seed, every training curve.

Each figure says how many runs it shows of how many, and the digest of their cohort.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from orchestrator.estimates.estimate import Cohort
from orchestrator.plots.style import BLUE, GREY, ORANGE, footnote, jitter, short, span, write
from orchestrator.summary import ConditionSummary, StudySummary
from orchestrator.text import interval_name

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_PER_ROW = 4
_MOST_PANELS = 24


def success_against_scale(summary: StudySummary) -> Figure:
    """Return P(success) against scale with its interval (bar) and Jeffreys' (band), and the mean score."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    x, labels, is_log = _positions(summary)
    p = np.array([c.success.value for c in summary.conditions])
    low = np.array([c.success.low for c in summary.conditions])
    high = np.array([c.success.high for c in summary.conditions])
    known = ~np.isnan(p)
    width = 0.04
    for place, condition in zip(x, summary.conditions, strict=True):
        left, right = (place / (1 + width), place * (1 + width)) if is_log else (place - width, place + width)
        axes.fill_between([left, right], *condition.jeffreys, color=BLUE, alpha=0.18, linewidth=0)
    axes.vlines(x[known], low[known], high[known], color=BLUE, linewidth=1.4)
    axes.plot(x[known], p[known], "o-", color=BLUE, markersize=6, linewidth=1.2, label="P(success)")
    means = np.array([c.scores.mean() if len(c.scores) else np.nan for c in summary.conditions])
    axes.plot(x, means, "s--", color=GREY, markersize=4, linewidth=1, fillstyle="none", label="mean score")
    for place, condition in zip(x, summary.conditions, strict=True):
        n = condition.success.cohort.finished + condition.success.cohort.diverged
        axes.annotate(f"{condition.successes}/{n}", (place, -0.04), ha="center", va="top", fontsize=7.5, color=BLUE)
    axes.set_ylim(-0.12, 1.05)
    axes.set_ylabel("probability (score)")
    _scale_axis(axes, x, labels, is_log, summary.scale)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.0))
    axes.set_title(f"Success: {summary.rule.metric} ≥ {summary.rule.threshold:g} at the last step", pad=10)
    own = interval_name([condition.success for condition in summary.conditions])
    _footnote(figure, summary, f"bar: {own}, band: Jeffreys 95 %")
    return figure


def final_scores(summary: StudySummary) -> Figure:
    """Return the last score of every seed: a strip and a histogram for each condition, and what the mean says."""
    shown = summary.conditions[:_MOST_PANELS]
    figure, panels = _panels(len(shown), height=2.9)
    low, high = span([c.scores for c in shown])
    edges = np.linspace(low, high, 21)
    for index, (axes, condition) in enumerate(zip(panels, shown, strict=True)):
        scores, good = condition.scores, condition.scores >= summary.rule.threshold
        for chosen, colour in ((good, ORANGE), (~good, BLUE)):
            counts, _ = np.histogram(scores[chosen], edges)
            share = counts / max(len(scores), 1)
            axes.barh(edges[:-1], share, height=np.diff(edges), align="edge", color=colour, alpha=0.3, linewidth=0)
            axes.plot(
                1.12 + 0.3 * jitter(len(scores))[chosen], scores[chosen], "o", color=colour, ms=3, alpha=0.75, mew=0
            )
        if len(scores):
            axes.axhline(scores.mean(), color=GREY, linestyle="--", linewidth=1)
            axes.annotate("mean", (0.72, scores.mean()), color=GREY, fontsize=7.5, va="bottom", ha="left")
        axes.axhline(summary.rule.threshold, color="#bbbbbb", linewidth=0.8)
        axes.set(xlim=(0, 1.5), ylim=(low, high))
        axes.xaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
        axes.set_title(f"{short(condition.condition.label)}  (n = {len(scores)} of {condition.launched})")
        axes.set_xlabel("share of seeds  |  each seed")
        if index % _PER_ROW == 0:
            axes.set_ylabel(f"{summary.rule.metric} at the last step")
    _footnote(figure, summary, f"grey line: success threshold {summary.rule.threshold:g}")
    return figure


def training_curves(summary: StudySummary) -> Figure:
    """Return every seed's curve, thin, over the fan of quantiles (5, 25, 50, 75, 95 %) for each condition."""
    shown = summary.conditions[:_MOST_PANELS]
    figure, panels = _panels(len(shown), height=2.7)
    low, high = span([c.curves.values for c in shown])
    for index, (axes, condition) in enumerate(zip(panels, shown, strict=True)):
        _fan(axes, condition, summary.rule.threshold)
        axes.set_ylim(low, high)
        axes.set_title(f"{short(condition.condition.label)}  ({_measured(condition)})")
        axes.set_xlabel("step")
        if index % _PER_ROW == 0:
            axes.set_ylabel(summary.rule.metric)
    _footnote(figure, summary, "lines: seeds (orange: at the threshold at the end); band: 5–95 % and 25–75 %, median")
    return figure


def _fan(axes: Axes, condition: ConditionSummary, threshold: float) -> None:
    curves = condition.curves
    if not len(curves.steps):
        axes.text(0.5, 0.5, "no probe yet", ha="center", va="center", transform=axes.transAxes, color=GREY)
        return
    seen = curves.measured > 0
    bands = np.nanquantile(curves.values[:, seen], _QUANTILES, axis=0)
    steps = curves.steps[seen]
    axes.fill_between(steps, bands[0], bands[4], color=BLUE, alpha=0.12, linewidth=0)
    axes.fill_between(steps, bands[1], bands[3], color=BLUE, alpha=0.18, linewidth=0)
    for line in curves.values:
        own = ~np.isnan(line)
        if own.any():
            colour = ORANGE if line[own][-1] >= threshold else BLUE
            axes.plot(curves.steps[own], line[own], color=colour, linewidth=0.5, alpha=0.55)
    axes.plot(steps, bands[2], color="#111111", linewidth=1.4)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PNG and SVG beside each other; returns both paths. Equal figures give equal bytes."""
    return [write(figure, stem.with_name(f"{stem.name}.{ending}")) for ending in ("png", "svg")]


FIGURES = {
    "success": success_against_scale,
    "scores": final_scores,
    "curves": training_curves,
}


def _positions(summary: StudySummary) -> tuple[np.ndarray[Any, Any], list[str], bool]:
    """Return where each condition stands on the x axis, its label there, and whether the axis is logarithmic."""
    values = [condition.condition.factors.get(summary.scale) for condition in summary.conditions]
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) < len(values) or len(set(numbers)) < len(values) or len(values) < 2:
        labels = [short(condition.condition.label) for condition in summary.conditions]
        return np.arange(len(values), dtype=float), labels, False
    is_log = min(numbers) > 0 and max(numbers) / min(numbers) >= 4
    return np.array(numbers, float), [f"{value:g}" for value in numbers], is_log


def _scale_axis(axes: Axes, x: Any, labels: Sequence[str], is_log: bool, name: str) -> None:
    if is_log:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(x)))
    axes.xaxis.set_minor_locator(NullLocator())
    crowded = max((len(label) for label in labels), default=0) * len(labels) > 70
    axes.set_xticklabels(labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlabel(name or "condition")
    if not is_log:
        axes.margins(x=0.12)


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    columns = max(min(count, _PER_ROW), 1)
    rows = max(ceil(count / columns), 1)
    figure = Figure(figsize=(max(2.6 * columns, 4.2), height * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels[:count]


def _measured(condition: ConditionSummary) -> str:
    measured = condition.curves.measured
    if not len(measured):
        return f"n = 0 of {condition.launched}"
    first, last = int(measured.max()), int(measured[-1])
    return f"n = {first} of {condition.launched}" + (f", {last} at the end" if last < first else "")


def _footnote(figure: Figure, summary: StudySummary, text: str) -> None:
    left_out = len(summary.conditions) - _MOST_PANELS
    more = f"; {left_out} more conditions not drawn" if left_out > 0 else ""
    cohort = Cohort.pooled([condition.success.cohort for condition in summary.conditions])
    footnote(figure, summary.name, cohort, text + more)
