"""What probes measure beside a task's own sets: names of ours, and what the lm-evaluation-harness shall ask.

    measure:
      - weights
      - harness: {tasks: [agreement, lambada_openai], folder: questions, fewshot: 0, limit: 200}

A study file names a folder; a run's spec has the files in it, each by its digest.
"""

from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Named = Literal["weights", "similarity", "attention", "linear-probe", "structural-probe", "interdependence"]
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


def _kind(data: Any) -> str:
    return "harness" if isinstance(data, dict | BaseModel) else "str"


_UNKNOWN = Discriminator(_kind)
RuledMeasure = Annotated[Annotated[Named, Tag("str")] | Annotated[RuledHarness, Tag("harness")], _UNKNOWN]
Measure = Annotated[Annotated[Named, Tag("str")] | Annotated[AskedHarness, Tag("harness")], _UNKNOWN]


def harness_in(measures: tuple[str | AskedHarness, ...]) -> HarnessSpec | None:
    """Return what the harness asks, if it does."""
    return next((one.harness for one in measures if isinstance(one, AskedHarness)), None)


def is_ruled(measure: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether an entry of `measure` in a study file is the harness, right or wrong."""
    return isinstance(measure, dict) and isinstance(measure.get("harness"), dict)
