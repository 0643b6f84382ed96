"""Whole figures of a study by name: each computes its estimates, draws its panels, and says n and cohort below.

An estimate that cannot be had from the study (one scale, no second mode, no varied data seed) is a QueryError that
says so, and no figure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import expit

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Cohort, Estimate
from orchestrator.estimates.firth import Counts
from orchestrator.estimates.means import mean_t
from orchestrator.estimates.prediction import FEWEST, predict
from orchestrator.estimates.success_over_scale import eta_interval, success_over_scale
from orchestrator.plots import by_number, by_scale, of_chance, of_directions, of_onsets, over_spending, over_steps
from orchestrator.plots.style import footnote, new_figure, short, titled
from orchestrator.questions.along_training import brackets, onsets_of_one
from orchestrator.questions.along_training import states as latent_states
from orchestrator.questions.asked import Question
from orchestrator.questions.between_runs import groups, variance
from orchestrator.questions.hidden import hidden as hidden_breakthroughs
from orchestrator.questions.hidden import looks_of
from orchestrator.questions.on_lines import between_runs
from orchestrator.questions.over_scale import law_at, mean_change
from orchestrator.questions.spending import spending
from orchestrator.summary import ConditionSummary

Floats = NDArray[np.float64]
_MOST_PANELS = 12
_MOST_TOGETHER = 4  # curves with bands in one panel
_MOST_TRAITS = 3
_PER_ROW = 4
_PLACES = 101  # on the axis of scale
_PAST = 2.0  # at most so far are laws drawn past the largest scale, as a factor


@dataclass(frozen=True, slots=True)
class Kind:
    """A figure: its name, what it shows in one line, and what draws it."""

    name: str
    shows: str
    draw: Callable[[Question], Figure]


def fan(question: Question) -> Figure:
    """Return the quantile fan of each condition."""
    summary = question.summary()
    figure, panels = _panels(summary.conditions, 3.1)
    for axes, condition in zip(panels, summary.conditions, strict=False):
        curves = condition.curves
        over_steps.quantile_fan(axes, curves.steps, curves.values, question.metric, summary.rule.threshold)
        axes.set_title(short(condition.condition.label), pad=24)
    if panels and panels[0].get_legend_handles_labels()[1]:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=4)
    _say(figure, question, summary.conditions, "quantiles over runs; strip: n measured at each step")
    return figure


def ridges(question: Question) -> Figure:
    """Return the distribution of the metric at every probe, for each condition."""
    summary = question.summary()
    figure, panels = _panels(summary.conditions, 3.6, widest=3, width=3.4)
    for axes, condition in zip(panels, summary.conditions, strict=False):
        over_steps.ridgeline(axes, condition.curves.steps, condition.curves.values, question.metric)
        titled(axes, condition.condition.label)
    _say(figure, question, summary.conditions, "histograms over runs, heights to one scale in each panel")
    return figure


def scores(question: Question) -> Figure:
    """Return every seed's last score and its histogram, condition by condition."""
    summary = question.summary()
    figure = new_figure(max(4.2, 1.15 * len(summary.conditions) + 1.2), 4.0)
    values = [condition.scores for condition in summary.conditions]
    factors = [condition.condition.factors for condition in summary.conditions]
    labels, name = [condition.condition.label.replace(" ", "\n") for condition in summary.conditions], "condition"
    if factors[0] and all(set(each) == set(factors[0]) for each in factors):
        labels = ["\n".join(str(each[factor]) for factor in factors[0]) for each in factors]
        name = ", ".join(factors[0])
    by_scale.strip_and_histogram(
        figure.add_subplot(), labels, values, summary.rule.threshold, f"{question.metric} at the last step", name
    )
    text = f"orange: at or above {summary.rule.threshold:g}; bars: share of runs, half a panel is all of them"
    _say(figure, question, summary.conditions, text)
    return figure


