"""What was seen of runs along directions: mean losses, and clusters of tokens below them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from orchestrator.plots.style import BLUE, GREY, ORANGE, PALE

Floats = NDArray[np.float64]
Steps = NDArray[np.int64]


def mean_losses(axes: Axes, runs: Sequence[tuple[Steps, Floats, int]]) -> Axes:
    """Draw the mean loss of each run (steps, values, step from which it is flat); returns the axes."""
    for steps, loss, flat in runs:
        axes.plot(steps, loss, color=BLUE, linewidth=0.9)
        axes.plot([flat], loss[steps == flat], "o", color=BLUE, markersize=3.5)
    axes.set(ylabel="mean loss, nats")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return axes


def clusters_of_runs(axes: Axes, runs: Sequence[tuple[Steps, Floats, NDArray[np.bool_]]]) -> Axes:
    """Draw the curves of clusters [cluster, step] of each run, those that are hidden on top; returns the axes."""
    for steps, curves, hidden in runs:
        for curve in curves[~hidden]:
            axes.plot(steps, curve, color=PALE, linewidth=0.6)
    for steps, curves, hidden in runs:
        for curve in curves[hidden]:
            axes.plot(steps, curve, color=ORANGE, linewidth=0.9, zorder=3)
    axes.axhline(0, color=GREY, linewidth=0.6)
    axes.set(xlabel="step", ylabel="projected loss, nats")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    return axes
