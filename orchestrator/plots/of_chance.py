"""What chance does: shares of variance by their source, states of training, distances between runs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from orchestrator.estimates.estimate import Estimate
from orchestrator.estimates.training_map import TrainingMap
from orchestrator.plots.style import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, SKY, short

Floats = NDArray[np.float64]
_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY)


def variance_shares(axes: Axes, rows: Sequence[tuple[str, Sequence[tuple[str, Estimate]]]]) -> Axes:
    """Draw for each row (a condition) the share of every source of variance, with its interval; returns the axes."""
    names = list(dict.fromkeys(name for _, parts in rows for name, _ in parts))
    for place, (_, parts) in enumerate(rows):
        for index, (name, share) in enumerate(parts):
            y = place + 0.22 * (index - (len(parts) - 1) / 2)
            colour, marker = _COLOURS[names.index(name) % len(_COLOURS)], "osD^v"[names.index(name) % 5]
            axes.plot([share.low, share.high], [y, y], color=colour, linewidth=1.6)
            axes.plot(share.value, y, marker, color=colour, markersize=6)
    for index, name in enumerate(names):
        axes.plot([], [], "osD^v"[index % 5], color=_COLOURS[index % len(_COLOURS)], label=name)
    axes.set_yticks(range(len(rows)), [short(label) for label, _ in rows])
    axes.set(
        ylabel="condition", xlabel="share of the variance over runs", xlim=(-0.03, 1.03), ylim=(len(rows) - 0.4, -0.6)
    )
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(names))
    return axes


def states_and_moves(axes: Axes, found: TrainingMap, runs: int, traits: Sequence[str] = ()) -> Axes:
    """Draw the states on a circle (orange ring: a detour) and who moves where; returns the axes.

    traits  [state], what sets each apart, in words
    """
    count = len(found.states)
    angle = np.pi / 2 - 2 * np.pi * np.arange(count) / count
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for move in found.moves:
        a, b = place[move.source], place[move.target]
        width = 0.6 + 4 * move.runs / runs
        axes.add_patch(
            FancyArrowPatch(
                a,
                b,
                connectionstyle="arc3,rad=0.18",
                arrowstyle="-|>",
                mutation_scale=11,
                shrinkA=17,
                shrinkB=17,
                linewidth=width,
                color=GREY,
                alpha=0.75,
            )
        )
        middle, across = (a + b) / 2, np.array([b[1] - a[1], a[0] - b[0]])
        # The arc bends by rad/2 of the chord; the label stands just outside it.
        at = middle + across * 0.15
        box = {"fc": "white", "ec": "none", "pad": 0.6}
        axes.annotate(str(move.runs), at, ha="center", va="center", fontsize=7, color=BLACK, bbox=box)
    for state, (x, y) in zip(found.states, place, strict=True):
        ring = ORANGE if state.is_detour else BLUE
        axes.plot(
            x, y, "o", markersize=25, markerfacecolor="white", markeredgecolor=ring, markeredgewidth=2.2, zorder=3
        )
        axes.annotate(str(state.state), (x, y), ha="center", va="center", fontsize=10, zorder=4)
        text = f"{state.visitors} of {runs} runs\n{state.steps:,.1f} probes"
        text += f"\n{traits[state.state]}" if traits else ""
        # Beside the ring, never on it, whatever the number of lines.
        side = "left" if x > 0.3 else "right" if x < -0.3 else "center"
        upright = "center" if side != "center" else "bottom" if y > 0 else "top"
        axes.annotate(text, (x * 1.25, y * 1.25), ha=side, va=upright, fontsize=7, color=GREY)
    axes.set(xlim=(-2.6, 2.6), ylim=(-2.0, 2.0), aspect="equal")
    axes.set_axis_off()
    return axes


def heights_on_lines(axes: Axes, fractions: Floats, losses: Floats, height: str) -> Axes:
    """Draw the heights [pair, point] along every line, thin, and their median, thick; returns the axes."""
    axes.plot(fractions, losses.T, color=GREY, linewidth=0.6, alpha=0.5)
    axes.plot(fractions, np.median(losses, axis=0), color=BLUE, linewidth=2.2, marker="o", markersize=4)
    axes.set(xlabel="fraction of the way", ylabel=height, xlim=(-0.02, 1.02))
    return axes


def distance_matrix(
    axes: Axes, distances: Floats, groups: NDArray[np.int64], unit: str, most: float | None = None
) -> Axes:
    """Draw distances [run, run], runs in order of their group with lines between groups; returns the axes.

    most  the distance of the darkest colour, for panels that share a scale, which is then not drawn here
    """
    order = np.lexsort((distances.mean(axis=1), groups))
    ordered = distances[np.ix_(order, order)]
    picture = axes.imshow(ordered, cmap="cividis_r", interpolation="nearest", vmin=0, vmax=most)
    for edge in np.flatnonzero(np.diff(groups[order])) + 0.5:
        axes.axhline(edge, color=ORANGE, linewidth=1.2)
        axes.axvline(edge, color=ORANGE, linewidth=1.2)
    if most is None:
        axes.figure.colorbar(picture, ax=axes, label=unit, shrink=0.85)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(visible=False)
    axes.set(xlabel="run, in order of its group", ylabel="run, in order of its group")
    return axes