def probability(question: Question) -> Figure:
    """Return P(success) against scale with its curve, and each scale as the smaller ones predicted it."""
    scales, conditions = question.by_scale()
    measured = [condition.success for condition in conditions]
    k = np.array([condition.successes for condition in conditions])
    n = np.array([condition.success.cohort.known for condition in conditions])
    cohort = Cohort.pooled([condition.success.cohort for condition in conditions])
    drawn: by_scale.Drawn | None = None
    held_out, says = [], "no curve: runs at fewer than two scales"
    if (n > 0).sum() >= 2:
        curve = success_over_scale(scales, k, n, cohort)
        at = _along(scales)
        whole = Counts(curve.counts.x, *(np.repeat(part, len(at), axis=0) for part in (curve.counts.k, curve.counts.n)))
        drawn = at, *expit(eta_interval(whole, np.log10(at)))
        says = "curve: Firth's logistic, profile likelihood"
    if (n > 0).sum() > FEWEST:
        prediction = predict(scales, k, n, float(scales[-1] * _past(scales)), cohort)
        held_out = [(one.scale, one.probability, one.low, one.high) for one in prediction.record]
        says += f"; {prediction.says}"
    figure = new_figure()
    by_scale.probability_over_scale(figure.add_subplot(), scales, measured, question.scale, drawn, held_out)
    _say(figure, question, conditions, says)
    return figure


def law(question: Question) -> Figure:
    """Return the distributional scaling law beside the law of the mean."""
    outcomes, conditions = question.outcomes()
    try:
        found = law_at(question, outcomes, _along(outcomes.scale), question.level(conditions))
        change = mean_change(question, outcomes, question.level(conditions))
    except ValueError as error:
        raise QueryError(f"no distributional law: {error}") from None
    figure = new_figure(6.8, 4.6)
    by_scale.law_beside_mean(
        figure.add_subplot(), found, outcomes, f"{question.metric} at the last step", question.scale
    )
    share = change.share
    part = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]" if share.bounded else "an unknown part"
    text = f"bands: 95 % from resampled runs; {part} of the change of the mean is a change of P(success)"
    _say(figure, question, conditions, text)
    return figure


def survival(question: Question) -> Figure:
    """Return the share of runs without onset over steps, for each condition; many conditions have panels."""
    summary = question.summary()
    ended = [condition for condition in summary.conditions if question.ended(condition).any()]
    if not ended:
        raise QueryError("no run has ended yet: there is no onset to draw")
    found = [onsets_of_one(question, condition).turnbull for condition in ended]
    apart = len(ended) > _MOST_TOGETHER
    figure, panels = _panels(tuple(ended), 2.6) if apart else (new_figure(6.4, 4.0), [])
    together = None if apart else figure.add_subplot()
    for number, (condition, one) in enumerate(zip(ended[:_MOST_PANELS], found, strict=False)):
        axes = together or panels[number]
        end, label = float(condition.condition.planned_steps), short(condition.condition.label)
        if apart:
            of_onsets.others_without_onset(axes, [(other.left, other.right, other.survival) for other in found], end)
            titled(axes, condition.condition.label, f"n = {int(question.ended(condition).sum())}")
        label = f"{label}, n = {int(question.ended(condition).sum())}"
        curve = one.left, one.right, one.survival, one.low, one.high
        of_onsets.share_without_onset(axes, *curve, label, 0 if apart else number, end)
    if together:
        together.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    rule = summary.rule
    text = f"onset: {rule.metric} ≥ {rule.threshold:g} for {rule.sustained} probes; Turnbull, 95 % from resampled runs"
    _say(figure, question, ended, text + ("; grey: the other conditions" if apart else ""))
    return figure


