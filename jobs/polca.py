"""How the change of a run's loss is taken apart along directions: the key `polca` of a study file.

    polca:
      steps: {every: 50}        # between which steps of the run the change of the loss is taken apart
      basis: {every: 300}       # at which of its steps a direction is found; never at step 0
      directions: hessian       # the steepest of the loss's curvature, or random ones to compare with
      items: 128                # the first ones of the held-out set `set`

After "Hidden breakthroughs" (POLCA), arXiv 2506.15872. The key belongs to a fork with `train: false`: the run that is
looked at has ended, and its checkpoints, or steps trained again in memory, are all that is needed.

Not here: the mathematics (`workers/polca.py`).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobs.schedule import Every, Schedule, steps_of

Part = Annotated[float, Field(gt=0.0, le=0.5)]


class PolcaSpec(BaseModel):
    """What is taken apart, along what, and what counts as a cluster of tokens.

    each        directions that each step of `basis` adds
    order       1: by the slope alone; 2: with half of the curvature, shared out among tokens as their slopes change
    smallest    the fewest tokens of a cluster, as a part of all
    neighbours  how many make a token's surroundings dense, as a part of those that are clustered
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    steps: Schedule = Every(every=50)
    basis: Schedule = Every(every=500)
    each: Annotated[int, Field(ge=1, le=64)] = 1
    directions: Literal["hessian", "random"] = "hessian"
    order: Literal[1, 2] = 2
    set: str = "heldout"
    items: Annotated[int, Field(ge=2)] = 128
    smallest: Part = 0.03
    neighbours: Part = 1 / 15

    def found_at(self, last: int) -> tuple[int, ...]:
        """Return the steps of a run of `last` steps at which directions are found."""
        return tuple(step for step in steps_of(self.basis, last) if step > 0)

    def looked_at(self, last: int) -> tuple[int, ...]:
        """Return the steps of a run of `last` steps that there are rows of, ascending."""
        found = self.found_at(last) if self.directions == "hessian" else ()
        return tuple(sorted({*steps_of(self.steps, last), *found}))

    def rows_at_most(self, last: int, groups: int) -> int:
        """Return the most rows that a look at a run of `last` steps makes, where tokens are of so many groups."""
        curves = self.each * len(self.found_at(last)) + 1  # directions, and the loss itself
        clusters = int(1 / self.smallest)
        by_step = len(steps_of(self.steps, last)) * (curves * (1 + groups + clusters) + 1)
        return by_step + curves * (groups * (1 + clusters) + 1) + 1
