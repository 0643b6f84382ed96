"""A metric over what was spent on it, run by run: where steps say little of what they took."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from jobs.errors import QueryError
from orchestrator.plots.style import SERIES
from orchestrator.questions.spending import Spending


def curves_over_spending(axes: Axes, conditions: Sequence[tuple[str, Spending]], spent: str, metric: str) -> Axes:
    """Draw every run of conditions (label, what its runs spent), a colour each; returns the axes.

    A dot is the end of a run. Raises QueryError where there are more conditions than colours.
    """
    if len(conditions) > len(SERIES):
        raise QueryError(f"{len(conditions)} conditions have too few colours: choose {len(SERIES)} with --condition")
    for number, (label, side) in enumerate(conditions):
        colour = SERIES[number]
        for row, (cost, value) in enumerate(zip(side.spent, side.values, strict=True)):
            seen = ~(np.isnan(cost) | np.isnan(value))
            if not seen.any():
                continue
            named = label if row == 0 else None
            axes.plot(cost[seen], value[seen], color=colour, linewidth=0.7, alpha=0.55, label=named)
            axes.plot(cost[seen][-1:], value[seen][-1:], "o", color=colour, markersize=3)
    axes.set(xlabel=spent, ylabel=metric)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    return axes