def order(question: Question) -> Figure:
    """Return the onset of one metric against that of another, run by run."""
    if not question.options.against:
        raise QueryError(
            f"onset against onset needs a second metric: --against, one of {', '.join(question.metrics())}"
        )
    first, second = question.summary(), question.summary(question.options.against)
    figure, panels = _panels(first.conditions, 4.4, widest=3, width=3.9)
    names = question.metric, question.options.against
    for axes, a, b in zip(panels, first.conditions, second.conditions, strict=False):
        mine = np.isin(a.curves.run_ids, b.curves.run_ids)
        if not mine.any():
            continue
        first_one, other = brackets(question, a), brackets(question, b, question.second_threshold)
        pair = (first_one.low, first_one.high), (other.low, other.high)
        of_onsets.onset_against_onset(axes, pair[0], pair[1], names, float(a.condition.planned_steps))
        titled(axes, a.condition.label, f"n = {len(first_one.low)}")
    _say(
        figure,
        question,
        first.conditions,
        f"boxes: the probe brackets (low, high] of each run's two onsets, at {question.threshold:g} and "
        f"{question.second_threshold:g}; beyond the dots: never",
    )
    return figure


def shares(question: Question) -> Figure:
    """Return the shares of the final score's variance: initialisation, data order, rest."""
    found = variance(question).conditions
    rows = [(label, [(part.name, part.share) for part in parts.components]) for label, parts in found.items()]
    used = [condition for condition in question.summary().conditions if condition.condition.label in found]
    figure = new_figure(6.4, 1.5 + 0.75 * len(rows))
    of_chance.variance_shares(figure.add_subplot(), rows)
    _say(figure, question, used, "ANOVA over init × data, generalised pivotal 95 % intervals")
    return figure


def states(question: Question) -> Figure:
    """Return the map of training: latent states of all metrics, and who moves where."""
    found = latent_states(question)
    figure = new_figure(6.0, 4.8)
    traits = [_traits(means, found.metrics) for means in found.choice.model.means]
    of_chance.states_and_moves(figure.add_subplot(), found.map, len(found.run_ids), traits)
    text = f"{found.choice.states} states of {len(found.metrics)} metrics, chosen by runs left out"
    _say(
        figure,
        question,
        question.summary().conditions,
        text + "; on arrows: runs; orange: detour; metrics in deviations",
    )
    return figure


def _traits(means: Floats, metrics: tuple[str, ...]) -> str:
    """Return the metrics that set a state apart most, in deviations from the mean over runs and steps."""
    chosen = sorted(range(len(metrics)), key=lambda place: -abs(means[place]))[:_MOST_TRAITS]
    return "\n".join(f"{short(metrics[place], 24)} {means[place]:+.1f}" for place in chosen)


def lines(question: Question) -> Figure:
    """Return the heights along the straight lines between runs, for each condition of those."""
    found = between_runs(question).conditions
    count = min(len(found), _MOST_PANELS)
    figure, panels = _grid_of(count, 3.0)
    height = next(iter(found.values())).height
    for axes, (label, one) in zip(panels, found.items(), strict=False):
        of_chance.heights_on_lines(axes, one.fractions, one.losses, height)
        value = one.instability
        interval = f" [{value.low:.3f}, {value.high:.3f}]" if value.bounded else ""
        titled(axes, label, f"{len(one.losses)} pairs, instability {value.value:.3f}{interval}")
    most = max(float(one.losses.max()) for one in found.values())
    least = min(float(one.losses.min()) for one in found.values())
    for axes in panels:
        axes.set_ylim(least - 0.04 * (most - least) - 1e-9, most + 0.04 * (most - least) + 1e-9)
    text = f"thick: the median over pairs; instability: the mean over pairs, jackknife over {value.unit}s"
    cohort = Cohort.pooled([condition.success.cohort for condition in question.summary().conditions])
    footnote(figure, question.declared.name, cohort, text)
    return figure


