"""Where a run begins that does not begin from nothing; part of its identity, like all of `spec.py`."""

from typing import Annotated, Any, Literal

from pydantic import Field

from jobs.spec import Fraction, Spec


class Toward(Spec):
    """The other end of the straight line on which a run begins, and how far the run is toward it, 0 to 1."""

    run_id: str
    fraction: Fraction


class Origin(Spec):
    """Where a run begins that does not begin from nothing: a fork, a continuation, or a partial re-initialisation.

    run_id      the parent, whose weights and moments it starts from
    step        of the parent at which it starts; its own steps count on from there
    redrawn     patterns of parameter names (`blocks.1.*`, `head`) drawn anew from its own init seed
    moments     whether the optimiser's moments are kept, or zero (those of redrawn parameters always are)
    toward      where its weights lie between two parents at that step: the second one
    """

    run_id: str
    step: Annotated[int, Field(ge=0)]
    redrawn: tuple[str, ...] = ()
    moments: Literal["kept", "zero"] = "kept"
    toward: Toward | None = None

    def spec(self) -> dict[str, Any]:
        """Return it as plain data, the form in which it is hashed and stored."""
        return self.model_dump(mode="json", exclude=None if self.toward else {"toward"})

    @property
    def parents(self) -> tuple[str, ...]:
        """Return the runs that it begins from."""
        return (self.run_id, self.toward.run_id) if self.toward else (self.run_id,)

    @property
    def is_saved_anew(self) -> bool:
        """Return whether the run's first state is a checkpoint of its own: not, where its parents' tell it all."""
        return self.toward is None and (bool(self.redrawn) or self.moments == "zero")
