"""What a study shows, in a few sentences with their estimates: for the report and for the end of a run.

The midpoint over scale, how many modes each condition has, what of the mean's change is a change of P(success), and
what so many seeds can and cannot tell. A question that the study does not answer is left out; what is missing for it
is what `seedbed estimate` says.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from jobs.errors import QueryError
from orchestrator.estimates.estimate import Estimate
from orchestrator.power_plan import can_show
from orchestrator.questions.asked import Question
from orchestrator.questions.chance import modes
from orchestrator.questions.over_scale import Laws, OverScale, over_scale, scaling_law

A = TypeVar("A")
_MOST_CONDITIONS = 24  # verdicts on modes: each takes about a second
_REJECTED = 0.05


@dataclass(frozen=True, slots=True)
class Headline:
    """One sentence; `estimates` are the exact numbers in it, in their order."""

    text: str
    estimates: tuple[Estimate, ...] = ()


@dataclass(frozen=True, slots=True)
class Headlines:
    """Sentences by subject; `modes`: condition → (verdict on the score, verdict on the final training loss)."""

    over_scale: tuple[Headline, ...]
    modes: dict[str, tuple[str, str]]
    law: tuple[Headline, ...]
    seeds: tuple[Headline, ...]

    def __iter__(self) -> Iterator[Headline]:
        yield from self.over_scale
        yield from self.law
        yield from self.seeds


def headlines(question: Question) -> Headlines:
    """Return what the study shows; what it cannot answer is left out."""
    verdicts: dict[str, tuple[str, str]] = {}
    if len(question.declared.conditions) <= _MOST_CONDITIONS:
        found = _answered(modes, question)
        if found is not None:
            verdicts = {
                label: (one.score.says, one.loss.says if one.loss else one.without)
                for label, one in found.conditions.items()
            }
    curve, laws = _answered(over_scale, question), _answered(scaling_law, question)
    return Headlines(
        over_scale=tuple(_of_curve(curve)) if curve else (),
        modes=verdicts,
        law=tuple(_of_laws(laws)) if laws else (),
        seeds=tuple(_of_seeds(question)),
    )


def _answered(answer: Callable[[Question], A], question: Question) -> A | None:
    try:
        return answer(question)
    except (QueryError, ValueError):  # an estimate, or the study, has no answer: that is no error here
        return None


def _of_curve(found: OverScale) -> Iterator[Headline]:
    one = found.midpoint
    if one.bounded and one.low > 0:
        text = f"Half of the runs succeed at {found.scale} = {one.value:.3g} [{one.low:.3g}, {one.high:.3g}]"
    else:
        text = f"The data do not bound the {found.scale} at which half of the runs succeed"
        text += f": [{one.low:.3g}, {one.high:.3g}]"
    slope = found.slope
    yield Headline(
        f"{text}; logit P changes by {slope.value:.2g} [{slope.low:.2g}, {slope.high:.2g}] per decade "
        f"({one.method}, {100 * one.level:g} %).",
        (one, slope),
    )
    if found.shape.p_logistic < _REJECTED:
        yield Headline(f"That curve does not fit (p = {found.shape.p_logistic:.3f}): P levels off or turns.")


def _of_laws(found: Laws) -> Iterator[Headline]:
    share = found.change.share
    if share.bounded:
        yield Headline(
            f"Of the change of the mean score over {found.scale}, {share.value:.0%} [{share.low:.0%}, "
            f"{share.high:.0%}] is a change of P(success); the rest is change within runs that succeed, or do not.",
            (share,),
        )
    else:
        yield Headline(f"The mean score may not change over {found.scale} at all.", (found.change.change,))
    mixture, naive = found.rivals.composite_p, found.rivals.naive_p
    yield Headline(
        f"The means {_against(mixture)} the mixture of laws (p = {mixture:.3f}) and {_against(naive)} one power law of "
        f"the mean (p = {naive:.3f})."
    )


def _against(p: float) -> str:
    return "contradict" if p < _REJECTED else "do not contradict"


def _of_seeds(question: Question) -> Iterator[Headline]:
    """Return what the commonest number of runs with a known outcome can tell."""
    known = Counter(condition.success.cohort.known for condition in question.summary().conditions)
    known.pop(0, None)
    if known:
        most = max(known, key=lambda n: (known[n], n))
        for text in can_show(most).says():
            yield Headline(text)
