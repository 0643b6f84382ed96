"""What one run is, as frozen, strict models: task, model, optimiser, training, schedules, seeds.

Everything here decides the weights or the rows of a run, so everything here is part of its identity.
What does not (placement, retries, the success rule) belongs to the study (`study.py`).
"""

from math import isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, RootModel, Tag, model_validator

from jobs.finetuning import FastForward, LowRank
from jobs.measures import Measure
from jobs.model_sizes import SIZES
from jobs.polca import PolcaSpec
from jobs.scalar import FiniteScalar, FractionScalar, NonNegativeScalar, PositiveScalar, ever
from jobs.schedule import Schedule

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Spec(BaseModel):
    """The manners of every model of a spec: frozen, strict, no unknown key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class TaskSpec(Spec):
    """Which task, with which parameters; `code` pins what the name meant.

    code  `version:N` of a built-in task, or `sha256:…` of the source of a user's own
    """

    name: str
    code: str
    parameters: dict[str, Any]


class GptSpec(Spec):
    """A transformer, pre-norm (Radford et al. 2019; the options as in Llama and GPT-NeoX).

    Weight matrices start from N(0, 1/fan_in), embeddings from N(0, embedding_std²), gains at 1, biases at 0.

    attention  what a position sees: itself and those before it (causal), or all of them (full)
    """

    family: Literal["gpt"]
    layers: Count
    width: Count
    heads: Count
    feedforward_multiple: Count = 4
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    activation: Literal["gelu", "swiglu"] = "gelu"
    positions: Literal["learned", "rotary"] = "learned"
    tied_head: bool = True
    embedding_std: Positive = 0.3
    attention: Literal["causal", "full"] = "causal"
    dropout: FractionScalar = 0.0

    @model_validator(mode="after")
    def _heads_fit(self) -> "GptSpec":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.width // self.heads}")
        return self


class MlpSpec(Spec):
    """A multilayer perceptron on the one-hot tokens of a sequence; answers at the last position only."""

    family: Literal["mlp"]
    layers: Count = 1
    width: Count
    activation: Literal["relu", "gelu", "tanh"] = "relu"
    dropout: FractionScalar = 0.0


class LstmSpec(Spec):
    """A recurrent model with memory cells (Hochreiter & Schmidhuber 1997), one layer upon the other.

    Matrices start from N(0, 1/width), embeddings from N(0, embedding_std²), biases at 0, and 1 is added to the forget
    gate. Widths that are multiples of 16 are fastest.
    """

    family: Literal["lstm"]
    layers: Count = 1
    width: Count
    tied_head: bool = True
    embedding_std: Positive = 0.3
    dropout: FractionScalar = 0.0


class HuggingFaceSpec(Spec):
    """A language model of `transformers`, by its `model_type`, such as gpt_neox, llama or bert.

    Vocabulary and context are the task's. Matrices and embeddings start from N(0, initializer_range²), gains at 1,
    biases at 0. In a study file `size: pythia-14m` stands for layers, width and heads (`jobs/model_sizes.py`); the
    identity holds the numbers.

    attention  causal: a causal language model; full: one for masked language modelling
    dropout    every rate of dropout that the configuration has
    config     anything else of the configuration, by its own names
    """

    huggingface: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    layers: Count
    width: Count
    heads: Count
    feedforward_multiple: Count = 4
    initializer_range: Positive = 0.02
    attention: Literal["causal", "full"] = "causal"
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _write_out_the_size(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "size" not in data:
            return data
        given = {key: value for key, value in data.items() if key != "size"}
        named = SIZES.get(data["size"]) if isinstance(data["size"], str) else None
        if named is None:
            raise ValueError(f"no size is called {data['size']!r}; there are {', '.join(SIZES)}")
        if given.get("huggingface", "gpt_neox") != "gpt_neox":
            raise ValueError(f"size {data['size']} is one of huggingface: gpt_neox")
        twice = sorted(set(named) & set(given))
        if twice:
            raise ValueError(f"size {data['size']} says {', '.join(twice)}: give one or the other")
        return {"huggingface": "gpt_neox", **named, **given}

    @model_validator(mode="after")
    def _heads_fit(self) -> "HuggingFaceSpec":
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self


class Given(RootModel[dict[str, JsonValue]]):
    """A part of a condition that a script is given as it stands: whatever keys, numbers and words it wants."""

    model_config = ConfigDict(frozen=True, strict=True)

    @model_validator(mode="after")
    def _numbers_are_finite(self) -> Self:
        if not _is_finite(self.root):
            raise ValueError("numbers are finite, because JSON knows no others")
        return self


def _is_finite(value: JsonValue) -> bool:
    if isinstance(value, dict | list):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or isfinite(value)


def _kind_of_model(data: Any) -> str | None:
    if isinstance(data, Given):
        return "Given"
    if isinstance(data, BaseModel):
        return "HuggingFaceSpec" if isinstance(data, HuggingFaceSpec) else str(getattr(data, "family", ""))
    if not isinstance(data, dict):
        return None
    return "HuggingFaceSpec" if "huggingface" in data or "size" in data else data.get("family")


Packable = GptSpec | MlpSpec | LstmSpec  # our own families, of which many runs make one model

ModelSpec = Annotated[
    Annotated[GptSpec, Tag("gpt")]
    | Annotated[MlpSpec, Tag("mlp")]
    | Annotated[LstmSpec, Tag("lstm")]
    | Annotated[HuggingFaceSpec, Tag("HuggingFaceSpec")]
    | Annotated[Given, Tag("Given")],
    Discriminator(
        _kind_of_model,
        custom_error_type="no_such_model",
        custom_error_message="a model is `family: gpt`, `mlp` or `lstm`, or `huggingface: TYPE`, such as gpt_neox",
    ),
]


class PackedSpec(Spec):
    """Many runs as one model with a leading run axis: for our own families; weights do not depend on threads."""

    name: Literal["packed"] = "packed"


class SingleSpec(Spec):
    """What engines that train one run at a time have in common; it changes numbers, so it is part of an id.

    processes   that train a run together, on one node
    threads     of the CPU, for each process
    """

    processes: Annotated[int, Field(ge=1, le=64)] = 1
    threads: Count = 1

    @model_validator(mode="after")
    def _threads_are_a_power_of_two(self) -> Self:
        if self.threads & (self.threads - 1):
            raise ValueError(f"threads is a power of two, not {self.threads}")
        return self


class ModuleSpec(SingleSpec):
    """What engines of whole modules have in common; all of it changes numbers, so all of it is part of an id.

    precision   of products and activations; weights, moments and the loss are float32
    accumulate  parts of a process's share that go through the model one after another
    recompute   activations are computed again on the way back instead of kept
    """

    precision: Literal["float32", "bf16"] = "float32"
    accumulate: Count = 1
    recompute: bool = False


class AccelerateSpec(ModuleSpec):
    """Whole torch modules, one run on one process or on several.

    sharding  of several processes: each has the whole model (ddp), or a part of it (fsdp: FSDP2)
    """

    name: Literal["accelerate"] = "accelerate"
    sharding: Literal["ddp", "fsdp"] = "ddp"


class DeepSpeedSpec(ModuleSpec):
    """Whole torch modules under DeepSpeed's ZeRO (Rajbhandari et al. 2020).

    stage    1: moments in parts; 2: gradients, too; 3: weights, too
    offload  moments, and the weights that are updated, lie in the CPU's memory, and it updates them (Ren et al. 2021)
    """

    name: Literal["deepspeed"]
    processes: Annotated[int, Field(ge=2, le=64)] = 2
    stage: Literal[1, 2, 3]
    offload: bool = False


class CommandSpec(SingleSpec):
    """A script of the user's, which trains one run and says what it measures (`workers/scripted.py`).

    command  the program and its arguments; `python` is the one that Seedbed runs under
    files    path below the study's folder → `sha256:…` of each file that goes along with the study
    """

    name: Literal["command"]
    command: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    files: dict[str, str] = Field(default_factory=dict)


EngineSpec = Annotated[PackedSpec | AccelerateSpec | DeepSpeedSpec | CommandSpec, Field(discriminator="name")]
SCRIPT_TASK = {"name": "script", "code": "given"}  # what stands for the task where a script has its own


class OptimizerSpec(Spec):
    """AdamW (Loshchilov & Hutter 2019) with warm-up and decay; the gradient's norm is clipped per run.

    Matrices and embeddings decay, gains and biases do not. `final_fraction` is the end of the decay as a
    fraction of the peak; warm-up and decay multiply a learning rate that is itself a function of the step.
    Without a `grad_clip_norm` (null) nothing is clipped.

    sharpness_radius    ρ of SAM: the gradient is that at w + ρ g/‖g‖, of each run by itself; two passes a step
    trust_region_noise  σ of TRAM-x: the radius is ρ times how much answers change with N(0, σ²) on the embeddings
    trust_region        TRAM by weights, in the place of noise: the radius is ρ times how much answers were changed by
                        the last update (previous), or since the run began (start): of a fork, since pretraining
    """

    name: Literal["adamw"] = "adamw"
    learning_rate: PositiveScalar
    weight_decay: NonNegativeScalar = 0.01
    beta1: FractionScalar = 0.9
    beta2: FractionScalar = 0.95
    epsilon: PositiveScalar = 1e-8
    grad_clip_norm: PositiveScalar | None = 1.0
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    final_fraction: Fraction = 0.1
    sharpness_radius: NonNegativeScalar = 0.0
    trust_region_noise: NonNegativeScalar = 0.0
    trust_region: Literal["previous", "start"] | None = None

    @model_validator(mode="after")
    def _a_trust_region_has_a_radius(self) -> Self:
        keys = ["trust_region_noise"] * ever(self.trust_region_noise) + ["trust_region"] * bool(self.trust_region)
        if keys and not ever(self.sharpness_radius):
            raise ValueError(f"{keys[0]} scales sharpness_radius, which is 0: give it, too")
        if len(keys) > 1:
            raise ValueError("trust_region measures by earlier weights, trust_region_noise by noise: give one of them")
        return self

    @property
    def has_trust_region(self) -> bool:
        """Return whether the radius is ever scaled by how much the answers change."""
        return bool(self.trust_region) or ever(self.trust_region_noise)


OptimizerPart = Annotated[
    Annotated[OptimizerSpec, Tag("OptimizerSpec")] | Annotated[Given, Tag("Given")],
    Discriminator(lambda data: "Given" if isinstance(data, Given) else "OptimizerSpec"),
]


class TrainingSpec(Spec):
    """How long, how many sequences a step, what is hidden of them, and weights of losses beside the cross-entropy.

    z_loss          of the mean squared log of the softmax's normaliser (PaLM: Chowdhery et al. 2022, section 5)
    masking         share of the tokens that are hidden and asked for: masked language modelling
    tree_attention  of the sum, over layers, heads and words of a batch, of the attention between a word and the one on
                    which it depends, both ways (Chen et al. 2024): above 0 suppresses it, below 0 promotes it
    low_rank        of a fork: adapters are trained, and nothing else (`finetuning.py`)
    fast_forward    updates are made again while a small set gets better
    """

    steps: Annotated[int, Field(ge=0)]
    batch_size: Count
    z_loss: NonNegativeScalar = 0.0
    masking: FractionScalar = 0.0
    tree_attention: FiniteScalar = 0.0
    low_rank: LowRank | None = None
    fast_forward: FastForward | None = None


class Condition(Spec):
    """One point of the grid: everything that decides a run except its seeds.

    measure  what probes measure beside the task's own sets; `weights`: statistics of the weights; `similarity`: of a
             run on a line, how alike its layers are to those of the other end, or, with options, of a run that is
             looked back at, to those at its other steps; `attention`: whether its heads find the
             word on which a word depends; `linear-probe`: whether a linear map reads the task's labels off its layers;
             `structural-probe`: whether a linear map of its layers puts words as far apart as their tree does;
             `interdependence`: how far two words put more into the state of a recurrent model than each of them;
             `shapley`: how far two inputs change an answer more than each of them;
             `cost`: FLOPs and examples since the run began;
             `harness`: what the lm-evaluation-harness asks (`measures.py`)
    polca    how the change of the parent's loss is taken apart along directions, of a fork that is only measured
    """

    task: TaskSpec
    model: ModelSpec
    optimizer: OptimizerPart
    training: TrainingSpec
    engine: EngineSpec
    probes: Schedule
    milestones: Schedule
    measure: Annotated[tuple[Measure, ...], Field(strict=False)] = ()
    polca: PolcaSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_the_engine(cls, data: Any) -> Any:
        """Without an engine a model has the one of its kind; one without a name is `command` or `accelerate`.

        What a script is given is taken as it stands.
        """
        if not isinstance(data, dict):
            return data
        whole = _kind_of_model(data.get("model")) == "HuggingFaceSpec"
        engine = data.get("engine", {"name": "accelerate" if whole else "packed"})
        if isinstance(engine, dict) and "name" not in engine:
            engine = {"name": "command" if "command" in engine else "accelerate", **engine}
        if isinstance(engine, dict) and engine["name"] == "command":
            data = {**data, **{part: _given(data.get(part)) for part in ("model", "optimizer")}}
        return {**data, "engine": engine}

    @model_validator(mode="after")
    def _parts_fit(self) -> "Condition":
        engine, model = self.engine, self.model
        if isinstance(engine, CommandSpec):
            if not _is_finite(self.task.parameters):
                raise ValueError("numbers are finite, because JSON knows no others")
            if self.measure or self.polca:
                raise ValueError("measure is of models that Seedbed has: a script reports its own measurements")
            return self
        looks_around = isinstance(self.optimizer, OptimizerSpec) and ever(self.optimizer.sharpness_radius)
        if looks_around and not isinstance(engine, PackedSpec):
            raise ValueError(f"{engine.name} has no second pass: optimizer.sharpness_radius is of engine packed")
        if isinstance(engine, PackedSpec):
            if isinstance(model, HuggingFaceSpec):
                raise ValueError("engine packed has models of its own: for huggingface it is accelerate or deepspeed")
            return self
        parts = engine.processes * engine.accumulate
        if self.training.batch_size % parts:
            told = f"batch_size {self.training.batch_size} is not a multiple of processes × accumulate = {parts}"
            raise ValueError(told)
        if engine.recompute and not isinstance(model, HuggingFaceSpec):
            raise ValueError("engine.recompute is for huggingface models")
        return self


def _given(part: Any) -> Any:
    return Given(part) if isinstance(part, dict) else part
