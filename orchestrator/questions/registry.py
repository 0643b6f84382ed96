"""One function per question that can be asked of a study, by name.

The command line, Python, SQL, the figures and the report ask here, so they show the same numbers. A question takes a
study, its tables and options, and gives a frozen dataclass of `orchestrator/estimates` (or a small one around several
of them). What does not fit a study (no scale, no crossed seeds, too few runs) is a QueryError that says what it needs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from jobs.errors import QueryError
from orchestrator.collected import Tables
from orchestrator.declared import Declared
from orchestrator.estimates.estimate import under
from orchestrator.questions import (
    along_training,
    between_runs,
    chance,
    forecast,
    hidden,
    losses,
    on_items,
    on_lines,
    over_scale,
    shared_seeds,
    spending,
    steadiness,
    two_metrics,
)
from orchestrator.questions.asked import Options, Question, Watch, unwatched
from orchestrator.stop_rules import rule_id


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: its name, what it tells in one line, and what answers it."""

    name: str
    tells: str
    answer: Callable[[Question], Any]


QUESTIONS = {
    asked.name: asked
    for asked in (
        Asked("success", "P(success) by condition: Wilson, Jeffreys, Clopper-Pearson, Manski", chance.success),
        Asked(
            "groups", "P(success) where runs share a seed: beta-binomial, groups drawn again", shared_seeds.in_groups
        ),
        Asked("survival-curve", "P(score ≥ τ) for every τ at once, with a band", chance.survival),
        Asked("mean", "the mean score by condition: Student's t, BCa", chance.mean),
        Asked("difference", "how far one metric lies above another, run by run (--against)", two_metrics.difference),
        Asked(
            "saving", "how much less is spent (--against) to get as far as the first condition ends", spending.saving
        ),
        Asked("curve", "the mean at every step, with one band that holds at all of them", chance.curve),
        Asked("modes", "one mode or two, on the score, on the training loss, over thresholds", chance.modes),
        Asked("success-over-scale", "P(success) over scale: midpoint, slope, shape (--at)", over_scale.over_scale),
        Asked("predict", "P(success) at a scale that was not run (--at)", over_scale.prediction),
        Asked("forecast", "the distribution at a scale that was not run, and the record (--at)", forecast.forecast),
        Asked("scaling-law", "the distribution over scale as a mixture, beside the mean's law", over_scale.scaling_law),
        Asked("quantile-laws", "laws of the 10, 50, 90 % quantiles over scale", over_scale.quantiles),
        Asked("loss-law", "L(N, D) of the final loss (--scale is N, --tokens D)", losses.law_of_loss),
        Asked("distances", "did the distribution move between neighbouring scales: W1, W2", over_scale.moves),
        Asked("lineages", "breakthroughness and linearity of seeds over scale", over_scale.of_lineages),
        Asked("onset", "when runs break through: median, Turnbull, Weibull over scale", along_training.onset),
        Asked("order", "does one onset come before another (--against, --against-threshold)", along_training.order),
        Asked("breaks", "where each run breaks, and whether it does (--window, --falling)", along_training.breaks),
        Asked("instability", "how much runs waver: total variation", steadiness.wavering),
        Asked("commitment", "which rule runs commit to (--against, --tolerance, --unstable)", steadiness.committed),
        Asked("states", "latent states of training and detours (one --condition)", along_training.states),
        Asked("variance", "shares of initialisation, data order and the rest", between_runs.variance),
        Asked("twins", "how alike are runs that share one seed: ICC(1) (--shared)", shared_seeds.alike),
        Asked("agreement", "do runs give the same answers, item by item: Cohen's kappa", on_items.agreement),
        Asked("compare", "two conditions on one set of items: multi-bootstrap", on_items.compare),
        Asked("clusters", "groups of runs by their curves, and a test that there are any", between_runs.groups),
        Asked("outliers", "runs unlike the others", between_runs.unusual),
        Asked("hidden", "breakthroughs of tokens that the mean loss does not show (--against KIND)", hidden.hidden),
        Asked("lines", "are runs linearly connected: barrier, convexity gap, instability", on_lines.between_runs),
    )
}


def ask(name: str, declared: Declared, tables: Tables, options: Options | None = None, watch: Watch = unwatched) -> Any:
    """Return the answer to a question; raises QueryError where there is no such question, or it has no answer."""
    if name not in QUESTIONS:
        near = get_close_matches(name, list(QUESTIONS), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise QueryError(f"no question is called {name!r}{hint}. There are: {', '.join(QUESTIONS)}")
    try:
        found = QUESTIONS[name].answer(Question(declared, tables, options or Options(), watch))
        return under(found, rule_id(*declared.stop)) if declared.stop else found
    except ValueError as error:  # what an estimate says of data that do not fit it
        raise QueryError(f"{name}: {error}") from None
