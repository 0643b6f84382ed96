"""What one run is, as frozen, strict models: task, model, optimiser, training, schedules, seeds.

Everything here decides the weights or the rows of a run, so everything here is part of its identity.
What does not (placement, retries, the success rule) belongs to the study (`study.py`).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jobs.scalar import FractionScalar, NonNegativeScalar, PositiveScalar
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
    """A decoder-only transformer, pre-norm (Radford et al. 2019; the options as in Llama and GPT-NeoX).

    Weight matrices start from N(0, 1/fan_in), embeddings from N(0, embedding_std²), gains at 1, biases at 0.
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


ModelSpec = Annotated[GptSpec | MlpSpec, Field(discriminator="family")]


class OptimizerSpec(Spec):
    """AdamW (Loshchilov & Hutter 2019) with warm-up and decay; the gradient's norm is clipped per run.

    Matrices and embeddings decay, gains and biases do not. `final_fraction` is the end of the decay as a
    fraction of the peak; warm-up and decay multiply a learning rate that is itself a function of the step.
    Without a `grad_clip_norm` (null) nothing is clipped.
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


class TrainingSpec(Spec):
    """How long, how many sequences a step, and the weight of a loss beside the cross-entropy.

    z_loss  weight of the mean squared log of the softmax's normaliser (PaLM: Chowdhery et al. 2022, section 5)
    """

    steps: Annotated[int, Field(ge=0)]
    batch_size: Count
    z_loss: NonNegativeScalar = 0.0


class Condition(Spec):
    """One point of the grid: everything that decides a run except its seeds.

    measure  what probes measure beside the task's own sets; `weights`: statistics of the weights
    """

    task: TaskSpec
    model: ModelSpec
    optimizer: OptimizerSpec
    training: TrainingSpec
    probes: Schedule
    milestones: Schedule
    measure: Annotated[tuple[Literal["weights"], ...], Field(strict=False)] = ()


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
