"""The study file: one question as a grid of conditions × a design of seeds.

    study: parity
    task: {name: parity, bits: 12, subset: 3}
    model: {family: gpt, layers: 1, width: 8, heads: 2}
    optimizer: {learning_rate: 3e-3}
    training: {steps: 1500, batch_size: 64}
    grid: {model.width: [4, 8, 16, 32]}
    seeds: {design: paired, count: 24}
    success: {metric: heldout.accuracy, threshold: 0.9}

`Study` is the file's own settings; `conditions` are the points of its grid, resolved and checked; `runs`
are conditions × seeds, each with its content id. Reading and checking a file is `study_file.py`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from jobs.fork import ForkPoint, ForkRule
from jobs.identity import canonical_json, run_id, run_spec
from jobs.measures import RuledMeasure
from jobs.origin import Origin
from jobs.schedule import Every, Schedule
from jobs.seeds import Seeds
from jobs.spec import Condition, Count, Spec
from jobs.stop import StopRule
from jobs.text.corpus import Place


def _own_resource(name: str) -> str:
    if name in ("CPU", "GPU", "memory", "object_store_memory"):
        raise ValueError(f"{name} is counted by Seedbed itself; for GPUs write `device: cuda`")
    return name


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
SeedNumber = Annotated[int, Field(ge=0, lt=2**32)]
ResourceName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$"), AfterValidator(_own_resource)]
LabelName = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
LabelValue = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
Tracker = Literal["wandb", "tensorboard"]
PARTS = ("task", "model", "optimizer", "training")  # of a condition, each a mapping that a file must have
FACTOR_ROOTS = (*PARTS, "engine", "polca")


class SuccessRule(Spec):
    """When a run counts as a success, declared before any result is seen.

    The score of a run is `metric` at its last step; a score ≥ threshold is a success. The onset is the first
    step from which the metric stays ≥ threshold for `sustained` probes in a row.
    """

    metric: str = "heldout.accuracy"
    threshold: float = 0.9
    sustained: Count = 3


class CheckpointRule(Spec):
    """Milestones are kept for ever; a rolling checkpoint is kept only until two newer ones are durable."""

    milestones: Schedule = ()
    rolling: Every = Every(every=500)


class ExecutionRule(Spec):
    """How the runs are carried out; nothing here changes a number, so nothing here is part of an id.

    pack_width  runs trained together in one process, or `calibrated`: measured on the device
    retries     further attempts that a run gets after a crash
    preemptions further attempts after something outside: a node, a signal, silence, the store
    packs_at_once  the most packs that train at once, or `machine`: as many as it holds
    priority    studies of one store with less of it make room while this one waits for it
    device      where packs train; a GPU may hold several, where that was measured to be faster
    resources   custom resources of Ray that every pack takes, such as {licence: 1}
    labels      labels of Ray that a node must have, such as {ray.io/market-type: on-demand}
    nodes       over which the processes of a run are spread, as many on each
    """

    pack_width: Count | Literal["calibrated"] = "calibrated"
    retries: Annotated[int, Field(ge=0)] = 3
    preemptions: Annotated[int, Field(ge=0)] = 100
    packs_at_once: Count | Literal["machine"] = "machine"
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    device: Literal["cpu", "cuda"] = "cpu"
    resources: dict[ResourceName, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    labels: dict[LabelName, LabelValue] = Field(default_factory=dict)
    nodes: Annotated[int, Field(ge=1, le=64)] = 1


class Paired(Spec):
    """One index drives every seed of a run: init, data and dropout all equal it."""

    design: Literal["paired"]
    count: Count
    first: SeedNumber = 0
    evaluation: SeedNumber = 0

    def seeds(self) -> Iterator[Seeds]:
        """Yield the seeds of each run of a condition."""
        for index in range(self.first, self.first + self.count):
            yield Seeds(init=index, data=index, dropout=index, evaluation=self.evaluation)


class Crossed(Spec):
    """Every init seed with every data seed: what variance components need. Dropout follows the data seed."""

    design: Literal["crossed"]
    init: Count
    data: Count
    first: SeedNumber = 0
    evaluation: SeedNumber = 0

    def seeds(self) -> Iterator[Seeds]:
        """Yield the seeds of each run of a condition, init-major."""
        indices = range(self.first, self.first + self.init), range(self.first, self.first + self.data)
        for init, data in product(*indices):
            yield Seeds(init=init, data=data, dropout=data, evaluation=self.evaluation)


class InitOnly(Spec):
    """Only the initial weights vary; data order and dropout are held at seed `data`."""

    design: Literal["init_only"]
    count: Count
    first: SeedNumber = 0
    data: SeedNumber = 0
    evaluation: SeedNumber = 0

    def seeds(self) -> Iterator[Seeds]:
        """Yield the seeds of each run of a condition."""
        for index in range(self.first, self.first + self.count):
            yield Seeds(init=index, data=self.data, dropout=self.data, evaluation=self.evaluation)


class DataOnly(Spec):
    """Only data order and dropout vary; the initial weights are held at seed `init`."""

    design: Literal["data_only"]
    count: Count
    first: SeedNumber = 0
    init: SeedNumber = 0
    evaluation: SeedNumber = 0

    def seeds(self) -> Iterator[Seeds]:
        """Yield the seeds of each run of a condition."""
        for index in range(self.first, self.first + self.count):
            yield Seeds(init=self.init, data=index, dropout=index, evaluation=self.evaluation)


SeedDesign = Annotated[Paired | Crossed | InitOnly | DataOnly, Field(discriminator="design")]
GridBlock = dict[str, list[Any]]


class StudySettings(Spec):
    """The keys of a study file, the parts of a condition still as written (`study_file.py` resolves them)."""

    study: Name
    question: str = ""
    paper: str = ""
    task: dict[str, Any]
    model: dict[str, Any]
    optimizer: dict[str, Any]
    training: dict[str, Any]
    engine: dict[str, Any] = Field(default_factory=dict)
    probes: Schedule = Every(every=50)
    measure: Annotated[tuple[RuledMeasure, ...], Field(strict=False)] = ()
    polca: dict[str, Any] | None = None
    checkpoints: CheckpointRule = CheckpointRule()
    success: SuccessRule = SuccessRule()
    scale: str = ""
    grid: GridBlock | list[GridBlock] = Field(default_factory=dict)
    seeds: SeedDesign
    fork: ForkRule | None = None
    stop: StopRule | None = None
    execution: ExecutionRule = ExecutionRule()
    track: Annotated[tuple[Tracker, ...], BeforeValidator(_as_tuple)] = ()


def label_of(factors: Iterable[tuple[str, Any]]) -> str:
    """Return factors as text, such as `model.width=8`; `all` for none."""
    pairs = (f"{name}={canonical_json(value).decode()}" for name, value in factors)
    return ", ".join(pairs).replace('"', "") or "all"


@dataclass(frozen=True, slots=True)
class GridPoint:
    """One condition of a study: its id, its factors with their values, the resolved spec, and where its runs begin."""

    id: str
    factors: tuple[tuple[str, Any], ...]
    condition: Condition
    spec: dict[str, Any]
    fork: ForkPoint | None = None

    @property
    def first_step(self) -> int:
        """Return the step at which its runs begin."""
        return self.fork.step if self.fork else 0

    @property
    def steps(self) -> int:
        """Return how many steps a run of it trains."""
        return self.condition.training.steps - self.first_step

    def seeds_and_origins(self, drawn: Sequence[Seeds]) -> Iterator[tuple[Seeds, Origin | None]]:
        """Yield what tells its runs apart, given the seeds of the design."""
        yield from self.fork.children(drawn) if self.fork else ((seeds, None) for seeds in drawn)

    @property
    def label(self) -> str:
        """Return the factors as text, such as `model.width=8`; `all` where the grid is empty."""
        return label_of(self.factors)


@dataclass(frozen=True, slots=True)
class Run:
    """The unit of replication: a condition plus seeds, and for a fork its origin."""

    id: str
    point: GridPoint
    seeds: Seeds
    origin: Origin | None = None

    @property
    def spec(self) -> dict[str, Any]:
        """Return the resolved spec, of which `id` is the hash."""
        return run_spec(self.point.spec, self.seeds, self.origin)


@dataclass(frozen=True)
class Study:
    """A checked study: its settings, its file's text, its conditions, and from them its runs.

    task_sources  the `code` of each user's own task → the text of its file (empty where all are built in)
    folder        where the files of such tasks lie
    corpora       what its tasks read, and where it lies
    counts        condition → number of seeds, where a stop rule has given more than the first batch
    texts         path → text of the files of its scripts, and of tasks for the harness
    """

    settings: StudySettings
    text: str
    points: tuple[GridPoint, ...]
    task_sources: dict[str, str]
    folder: Path
    corpora: tuple[Place, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def where(self, digest: str) -> str:
        """Return the address of the corpus with this digest; raises KeyError for one that no task of it reads."""
        return {place.digest: place.url for place in self.corpora}[digest]

    @property
    def name(self) -> str:
        """Return the name of the study."""
        return self.settings.study

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Return every declared run, condition by condition in the order of the grid, seeds ascending."""
        return tuple(
            Run(run_id(run_spec(point.spec, mine, origin)), point, mine, origin)
            for point in self.points
            for mine, origin in point.seeds_and_origins(self._seeds(point.id))
        )

    def _seeds(self, condition_id: str) -> tuple[Seeds, ...]:
        design = self.settings.seeds
        if condition_id in self.counts:
            design = design.model_copy(update={"count": self.counts[condition_id]})
        return tuple(design.seeds())

    @property
    def first_batch(self) -> int:
        """Return how many seeds a condition has before any stop rule has looked."""
        return sum(1 for _ in self.settings.seeds.seeds())

    @property
    def scale(self) -> str:
        """Return the factor on the x axis: the one named in the file, else the only one that varies in number."""
        if self.settings.scale:
            return self.settings.scale
        values: dict[str, set[float]] = {}
        for point in self.points:
            for name, value in point.factors:
                if isinstance(value, int | float) and not isinstance(value, bool):
                    values.setdefault(name, set()).add(float(value))
        varying = [name for name, seen in values.items() if len(seen) > 1]
        return varying[0] if len(varying) == 1 else ""
