"""What probes measure beside a task's own sets: names of ours, some with options, and what the harness shall ask.

    measure:
      - weights
      - shapley: {set: trees, items: 64, token: "[hidden]"}
      - similarity: {steps: {every: 100}, to: [last, before]}
      - harness: {tasks: [agreement, lambada_openai], folder: questions, fewshot: 0, limit: 200}

A study file names a folder; a run's spec has the files in it, each by its digest. `shapley` alone stands for all of its
defaults, `similarity` alone for that to the other end of a line.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeGuard, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from jobs.faults import near
from jobs.schedule import Schedule, steps_of

Named = Literal["weights", "similarity", "attention", "linear-probe", "structural-probe", "interdependence", "cost"]
TaskName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:+-]{0,127}$")]


class _Form(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class HarnessRule(_Form):
    """What a study file says of the harness.

    tasks       of the harness, by their names: those in `folder`, else its own
    folder      beside the study: YAML files of tasks, their items and functions, which go along; empty: none
    fewshot     examples before a question; null: as many as the task says
    limit       the first so many items of each task; null: all of them
    batch_size  sequences that go through the model together
    """

    tasks: Annotated[tuple[TaskName, ...], Field(strict=False, min_length=1)]
    folder: str = ""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16


class HarnessSpec(_Form):
    """What the harness asks, as part of a run's identity.

    files  path below the folder → `sha256:…` of each of its files; the other fields are those of HarnessRule
    """

    tasks: Annotated[tuple[TaskName, ...], Field(strict=False, min_length=1)]
    files: dict[str, str] = Field(default_factory=dict)
    fewshot: Annotated[int, Field(ge=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 16


class RuledHarness(_Form):
    """The harness among the measures of a study file."""

    harness: HarnessRule


class AskedHarness(_Form):
    """The harness among the measures of a run's spec."""

    harness: HarnessSpec


class ShapleySpec(_Form):
    """How far inputs act together, pair by pair (`workers/shapley_probe.py`).

    set           the held-out set that is asked
    items         its first so many
    token         what stands for a token that is left out; null: the token at its place in another item
    window        of the tokens from which an answer follows the nearest so many are features; the others stay
    permutations  drawn for each item of more than 8 features; of fewer all subsets are asked
    """

    set: str = "heldout"
    items: Annotated[int, Field(ge=2)] = 64
    token: str | None = None
    window: Annotated[int, Field(ge=2, le=62)] = 16  # a subset is a number of as many bits
    permutations: Annotated[int, Field(ge=2)] = 8


class AskedShapley(_Form):
    """Shapley interactions among the measures, of a study file and of a run's spec."""

    shapley: ShapleySpec


class StepsSpec(_Form):
    """How alike a run's layers at some of its steps are to those at others, of a fork that is only measured.

    steps  of the run that is looked back at; the first and the last, at which the fork begins, are always in
    to     what each of them is compared with: the last, the one before it among them, or each of them
    set    the held-out set that is read
    items  its first so many
    """

    steps: Schedule
    to: Annotated[
        tuple[Literal["last", "before", "each"], ...],
        BeforeValidator(lambda given: (given,) if isinstance(given, str) else given),
        Field(strict=False, min_length=1),
    ] = ("last",)
    set: str = "heldout"
    items: Annotated[int, Field(ge=2, le=256)] = 256  # what engines show of a set

    def looked_at(self, last: int) -> tuple[int, ...]:
        """Return the steps of a run of `last` steps that there are rows of, ascending."""
        return steps_of(self.steps, last)


class AskedSteps(_Form):
    """Similarity over a run's own steps among the measures, of a study file and of a run's spec."""

    similarity: StepsSpec


_WITHOUT_NEED = ("shapley",)  # what has options, all of them with defaults
_KNOWN = (*get_args(Named), "harness", "shapley")


def _told_apart(*forms: type[_Form]) -> Discriminator:
    """Tell names from mappings; a mapping with a wrong key is of the form that has the nearest name."""
    named = {next(iter(form.model_fields)): form.__name__ for form in forms}

    def kind(data: Any) -> str:
        if isinstance(data, BaseModel):
            return type(data).__name__
        if not isinstance(data, dict):
            return "str"
        return named[get_close_matches(str(next(iter(data), "")), named, n=1, cutoff=0.0)[0]]

    return Discriminator(kind)


def _written_out(data: Any) -> Any:
    if not isinstance(data, str) or data in get_args(Named):
        return data
    if data in _WITHOUT_NEED:
        return {data: {}}
    raise ValueError(f"nothing is measured under this name; there are {', '.join(_KNOWN)}{near(data, _KNOWN)}")


_Plain = Annotated[Named, Tag("str")]
_Options = Annotated[AskedShapley, Tag("AskedShapley")] | Annotated[AskedSteps, Tag("AskedSteps")]
RuledMeasure = Annotated[
    Annotated[
        _Plain | _Options | Annotated[RuledHarness, Tag("RuledHarness")],
        _told_apart(AskedShapley, AskedSteps, RuledHarness),
    ],
    BeforeValidator(_written_out),
]
Measure = Annotated[
    Annotated[
        _Plain | _Options | Annotated[AskedHarness, Tag("AskedHarness")],
        _told_apart(AskedShapley, AskedSteps, AskedHarness),
    ],
    BeforeValidator(_written_out),
]
Asked = str | AskedHarness | AskedShapley | AskedSteps  # a measure of a run's spec


def harness_in(measures: Iterable[Asked]) -> HarnessSpec | None:
    """Return what the harness asks, if it does."""
    return next((one.harness for one in measures if isinstance(one, AskedHarness)), None)


def shapleys_in(measures: Iterable[Asked]) -> tuple[ShapleySpec, ...]:
    """Return of which sets it is asked how far inputs act together, and how."""
    return tuple(one.shapley for one in measures if isinstance(one, AskedShapley))


def is_ruled(measure: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether an entry of `measure` in a study file is the harness, right or wrong."""
    return isinstance(measure, dict) and isinstance(measure.get("harness"), dict)


def steps_in(measures: Iterable[Asked]) -> tuple[StepsSpec, ...]:
    """Return at which steps of its past a run is compared with itself, and on which sets."""
    return tuple(one.similarity for one in measures if isinstance(one, AskedSteps))
