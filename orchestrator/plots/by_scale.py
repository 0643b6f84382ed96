"""Scores against scale: every seed with its histogram, P(success) with its curve, and the law beside the mean's law."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from orchestrator.estimates.distribution_law import DistributionLaw
from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.outcomes import Outcomes
from orchestrator.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, jitter, scale_axis, span
from orchestrator.text import interval_name

Floats = NDArray[np.float64]
Drawn = tuple[Floats, ...]  # (at, value, low, high), each [place]
_BINS = 24
_LONG_TICK = 14  # characters


def strip_and_histogram(
    axes: Axes, labels: Sequence[str], scores: Sequence[Floats], threshold: float, metric: str, scale: str
) -> Axes:
    """Draw each condition's seeds as points, and their histogram to the right of them; returns the axes."""
    low, high = span([*scores, np.array([threshold])])
    edges = np.linspace(low, high, _BINS + 1)
    for place, values in enumerate(scores):
        for chosen, colour, marker in ((values >= threshold, ORANGE, "o"), (values < threshold, BLUE, "s")):
            share = np.histogram(values[chosen], edges)[0] / max(len(values), 1)
            axes.barh(
                edges[:-1], 0.5 * share, np.diff(edges), left=place, align="edge", color=colour, alpha=0.4, linewidth=0
            )
            x = place - 0.08 - 0.26 * jitter(len(values))[chosen]
            axes.plot(x, values[chosen], marker, color=colour, markersize=2.8, alpha=0.7, markeredgewidth=0)
        if len(values):
            axes.plot([place - 0.36, place + 0.5], [values.mean()] * 2, color=GREY, linestyle="--", linewidth=1)
            axes.plot([place - 0.36, place + 0.5], [np.median(values)] * 2, color=BLACK, linewidth=1)
    axes.axhline(threshold, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.plot([], [], color=GREY, linestyle="--", linewidth=1, label="mean")
    axes.plot([], [], color=BLACK, linewidth=1, label="median")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    named = [f"{label}\nn = {len(values)}" for label, values in zip(labels, scores, strict=True)]
    axes.set_xticks(range(len(named)), named)
    if max((len(line) for text in named for line in text.split("\n")), default=0) > _LONG_TICK:
        axes.tick_params(axis="x", rotation=30, labelsize=7.5)
    axes.set(xlabel=scale, ylabel=metric, ylim=(low, high), xlim=(-0.5, len(scores) - 0.4))
    axes.grid(visible=False, axis="x")
    return axes


def probability_over_scale(
    axes: Axes,
    scales: Floats,
    measured: Sequence[Estimate],
    scale: str,
    curve: Drawn | None = None,
    held_out: Sequence[tuple[float, float, float, float]] = (),
) -> Axes:
    """Draw P(success) with intervals, its fitted curve, and predictions of scales that were held out; returns the axes.

    curve     where it is drawn, its value and interval
    held_out  (scale, predicted P, low, high), each predicted from smaller scales alone; drawn a little to the right
    """
    if curve is not None:
        at, value, low, high = curve
        axes.fill_between(at, low, high, color=BLUE, alpha=0.15, linewidth=0)
        axes.plot(at, value, color=BLUE, linewidth=1.4, label="fitted curve, 95 %")
    p, bottom, top = (np.array([getattr(one, name) for one in measured]) for name in ("value", "low", "high"))
    known = ~np.isnan(p)
    axes.errorbar(
        scales[known],
        p[known],
        yerr=[np.maximum(p - bottom, 0)[known], np.maximum(top - p, 0)[known]],
        fmt="o",
        color=BLACK,
        markersize=5,
        linewidth=1.1,
        capsize=2,
        label=f"measured, {interval_name(measured)}",
    )
    if held_out:
        x, value, low, high = np.array(held_out).T
        axes.errorbar(
            x * (1 + _beside(scales, 0.07)),
            value,
            yerr=[value - low, high - value],
            fmt="D",
            markerfacecolor="white",
            color=ORANGE,
            markersize=4.5,
            linewidth=1,
            capsize=2,
            label="predicted from smaller scales",
        )
    for x, one in zip(scales, measured, strict=True):
        axes.annotate(f"n = {one.cohort.known}", (x, -0.045), ha="center", va="top", fontsize=6.8, color=GREY)
    axes.set(ylim=(-0.13, 1.05), ylabel="P(success)")
    scale_axis(axes, scales, scale)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return axes


def _beside(scales: Floats, most: float) -> float:
    """Return a distance beside a scale, as a share of it: half of the way to its nearest neighbour at most."""
    return min(most, 0.5 * (float((scales[1:] / scales[:-1]).min()) - 1)) if len(scales) > 1 else most


def law_beside_mean(axes: Axes, law: DistributionLaw, outcomes: Outcomes, metric: str, scale: str) -> Axes:
    """Draw every run, the mixture's components and mean, its 10–90 % range, and the naive law; returns the axes.

    The naive law is drawn as far as it goes: where it leaves the range of any score, so does the axis.
    """
    outer = law.quantiles(np.array([0.1, 0.9]))
    wide = _beside(outcomes.scale, 0.06)
    axes.fill_between(law.at, outer[:, 0], outer[:, 1], color=BLUE, alpha=0.1, linewidth=0, label="mixture, 10–90 %")
    for place, scores in zip(outcomes.scale, outcomes.scores, strict=True):
        x = place * (1 + wide * (jitter(len(scores)) - 0.5))
        axes.plot(x, scores, "o", color=GREY, markersize=2.2, alpha=0.5, markeredgewidth=0, zorder=1)
    for curve, colour, style, label in (
        (law.successes, GREEN, ":", "mean of successes"),
        (law.failures, PINK, ":", "mean of failures"),
        (law.mean, BLUE, "-", "mixture's mean"),
        (law.naive, ORANGE, "--", "one power law of the mean"),
    ):
        axes.fill_between(law.at, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(law.at, curve.value, style, color=colour, linewidth=1.5, label=label)
    axes.plot(outcomes.scale, outcomes.means, "o", color=BLACK, markersize=5, label="mean of the runs", zorder=5)
    axes.axhline(law.threshold, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set_ylabel(metric)
    scale_axis(axes, outcomes.scale, scale)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
    return axes
