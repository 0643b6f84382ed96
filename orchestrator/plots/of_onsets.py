"""When runs break through: the share without onset over steps, and one onset against another."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from orchestrator.plots.style import BLACK, BLUE, GREY, LINES, ORANGE, SERIES, step_axis

Floats = NDArray[np.float64]
_LOOKS = {"before": ("o", BLUE), "after": ("s", ORANGE), "tied": ("x", GREY), "neither": ("+", GREY)}


def share_without_onset(
    axes: Axes,
    left: Floats,
    right: Floats,
    survival: Floats,
    low: Floats,
    high: Floats,
    label: str,
    number: int,
    end: float,
) -> Axes:
    """Draw one condition's share of runs without onset, with its interval; returns the axes.

    left, right         [interval], within which onsets lie: the probe grid cannot say where, so the curve is slanted
                        there; `right` may be infinite (no onset)
    survival, low, high [interval], P(onset later than `right`) with its interval
    end                 the last step of the runs
    """
    colour, style = SERIES[number % len(SERIES)], LINES[number // len(SERIES) % len(LINES)]
    x, *curves = _slanted(left, right, (survival, low, high), end)
    axes.fill_between(x, curves[1], curves[2], color=colour, alpha=0.13, linewidth=0)
    axes.plot(x, curves[0], color=colour, linestyle=style, linewidth=1.6, label=label)
    step_axis(axes, x)
    axes.set(ylabel="share of runs without onset", ylim=(-0.04, 1.04))
    return axes


def others_without_onset(axes: Axes, curves: Sequence[tuple[Floats, Floats, Floats]], end: float) -> Axes:
    """Draw the curves of other conditions thin and grey, from (left, right, survival) of each; returns the axes."""
    for left, right, survival in curves:
        axes.plot(*_slanted(left, right, (survival,), end), color="#cccccc", linewidth=0.8, zorder=1)
    return axes


def _slanted(left: Floats, right: Floats, values: Sequence[Floats], end: float) -> list[list[float]]:
    """Return x and a line for each of `values` [interval]: flat between intervals, slanted within them."""
    x, *curves = lines = [[0.0], *([1.0] for _ in values)]
    for index in np.flatnonzero(np.isfinite(right)).tolist():
        begin = max(float(left[index]), 0.0)
        if begin > x[-1]:
            x.append(begin)
            for curve in curves:
                curve.append(curve[-1])
        x.append(float(right[index]))
        for curve, value in zip(curves, values, strict=True):
            curve.append(float(value[index]))
    x.append(max(end, x[-1]))
    for curve in curves:
        curve.append(curve[-1])
    return lines


def onset_against_onset(
    axes: Axes, first: tuple[Floats, Floats], second: tuple[Floats, Floats], names: tuple[str, str], end: float
) -> Axes:
    """Draw each run's two onsets as the box of its brackets (low, high]; returns the axes.

    Runs with one and the same box are one that is darker, with their number at its corner.
    Boxes above the diagonal: `names[0]` came first. Boxes that touch it cannot be told apart on this probe grid. A
    bracket without an end is drawn to beyond the last step, in the margin marked "never".
    """
    never = end * 1.12
    counts = dict.fromkeys(_LOOKS, 0)
    boxes = Counter(zip(*(side.tolist() for side in (*first, *second)), strict=True))
    for (a_low, a_high, b_low, b_high), runs in sorted(boxes.items()):
        kind = "before" if a_high <= b_low else "after" if b_high <= a_low else "tied"
        if np.isinf(a_high) and np.isinf(b_high):
            kind = "neither"
        counts[kind] += runs
        x, y = (_box(low, high, end, never) for low, high in ((a_low, a_high), (b_low, b_high)))
        marker, colour = _LOOKS[kind]
        shade = 0.12 + 0.5 * runs / max(boxes.values())
        axes.fill([x[0], x[1], x[1], x[0]], [y[0], y[0], y[1], y[1]], facecolor=colour, alpha=shade, edgecolor="none")
        axes.plot(sum(x) / 2, sum(y) / 2, marker, color=colour, markersize=3.5)
        if runs > 1:
            axes.text(x[1], y[1], f"{runs} ", fontsize=6.5, color=BLACK, ha="right", va="top")
    axes.plot([0, end], [0, end], color=BLACK, linewidth=0.8)
    texts = (f"{names[0]} first", f"{names[1]} first", "not told apart", "neither, ever")
    for (kind, (marker, colour)), text in zip(_LOOKS.items(), texts, strict=True):
        axes.plot([], [], marker, color=colour, markersize=4, label=f"{text}: {counts[kind]}")
    for draw in (axes.axvline, axes.axhline):
        draw(end * 1.03, color="#bbbbbb", linewidth=0.7, linestyle=":")
    axes.set(xlim=(-0.03 * end, never * 1.05), ylim=(-0.03 * end, never * 1.05))
    axes.set(xlabel=f"onset of {names[0]} (step)", ylabel=f"onset of {names[1]} (step)")
    # No axes of equal aspect: the room that they give up is not found by what stands below them.
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), fontsize=7.5)
    return axes


def _box(low: float, high: float, end: float, never: float) -> tuple[float, float]:
    if np.isinf(high):
        return end * 1.06, never
    return max(float(low), 0.0), float(high)
