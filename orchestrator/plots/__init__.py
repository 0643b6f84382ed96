"""The figures of a paper (matplotlib): drawing functions with axes in and out, and whole figures by kind.

    from orchestrator import plots

    with plots.house_style():
        figure, axes = plt.subplots()
        plots.quantile_fan(axes, steps, values, "heldout.accuracy")

`kinds.py` draws whole figures of a study: `seedbed plot KIND STUDY -o fig.pdf`.
"""

from orchestrator.plots.by_scale import law_beside_mean, probability_over_scale, strip_and_histogram
from orchestrator.plots.of_chance import distance_matrix, states_and_moves, variance_shares
from orchestrator.plots.of_onsets import onset_against_onset, share_without_onset
from orchestrator.plots.over_steps import quantile_fan, ridgeline
from orchestrator.plots.report_figures import FIGURES, save
from orchestrator.plots.style import footnote, house_style, new_figure, write

__all__ = [
    "FIGURES",
    "distance_matrix",
    "footnote",
    "house_style",
    "law_beside_mean",
    "new_figure",
    "onset_against_onset",
    "probability_over_scale",
    "quantile_fan",
    "ridgeline",
    "save",
    "share_without_onset",
    "states_and_moves",
    "strip_and_histogram",
    "variance_shares",
    "write",
]
