"""Runs that begin where other runs were: forks, continuations, partial re-initialisation.

    fork:
      study: parents.yaml        # whose runs are the parents; beside this file
      steps: [0, 100, last]      # of the parents, at which the children begin
      redraw: [data]             # seeds that the children draw anew; the others stay their parent's
      reinitialise: [blocks.1]   # parameters drawn anew from the child's init seed; needs `init` in redraw
      moments: kept              # of the optimiser; or zero
      train: false               # the children end where they begin: they are only measured
      task: other                # than the parents', of the same tokens: fine-tuning; or same
      line: {pairs: all, points: 11}   # begin between two parents: on the straight line, both ends included

A child's steps count on from its parent's: `training.steps` is where it ends. With `steps: [last]`, nothing redrawn
and more steps it is a continuation. Parents are named by their ids, which their file decides: no store is needed to
know the children. A parent is the parent of every condition with the same task and model; with `task: other` of every
one with the same model.

Runs on a line need no steps of their own: with `training.steps` equal to the parents' they are only measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from jobs.origin import Origin, Toward
from jobs.seeds import Seeds
from jobs.spec import GptSpec, LstmSpec, ModelSpec, Spec
from jobs.tasks.task import Task

Stream = Literal["init", "data", "dropout"]


class LineRule(Spec):
    """Between which runs of a condition the children begin, and at how many points of each straight line.

    pairs   all: of any two runs; siblings: of two that were forked from one run
    first   the most runs, in their declared order, that take part: n runs make n (n - 1) / 2 pairs; null: all of them
    points  evenly spaced, both ends among them
    """

    pairs: Literal["all", "siblings"]
    points: Annotated[int, Field(ge=3, le=1001)] = 11
    first: Annotated[int, Field(ge=2)] | None = None

    @property
    def fractions(self) -> tuple[float, ...]:
        """Return where on a line the points lie, 0 to 1."""
        return tuple(point / (self.points - 1) for point in range(self.points))

    def pairs_of(self, parents: "Sequence[Parent]") -> "Iterator[tuple[Parent, Parent]]":
        """Yield the two ends of each line, in the declared order of the runs."""
        for one, other in combinations(parents[: self.first], 2):
            is_sibling = one.origin is not None and other.origin is not None and one.origin == other.origin
            if self.pairs == "all" or is_sibling:
                yield one, other


class ForkRule(Spec):
    """The key `fork` of a study file; see the module."""

    study: str
    steps: Annotated[tuple[Annotated[int, Field(ge=0)] | Literal["last"], ...], Field(strict=False, min_length=1)]
    redraw: Annotated[tuple[Stream, ...], Field(strict=False)] = ()
    reinitialise: Annotated[tuple[str, ...], Field(strict=False)] = ()
    moments: Literal["kept", "zero"] = "kept"
    train: bool = True
    line: LineRule | None = None
    task: Literal["same", "other"] = "same"

    def faults(self, *, adapts: bool = False) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong) for what does not fit together; `adapts`: the children train adapters."""
        if adapts and self.moments == "kept":
            yield "moments", "are those of the parent's weights, and adapters have none yet: write `moments: zero`"
        if "init" in self.redraw and not (self.reinitialise or adapts):
            yield (
                "redraw",
                "a new init seed changes nothing where no parameter is drawn anew: name some in reinitialise",
            )
        if self.reinitialise and "init" not in self.redraw:
            yield "reinitialise", "parameters drawn anew need an init seed of their own: put init into redraw"
        if not self.train and set(self.redraw) - {"init"}:
            yield "redraw", "without training (train: false) other data or dropout change nothing"
        if self.line and self.task == "other":
            yield "task", "runs on a line are measured on the task of both their ends"
        if self.line and self.redraw:
            yield "redraw", "runs on a line begin between two parents, with nothing redrawn"
        if self.line and self.moments == "kept":
            yield "line", "moments of two runs cannot be mixed: write `moments: zero`"


class Parent(Protocol):
    """A run that others begin from."""

    @property
    def id(self) -> str:
        """Return its id."""

    @property
    def seeds(self) -> Seeds:
        """Return its seeds."""

    @property
    def origin(self) -> Origin | None:
        """Return where it begins itself, if not from nothing."""


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where the children of one condition begin: at `step` of the runs of the condition `parent_condition`.

    fraction  how far from one parent to another, where they begin on a line
    """

    rule: ForkRule
    step: int
    parent_condition: str
    parents: tuple[Parent, ...]
    fraction: float | None = None

    @property
    def is_saved_anew(self) -> bool:
        """Return whether the children's first states are checkpoints of their own."""
        return any(origin.is_saved_anew for _, origin in self.children([parent.seeds for parent in self.parents[:1]]))

    def spec(self) -> dict[str, Any]:
        """Return what of it is part of the identity of a condition."""
        return {
            "step": self.step,
            "redrawn": list(self.rule.reinitialise),
            "moments": self.rule.moments,
            "parent_condition": self.parent_condition,
        } | ({} if self.fraction is None else {"fraction": self.fraction})

    def children(self, drawn: Sequence[Seeds]) -> Iterator[tuple[Seeds, Origin]]:
        """Yield seeds and origin of every child, parent by parent: each with every seed of the design.

        A child on a line has the seeds of the parent from which the line begins.
        """
        if self.rule.line and self.fraction is not None:
            for one, other in self.rule.line.pairs_of(self.parents):
                toward = Toward(run_id=other.id, fraction=self.fraction)
                yield one.seeds, Origin(run_id=one.id, step=self.step, moments="zero", toward=toward)
            return
        for parent in self.parents:
            origin = Origin(run_id=parent.id, step=self.step, redrawn=self.rule.reinitialise, moments=self.rule.moments)
            for seeds in drawn if self.rule.redraw else [parent.seeds]:
                changed: dict[str, int] = {name: getattr(seeds, name) for name in self.rule.redraw}
                yield replace(parent.seeds, **changed), origin


def model_of(spec: dict[str, Any], rule: ForkRule) -> dict[str, Any]:
    """Return of a condition's spec what must be equal in parent and child: model, but for dropout, and the task."""
    model = {name: value for name, value in spec["model"].items() if name != "dropout"}
    return {"model": model} | ({"task": spec["task"]} if rule.task == "same" else {})


def reads_alike(model: ModelSpec, child: Task, parent: Task) -> Iterator[str]:
    """Yield why a model of the parent's task cannot go on with the child's: parameters by token, or by place."""
    if child.vocabulary != parent.vocabulary:
        counts = f"{len(child.vocabulary)} and {len(parent.vocabulary)}"
        yield f"the tokens of both tasks have to be the same; there are {counts}, or others in another order"
    by_place = not (isinstance(model, LstmSpec) or (isinstance(model, GptSpec) and model.positions == "rotary"))
    if by_place and child.length != parent.length:
        yield (
            f"sequences of {child.length} tokens, and of the parents' {parent.length}: that needs positions that"
            " are no parameters, such as model.positions: rotary"
        )
