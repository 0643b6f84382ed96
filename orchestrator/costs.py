"""What training takes of a device, before anything runs: FLOPs, memory and hours of whole modules, hours of packs.

Formulas, not measurements: FLOPs of `jobs/flops.py`, weights, gradients and moments as in ZeRO (Rajbhandari et al.
2020, section 3), activations as in Korthikanti et al. 2022 (equation 2 without the part that fused attention does not
keep). A process's own few hundred MB, and what an allocator leaves unused, come on top.
"""

from dataclasses import dataclass

from jobs.flops import Sizes, training_flops
from jobs.spec import AccelerateSpec, Condition, DeepSpeedSpec, HuggingFaceSpec, ModuleSpec, PackedSpec

UTILISATION = 0.4  # of the peak: what well-made training of such models reached (PaLM, table 3: 0.21 to 0.46)
_KEPT_PER_VALUE = 34  # bytes of 16-bit activations for each value of a layer's input
_FLOAT, _HALF = 4, 2
_COPIES = 5  # of a pack's weights: themselves, gradients, two moments, and what an update is worked out in
_LOGIT_COPIES = 3  # logits, their log-softmax, its gradient


@dataclass(frozen=True, slots=True)
class Device:
    """A device by its data sheet: peak FLOP/s of dense products by precision, and its memory."""

    name: str
    bf16: float
    float32: float
    memory_bytes: float


# NVIDIA's data sheets, without sparsity; float32 without TF32, which is switched off here.
DEVICES = (
    Device("H200", 989e12, 67e12, 141e9),
    Device("H100", 989e12, 67e12, 80e9),
    Device("A100", 312e12, 19.5e12, 80e9),
    Device("L40S", 362e12, 91.6e12, 48e9),
    Device("RTX 4090", 165e12, 82.6e12, 24e9),
)


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device of one process."""

    weights: int
    gradients: int
    moments: int
    activations: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.weights + self.gradients + self.moments + self.activations


@dataclass(frozen=True, slots=True)
class Hours:
    """Device-hours of all runs that are left, on one kind of device, and whether a process fits on one."""

    device: str
    hours: float
    fits: bool


@dataclass(frozen=True, slots=True)
class Cost:
    """What the runs of a condition take; `flops` are those that are computed, with what is computed twice."""

    flops: int
    memory: Memory
    hours: tuple[Hours, ...]
    utilisation: float = UTILISATION


def cost(condition: Condition, parameters: int, vocabulary: int, length: int, tokens: int) -> Cost | None:
    """Return what `tokens` of training take of a device; None for seed-batched models, which are measured."""
    engine, model = condition.engine, condition.model
    if not isinstance(engine, ModuleSpec) or not isinstance(model, HuggingFaceSpec):
        return None
    flops = training_flops(condition, Sizes.whole(parameters), length, tokens)
    if engine.recompute:
        flops = flops * 4 // 3  # the way forward twice
    memory = _memory(condition, model, engine, parameters, vocabulary, length)
    return Cost(flops, memory, _hours(flops, memory.total, is_half=engine.precision == "bf16"))


def pack_hours(condition: Condition, parameters: int, flops: int) -> tuple[Hours, ...]:
    """Return the device-hours of seed-batched models, which compute in float32; empty for others.

    At `UTILISATION` of the peak, which narrow models do not reach: `seedbed run` measures what they do. `fits` says
    whether the state of one run does.
    """
    if not isinstance(condition.engine, PackedSpec):
        return ()
    return _hours(flops, _COPIES * _FLOAT * parameters, is_half=False)


def _hours(flops: int, needed_bytes: int, *, is_half: bool) -> tuple[Hours, ...]:
    return tuple(
        Hours(
            device.name,
            flops / ((device.bf16 if is_half else device.float32) * UTILISATION) / 3600,
            needed_bytes <= device.memory_bytes,
        )
        for device in DEVICES
    )


def _memory(
    condition: Condition, model: HuggingFaceSpec, engine: ModuleSpec, parameters: int, vocabulary: int, length: int
) -> Memory:
    weights, gradients, moments = parameters * _FLOAT, parameters * _FLOAT, 2 * parameters * _FLOAT
    if isinstance(engine, AccelerateSpec) and engine.sharding == "fsdp":
        weights, gradients, moments = (-(-size // engine.processes) for size in (weights, gradients, moments))
    if isinstance(engine, DeepSpeedSpec):
        weights, gradients, moments = _zero(engine, parameters)
    rows = condition.training.batch_size // (engine.processes * engine.accumulate)
    values = rows * length * model.width
    size = _HALF if engine.precision == "bf16" else _FLOAT
    layer = values * _KEPT_PER_VALUE * size // _HALF
    kept = model.layers * values * size + layer if engine.recompute else model.layers * layer
    return Memory(weights, gradients, moments, kept + _LOGIT_COPIES * rows * length * vocabulary * _FLOAT)


def _zero(engine: DeepSpeedSpec, parameters: int) -> tuple[int, int, int]:
    """Return weights, gradients, and moments with the master copy of weights that bf16 needs; of the device alone."""
    is_half = engine.precision == "bf16"
    size = _HALF if is_half else _FLOAT
    master = parameters * _FLOAT if is_half else 0
    moments = 0 if engine.offload else -(-(2 * parameters * _FLOAT + master) // engine.processes)
    gradients = parameters * size if engine.stage < 2 else -(-parameters * size // engine.processes)
    weights = parameters * size if engine.stage < 3 else -(-parameters * size // engine.processes)
    return weights, gradients, moments
