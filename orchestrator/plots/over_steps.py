"""Runs over training steps: the fan of quantiles with n per step, and the ridgeline of distributions."""

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from orchestrator.plots.style import BLACK, BLUE, GREY, ORANGE, PALE, span, step_axis

Floats = NDArray[np.float64]
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BINS = 40
_MOST_RIDGES = 14
_OVERLAP = 1.7  # how high the tallest ridge is, in distances between ridges


def quantile_fan(
    axes: Axes, steps: NDArray[np.int64], values: Floats, metric: str, threshold: float | None = None
) -> Axes:
    """Draw quantiles of [run, step] over steps, and above them how many runs were measured; returns the axes.

    NaN: not measured. A run that ends early thins the fan from there on, and the strip says so.
    """
    runs = (~np.isnan(values)).sum(axis=0)
    seen = runs > 0
    if not seen.any():
        axes.text(0.5, 0.5, "no probe yet", ha="center", va="center", transform=axes.transAxes, color=GREY)
        return axes
    bands = np.nanquantile(values[:, seen], QUANTILES, axis=0)
    x = steps[seen]
    axes.fill_between(x, bands[0], bands[4], color=BLUE, alpha=0.15, linewidth=0, label="5–95 %")
    axes.fill_between(x, bands[1], bands[3], color=BLUE, alpha=0.28, linewidth=0, label="25–75 %")
    axes.plot(x, bands[2], color=BLACK, linewidth=1.5, label="median")
    axes.plot(x, np.nanmean(values[:, seen], axis=0), color=ORANGE, linewidth=1.1, linestyle="--", label="mean")
    if threshold is not None:
        axes.axhline(threshold, color="#bbbbbb", linewidth=0.8)
    axes.set_ylim(*span([bands]))
    step_axis(axes, x.tolist())
    axes.set_ylabel(metric)
    _runs_above(axes, x, runs[seen])
    return axes


def _runs_above(axes: Axes, steps: NDArray[np.int64], runs: NDArray[np.int64]) -> None:
    strip = axes.inset_axes((0, 1.03, 1, 0.09), sharex=axes)
    strip.fill_between(steps, 0, runs, step="mid", color=GREY, alpha=0.35, linewidth=0)
    strip.set_ylim(0, max(runs.max() * 1.05, 1))
    strip.set_yticks([0, int(runs.max())])
    strip.tick_params(labelbottom=False, bottom=False, labelsize=6.5, left=False)
    strip.set_ylabel("n", fontsize=7, rotation=0, labelpad=6, va="center")
    strip.grid(visible=False)
    strip.spines["bottom"].set_visible(False)


def ridgeline(axes: Axes, steps: NDArray[np.int64], values: Floats, metric: str) -> Axes:
    """Draw the histogram of [run, step] at up to 14 probes above each other, the last on top; returns the axes.

    Histograms of one set of bins, not smoothed: a kernel's width would make or unmake the second mode.
    """
    measured = np.flatnonzero((~np.isnan(values)).sum(axis=0) > 0)
    if not len(measured):
        axes.text(0.5, 0.5, "no probe yet", ha="center", va="center", transform=axes.transAxes, color=GREY)
        return axes
    if len(measured) > _MOST_RIDGES:
        places = np.unique(np.linspace(0, len(measured) - 1, _MOST_RIDGES).round().astype(int))
        measured = measured[places]
    low, high = span([values[:, measured]])
    edges = np.linspace(low, high, _BINS + 1)
    shares = [np.histogram(_seen(values[:, place]), edges)[0] / len(_seen(values[:, place])) for place in measured]
    tallest = max(share.max() for share in shares)
    for level, share in reversed(list(enumerate(shares))):
        height = share / tallest * _OVERLAP
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(height, 2) + level
        # Opaque: what is seen through a ridge looks like more runs.
        axes.fill_between(x, level, y, color=PALE, linewidth=0, zorder=2 * (len(shares) - level))
        axes.plot(x, y, color=BLUE, linewidth=0.7, zorder=2 * (len(shares) - level) + 1)
    axes.set_yticks(range(len(measured)), [f"{steps[p]:,}  (n = {len(_seen(values[:, p]))})" for p in measured])
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=metric, ylabel="step (optimiser updates)")
    axes.set(xlim=(low, high), ylim=(-0.2, len(measured) + _OVERLAP - 0.9))
    axes.grid(visible=False, axis="y")
    return axes


def _seen(column: Floats) -> Floats:
    return column[~np.isnan(column)]
