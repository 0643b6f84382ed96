"""Metrics whose names differ in a number, such as seen_5.accuracy and seen_50.accuracy, drawn against that number.

Where the number is a step, as of heldout.cka.1.to_400, steps are drawn against steps.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Estimate
from orchestrator.plots.style import LINES, SERIES, jitter, scale_axis, short, span
from orchestrator.summary import Curves

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_MARKERS = "osD^vP*"
_MOST_NAMED = 6  # steps on an axis


def pattern_of(metric: str) -> str:
    """Return the pattern that is meant: the metric itself where it has a `*`, else `*` for the first number in it."""
    return metric if "*" in metric else re.sub(r"\d+", "*", metric, count=1)


def metrics_by_number(metric: str, names: Sequence[str]) -> dict[int, str]:
    """Return number → metric, of those that have a number where the pattern has its `*`."""
    before, star, after = pattern_of(metric).partition("*")
    if not star:
        return {}
    wanted = re.compile(f"{re.escape(before)}(\\d+){re.escape(after)}")
    return {int(found[1]): name for name in names if (found := wanted.fullmatch(name))}


def against_number(
    axes: Axes, numbers: Floats, lines: Mapping[str, Sequence[tuple[int, Estimate, Floats]]], metric: str
) -> Axes:
    """Draw for each condition its mean and the runs' values at each number; returns the axes.

    lines  label → place among the numbers, mean over runs and the values [run], for each number of which it has any
    """
    # With a 0 among the numbers, equal distances: a logarithm has no place for it.
    places = numbers if numbers.min() > 0 else np.arange(len(numbers), dtype=np.float64)
    width = 0.05 if numbers.min() > 0 else 0.0
    for index, (label, values) in enumerate(lines.items()):
        if not values:
            continue
        colour = SERIES[index % len(SERIES)]
        shift = (index - (len(lines) - 1) / 2) * 0.12
        mine = places[[place for place, _, _ in values]]
        x = mine * (1 + width * shift) if width else mine + shift
        mean, low, high = (np.array([getattr(one, part) for _, one, _ in values]) for part in ("value", "low", "high"))
        low, high = (np.where(np.isfinite(bound), bound, mean) for bound in (low, high))
        axes.errorbar(
            x, mean, yerr=[mean - low, high - mean], color=colour, marker=_MARKERS[index % 7], markersize=4.5,
            linestyle=LINES[index % 4], linewidth=1.3, capsize=2, label=short(label),
        )  # fmt: skip
        for place, (_, _, scores) in zip(x, values, strict=True):
            spread = 0.04 + 0.03 * jitter(len(scores))  # to the right of the mean, which would hide them
            axes.plot(
                place * (1 + spread) if width else place + spread,
                scores, "o", color=colour, markersize=2, alpha=0.35, markeredgewidth=0,
            )  # fmt: skip
    every = [np.array([one.low, one.high, *scores]) for line in lines.values() for _, one, scores in line]
    axes.set_ylim(*span(every))
    axes.set_ylabel(f"{pattern_of(metric)} at the last step")
    if width:
        scale_axis(axes, numbers, "the number * in the metric's name")
    else:
        axes.xaxis.set_major_locator(FixedLocator(list(places)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticklabels([f"{number:g}" for number in numbers])
        axes.set_xlabel("the number * in the metric's name")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return axes


def means_at(curves: Sequence[Curves]) -> tuple[Integers, Floats]:
    """Return the steps at which any of the metrics was measured, and its mean over runs there [metric, step]."""
    steps = np.unique(np.concatenate([one.steps for one in curves]))
    means = np.full((len(curves), len(steps)), np.nan)
    for row, one in zip(means, curves, strict=True):
        counts = one.measured
        sums = np.nansum(one.values, axis=0)
        row[np.searchsorted(steps, one.steps)] = np.divide(
            sums, counts, out=np.full(len(sums), np.nan), where=counts > 0
        )
    return steps, means


def between_steps(
    axes: Axes, steps: Integers, others: Sequence[int], means: Floats, scale: tuple[float, float]
) -> Axes:
    """Draw means [other step, step] as colours between the ends of a scale; returns the axes."""
    axes.imshow(means, cmap="cividis", interpolation="nearest", origin="lower", vmin=scale[0], vmax=scale[1])
    for axis, named in ((axes.xaxis, steps), (axes.yaxis, others)):
        shown = np.unique(np.linspace(0, len(named) - 1, min(len(named), _MOST_NAMED)).astype(int))
        axis.set_major_locator(FixedLocator(list(shown)))
        axis.set_minor_locator(NullLocator())
        axis.set_ticklabels([f"{named[place]:,}" for place in shown])
    axes.grid(visible=False)
    axes.set(xlabel="step", ylabel="the step in the metric's name")
    return axes