def hidden(question: Question) -> Figure:
    """Return clusters' projected losses over steps beside the mean loss, all runs of a condition together."""
    found = hidden_breakthroughs(question).conditions
    conditions = [one for one in question.summary().conditions if one.condition.label in found][:_MOST_TOGETHER]
    figure = new_figure(max(3.4 * len(conditions), 4.4), 5.0)
    panels = figure.subplots(2, len(conditions), squeeze=False, sharex=True, height_ratios=(1, 1.6))
    for column, condition in enumerate(conditions):
        label, looks = condition.condition.label, looks_of(question, condition)
        of_directions.mean_losses(panels[0][column], [(look.steps, look.loss, look.late.flat_from) for look in looks])
        curves = [(look.steps, np.concatenate([one.curves for one in look.along]), look.late.hidden) for look in looks]
        of_directions.clusters_of_runs(panels[1][column], curves)
        part = found[label].runs_with
        titled(panels[0][column], label, f"{len(looks)} runs, {part.value:.0%} with a hidden one")
    text = "above: mean loss, dots from where it is flat; below: clusters of tokens, orange: breakthroughs after that"
    _say(figure, question, conditions, text)
    return figure


def distances(question: Question) -> Figure:
    """Return the distances between the curves of a condition's runs, in order of their groups."""
    conditions, found = question.summary().conditions, groups(question)
    figure, panels = _panels(conditions, 3.5, widest=3, width=3.5)
    drawn, unit = [], f"root mean square difference, {question.metric}"
    most = max(float(one.distances.max()) for one in found.conditions.values()) or 1.0
    for axes, condition in zip(panels, conditions, strict=False):
        label = condition.condition.label
        if label not in found.conditions:
            titled(axes, label, "fewer than 4 whole runs")
            axes.set_axis_off()
            continue
        parts = found[label].clusters
        of_chance.distance_matrix(axes, found[label].distances, parts.labels, unit, most)
        count = len(set(parts.labels.tolist()))
        titled(axes, label, f"{count} group{'s' * (count > 1)}, p = {parts.p:.3f}")
        drawn.append(condition)
    pictured = [axes for axes in panels if axes.images]
    figure.colorbar(pictured[0].images[0], ax=panels, label=unit, shrink=0.8)
    _say(figure, question, drawn, "distance over all probes; groups by average linkage, permutation test")
    return figure


def numbered(question: Question) -> Figure:
    """Return the final values of metrics whose names differ in a number alone, against it, for each condition."""
    found = by_number.metrics_by_number(question.metric, question.metrics())
    if len(found) < 2:
        raise QueryError(f"{question.metric!r} names fewer than two metrics: write * for the number, as in seen_*.loss")
    numbers = sorted(found)
    shown = question.summary(found[numbers[0]]).conditions
    lines: dict[str, list[tuple[int, Estimate, Floats]]] = {one.condition.label: [] for one in shown}
    for place, number in enumerate(numbers):
        for condition in question.summary(found[number]).conditions:
            if len(condition.scores):
                mean = mean_t(condition.scores, condition.success.cohort, question.level([condition]))
                lines[condition.condition.label].append((place, mean, condition.scores))
    figure = new_figure(6.8, 4.2)
    by_number.against_number(figure.add_subplot(), np.array(numbers, np.float64), lines, question.metric)
    _say(figure, question, shown, "means over runs at the last step with Student's 95 % intervals; dots: runs")
    return figure


def steps(question: Question) -> Figure:
    """Return the means over runs of metrics that name another step, at each step and of each other one."""
    found = by_number.metrics_by_number(question.metric, question.metrics())
    if len(found) < 2:
        raise QueryError(f"{question.metric!r} names fewer than two steps: write * for it, as in heldout.cka.1.to_*")
    others = sorted(found)
    by_step = [question.summary(found[other]).conditions for other in others]
    figure, panels = _panels(by_step[0], 3.5, widest=3, width=3.7)
    drawn = [by_number.means_at([of[place].curves for of in by_step]) for place in range(len(panels))]
    every = np.concatenate([means[np.isfinite(means)] for _, means in drawn])
    for axes, condition, (at, means) in zip(panels, by_step[0], drawn, strict=False):
        by_number.between_steps(axes, at, others, means, (float(every.min()), float(every.max())))
        titled(axes, condition.condition.label, f"n = {len(condition.curves.run_ids)}")
    label = by_number.pattern_of(question.metric)
    figure.colorbar(panels[0].images[0], ax=panels, label=f"{label}, mean over runs", shrink=0.8)
    _say(
        figure,
        question,
        by_step[0],
        "means over runs; white: not defined, as of layers that make the same of everything",
    )
    return figure


