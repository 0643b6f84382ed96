"""What the columns of a foreign table mean: a small YAML file, checked as a whole before anything is stored.

step: step                      # without it, every run has one measurement, at step 0
metrics: {train.loss: loss}     # wide: metric → column; or long: `metric: name_column` with `value: value_column`
                                # k right of m items: {accuracy: {correct: k_column, total: 500}}, or long columns
factors: {model.size: size}     # factor → column
seed: seed                      # the seed of everything; or `seeds: {init: …, data: …}`; or `run: name_column`
where: {suite: [a, b]}          # only rows with one of these values in a column; all rows without it
fragment: file                  # pieces of one run; without it, pieces are told by steps that repeat
success: {metric: train.loss, threshold: 3.0, sustained: 1}
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import Fault, ImportRefused
from jobs.faults import describe, locate, near
from jobs.study import SuccessRule
from jobs.yaml_tree import YamlTree, parse

Column = Annotated[str, Field(min_length=1)]
Cell = str | int | float | bool


_SINGLE = ("step", "metric", "value", "correct", "total", "seed", "run", "fragment", "order")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class SeedColumns(_Strict):
    """The columns of separate seeds; a source of chance without one has the seed -1: not known."""

    init: Column | None = None
    data: Column | None = None
    dropout: Column | None = None
    evaluation: Column | None = None


class Counted(_Strict):
    """Columns of a metric that was counted: how many items were right, and of how many; a total may be a number."""

    correct: Column
    total: Column | Annotated[int, Field(ge=1)]


class Mapping(_Strict):
    """The columns of a table.

    where          column → the value, or the values, of the rows that are meant
    correct, total of a long table, for rows that were counted; their value is then correct / total
    order          a column by which pieces of one run follow each other, such as a time; the last one counts
    tolerance      two pieces that differ by no more, relative to the larger, measured the same
    same_run       the largest median of such differences to what a piece continues; above, it is another run
    not_finite     what NaN and infinities are; an empty cell is always missing
    planned_steps  the step at which a run is finished; without it, the last step of any run of its condition
    """

    step: Column | None = None
    metric: Column | None = None
    value: Column | None = None
    correct: Column | None = None
    total: Column | Annotated[int, Field(ge=1)] | None = None
    metrics: dict[str, Column | Counted] = Field(default_factory=dict)
    factors: dict[str, Column] = Field(default_factory=dict)
    where: dict[Column, Cell | list[Cell]] = Field(default_factory=dict)
    seed: Column | None = None
    seeds: SeedColumns | None = None
    run: Column | None = None
    fragment: Column | None = None
    order: Column | None = None
    scale: str = ""
    success: SuccessRule = SuccessRule()
    planned_steps: Annotated[int, Field(ge=0)] | None = None
    tolerance: Annotated[float, Field(ge=0)] = 0.0
    same_run: Annotated[float, Field(ge=0)] = 0.01
    not_finite: Literal["missing", "diverged"] = "missing"
    question: str = ""
    paper: str = ""

    def seed_columns(self) -> dict[str, str | None]:
        """Return the column of each seed by its name."""
        if self.seeds is not None:
            return self.seeds.model_dump()
        return dict.fromkeys(SeedColumns.model_fields, self.seed)

    def columns(self) -> dict[str, str]:
        """Return every column that is read, by the key that names it."""
        single = {key: getattr(self, key) for key in _SINGLE}
        named: dict[str, str | int | None] = {f"factors.{name}": column for name, column in self.factors.items()}
        named |= {f"where.{column}": column for column in self.where}
        for name, column in self.metrics.items():
            if isinstance(column, Counted):
                named |= {f"metrics.{name}.correct": column.correct, f"metrics.{name}.total": column.total}
            else:
                named[f"metrics.{name}"] = column
        if self.seeds is not None:
            named |= {f"seeds.{name}": column for name, column in self.seeds.model_dump().items()}
        return {key: column for key, column in (single | named).items() if isinstance(column, str)}


@dataclass(frozen=True, slots=True)
class MappingFile:
    """A mapping with the text that it was read from, and where its keys stand in it."""

    mapping: Mapping
    file: str
    text: str
    tree: YamlTree

    def fault(self, key: str, message: str) -> Fault:
        """Return a fault of what `key`, such as `factors.model.size`, names."""
        root, _, rest = key.partition(".")
        return Fault(self.file, self.tree.line((root, rest) if rest else (root,)), key, message)


def read_mapping(path: Path) -> MappingFile:
    """Return the mapping in a file; raises ImportRefused with every fault."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImportRefused((Fault(str(path), 0, "", f"cannot be read: {error}"),)) from None
    return parse_mapping(text, str(path))


def parse_mapping(text: str, file: str) -> MappingFile:
    """Return the mapping in `text`; raises ImportRefused with every fault."""
    tree, faults = parse(text, file)
    if not isinstance(tree.data, dict):
        raise ImportRefused((Fault(file, 1, "", "a mapping of columns is a mapping of keys to values"),))
    mapping: Mapping | None = None
    try:
        mapping = Mapping.model_validate(tree.data)
    except ValidationError as error:
        for one in error.errors():
            keys, allowed = locate(Mapping, one["loc"])
            key = ".".join(map(str, keys))
            faults.append(Fault(file, tree.line(keys), key, describe(one, str(keys[-1]) if keys else "", allowed)))
    if mapping is not None:
        faults += [Fault(file, tree.line((key,)), key, message) for key, message in _contradictions(mapping)]
    if faults or mapping is None:
        raise ImportRefused(tuple(sorted(faults, key=lambda fault: fault.line)))
    return MappingFile(mapping, file, text, tree)


def _contradictions(mapping: Mapping) -> list[tuple[str, str]]:
    said = []
    is_counted = mapping.correct is not None
    is_long = mapping.metric is not None or mapping.value is not None or is_counted
    if is_long and (mapping.metric is None or (mapping.value is None and not is_counted)):
        said.append(("metric", "a long table has a column of names (metric) and one of values (value)"))
    if is_counted != (mapping.total is not None):
        said.append(("total", "what was counted has both: how many were right (correct), and of how many (total)"))
    if is_long == bool(mapping.metrics):
        said.append(("metrics", "give either metrics (wide), or metric and value (long)"))
    if mapping.seed is not None and mapping.seeds is not None:
        said.append(("seeds", "give either one seed, or seeds by name"))
    if mapping.seed is None and mapping.seeds is None and mapping.run is None:
        said.append(("seed", "runs are told apart by a seed, by seeds, or by run: name one column at least"))
    if mapping.scale and mapping.scale not in mapping.factors:
        said.append(("scale", f"{mapping.scale!r} is not a factor{near(mapping.scale, mapping.factors)}"))
    if mapping.metrics and mapping.success.metric not in mapping.metrics:
        said.append(
            ("success", f"{mapping.success.metric!r} is not a metric{near(mapping.success.metric, mapping.metrics)}")
        )
    return said
