"""Runs that begin where other runs were: forks, continuations, partial re-initialisation.

    fork:
      study: parents.yaml        # whose runs are the parents; beside this file
      steps: [0, 100, last]      # of the parents, at which the children begin
      redraw: [data]             # seeds that the children draw anew; the others stay their parent's
      reinitialise: [blocks.1]   # parameters drawn anew from the child's init seed; needs `init` in redraw
      moments: kept              # of the optimiser; or zero

A child's steps count on from its parent's: `training.steps` is where it ends. With `steps: [last]`, nothing redrawn
and more steps it is a continuation. Parents are named by their ids, which their file decides: no store is needed to
know the children. A parent is the parent of every condition with the same task and model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from jobs.seeds import Seeds
from jobs.spec import Origin, Spec

Stream = Literal["init", "data", "dropout"]


class ForkRule(Spec):
    """The key `fork` of a study file; see the module."""

    study: str
    steps: Annotated[tuple[Annotated[int, Field(ge=0)] | Literal["last"], ...], Field(strict=False, min_length=1)]
    redraw: Annotated[tuple[Stream, ...], Field(strict=False)] = ()
    reinitialise: Annotated[tuple[str, ...], Field(strict=False)] = ()
    moments: Literal["kept", "zero"] = "kept"

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong) for what does not fit together."""
        if "init" in self.redraw and not self.reinitialise:
            yield (
                "redraw",
                "a new init seed changes nothing where no parameter is drawn anew: name some in reinitialise",
            )
        if self.reinitialise and "init" not in self.redraw:
            yield "reinitialise", "parameters drawn anew need an init seed of their own: put init into redraw"


class Parent(Protocol):
    """A run that others begin from."""

    @property
    def id(self) -> str:
        """Return its id."""

    @property
    def seeds(self) -> Seeds:
        """Return its seeds."""


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """Where the children of one condition begin: at `step` of the runs of the condition `parent_condition`."""

    rule: ForkRule
    step: int
    parent_condition: str
    parents: tuple[Parent, ...]

    def spec(self) -> dict[str, Any]:
        """Return what of it is part of the identity of a condition."""
        return {
            "step": self.step,
            "redrawn": list(self.rule.reinitialise),
            "moments": self.rule.moments,
            "parent_condition": self.parent_condition,
        }

    def children(self, drawn: Sequence[Seeds]) -> Iterator[tuple[Seeds, Origin]]:
        """Yield seeds and origin of every child, parent by parent: each with every seed of the design."""
        for parent in self.parents:
            origin = Origin(run_id=parent.id, step=self.step, redrawn=self.rule.reinitialise, moments=self.rule.moments)
            for seeds in drawn if self.rule.redraw else [parent.seeds]:
                changed: dict[str, int] = {name: getattr(seeds, name) for name in self.rule.redraw}
                yield replace(parent.seeds, **changed), origin


def model_of(spec: dict[str, Any]) -> dict[str, Any]:
    """Return of a condition's spec what must be equal in parent and child: task and model, but for dropout."""
    model = {name: value for name, value in spec["model"].items() if name != "dropout"}
    return {"task": spec["task"], "model": model}