def spent(question: Question) -> Figure:
    """Return the metric of every run over what was spent (`against`, or steps since it began), by condition."""
    conditions, figure = question.summary().conditions, new_figure(6.8, 4.6)
    sides = [(condition.condition.label, spending(question, condition)) for condition in conditions]
    unit = question.options.against or "steps since a run began (optimiser updates)"
    over_spending.curves_over_spending(figure.add_subplot(), sides, unit, question.metric)
    figure.legend(loc="outside upper left", ncols=1)
    _say(figure, question, conditions, "a line is a run; dots: their ends")
    return figure


KINDS = {
    kind.name: kind
    for kind in (
        Kind("fan", "quantiles over runs at every step, with n per step", fan),
        Kind("ridgeline", "the distribution over runs, probe by probe", ridges),
        Kind("scores", "every seed's last score and its histogram, by scale", scores),
        Kind("probability", "P(success) over scale: measured, fitted, and predicted where held out", probability),
        Kind("law", "the distributional scaling law beside one power law of the mean", law),
        Kind("onsets", "the share of runs without onset over steps", survival),
        Kind("order", "one metric's onset against another's, run by run (--against METRIC)", order),
        Kind("variance", "shares of variance: initialisation, data order, rest (seed design `crossed`)", shares),
        Kind("map", "latent states of training and the moves between them (one --condition)", states),
        Kind(
            "numbered", "final values of metrics that differ in a number, against it (--metric seen_*.loss)", numbered
        ),
        Kind("steps", "how alike layers are at any two steps (--metric heldout.cka.1.to_*)", steps),
        Kind("spent", "a metric of every run over what was spent on it (--against METRIC)", spent),
        Kind("hidden", "clusters along directions beside the mean loss (a study with `polca`)", hidden),
        Kind("distances", "distances between runs and their groups", distances),
        Kind("lines", "heights on the straight lines between runs (a study with `fork: {line: …}`)", lines),
    )
}


def _panels(
    conditions: tuple[ConditionSummary, ...], height: float, widest: int = _PER_ROW, width: float = 3.0
) -> tuple[Figure, list[Axes]]:
    return _grid_of(min(len(conditions), _MOST_PANELS), height, widest, width)


def _grid_of(count: int, height: float, widest: int = _PER_ROW, width: float = 3.0) -> tuple[Figure, list[Axes]]:
    rows = max(ceil(count / widest), 1)
    columns = max(ceil(count / rows), 1)  # four panels are two by two, not three and one
    figure = new_figure(max(width * columns, 4.4), height * rows + 0.3)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels[:count]


def _say(figure: Figure, question: Question, conditions: object, text: str) -> None:
    shown = list(conditions)  # type: ignore[call-overload]
    more = (
        f"; the first {_MOST_PANELS} of {len(shown)} conditions"
        if len(shown) > _MOST_PANELS and len(figure.axes) > 2
        else ""
    )
    footnote(figure, question.declared.name, Cohort.pooled([c.success.cohort for c in shown]), text + more)


def _along(scales: Floats) -> Floats:
    return np.geomspace(scales[0], scales[-1] * _past(scales), _PLACES)


def _past(scales: Floats) -> float:
    """Return how far past the largest scale is shown, as a factor: never farther than the scales themselves reach."""
    return min(_PAST, float(scales[-1] / scales[0]))
