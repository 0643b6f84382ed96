"""One run's module under DeepSpeed's ZeRO: moments, gradients and weights in parts, by stage.

DeepSpeed makes the update; its numbers are ours. In float32 all is float32; with bf16 the module itself is bf16, and
DeepSpeed keeps float32 weights and moments, which are what a checkpoint holds.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib import reload
from typing import Any

import torch
from torch import Tensor, nn

from jobs.spec import Condition, DeepSpeedSpec
from workers.engines import MODEL
from workers.engines.adamw import FIRST, SECOND, ModuleAdamW
from workers.engines.layouts import BUFFER, FIRST_MOMENT, MOMENTS, Objective, blanks_of, parameter_of
from workers.engines.world import World
from workers.models.family import Parameter
from workers.models.huggingface import HuggingFace, library
from workers.models.whole import Whole
from workers.optimizer import Rates
from workers.parts import Piece

_WITHOUT_NORM = 0.0  # DeepSpeed's word for: nothing is clipped
_SILENT = 1 << 40  # steps between two of its lines


class ZeroLayout:
    """The layout of engine `deepspeed`."""

    def __init__(
        self, whole: Whole, parameters: Sequence[Parameter], spec: DeepSpeedSpec, condition: Condition, world: World
    ) -> None:
        _begin_anew()
        self.whole, self.spec, self.world = whole, spec, world
        if spec.recompute and isinstance(whole, HuggingFace):
            whole.recompute()
        self.values: dict[str, nn.Parameter] = dict(whole.model.named_parameters())
        self.buffers = {n: b for n, b in whole.model.named_buffers() if n in whole.model.state_dict()}
        self._blanks = blanks_of(self.values, self.buffers)
        decays = {parameter.name: parameter.decays for parameter in parameters}
        decayed = [value for name, value in self.values.items() if decays[name]]
        self.adamw = ModuleAdamW(decayed, [value for name, value in self.values.items() if not decays[name]])
        accelerate: Any = library("accelerate", "engine deepspeed")
        plugin = accelerate.DeepSpeedPlugin(hf_ds_config=_configuration(spec, condition))
        backend = accelerate.utils.InitProcessGroupKwargs(backend="nccl" if world.device.type == "cuda" else "gloo")
        accelerator = world.accelerator(
            spec,
            cpu=None,
            deepspeed_plugin=plugin,
            kwargs_handlers=[backend],
            gradient_accumulation_steps=spec.accumulate,
        )
        self._engine, _ = accelerator.prepare(whole, self.adamw)
        self._make_moments()
        # Left behind, it would make the next model of this process in parts, and wait for others to do so.
        library("transformers.integrations.deepspeed", "engine deepspeed").unset_hf_deepspeed_config()

    def _make_moments(self) -> None:
        """Have moments before the first step, of every group: DeepSpeed finds those of the first group alone."""
        sharded = self._engine.optimizer
        if self.spec.stage == 3:
            for part in sharded.fp32_partitioned_groups_flat:
                self.adamw.moments(part)
            return
        for part in sharded.single_partition_of_fp32_groups:
            self.adamw.moments(part)
        sharded._lazy_init_hp_params_optimizer_state()  # noqa: SLF001

    def logits(self, tokens: Tensor, drop: Any) -> Tensor:
        """Return float32 logits [batch, answers, vocabulary]."""
        out: Tensor = self._engine(tokens, drop)
        return out.float()

    def learn(self, tokens: Tensor, drop: Any, objective: Objective, *, is_last: bool) -> None:
        """Add the gradient of a part's objective."""
        # DeepSpeed divides by the number of parts; the objective is a sum over them.
        self._engine.backward(objective(self.logits(tokens, drop)) * self.spec.accumulate)
        if not is_last:
            self._engine.step()

    def update(self, rates: Rates, clip: float | None) -> float:
        """Clip and update; returns the norm before clipping."""
        self._engine.optimizer.clip_grad = clip or _WITHOUT_NORM
        self.adamw.rates = rates
        self._engine.step()
        return float(self._engine.get_global_grad_norm())

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield float32 weights, whole, and buffers that are saved."""
        utils: Any = library("deepspeed.utils", "engine deepspeed")
        for name, value in self.values.items():
            yield f"model.{name}", utils.safe_get_full_fp32_param(value).detach().clone()
        yield from ((f"buffer.{name}", buffer) for name, buffer in self.buffers.items())

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """Yield both moments by parameter, whole."""
        utils: Any = library("deepspeed.utils", "engine deepspeed")
        for name, value in self.values.items():
            for kind, key in (("first", FIRST), ("second", SECOND)):
                moment = utils.safe_get_full_optimizer_state(value, key)
                yield f"adamw.{kind}.{name}", moment.detach().clone().view(self._blanks[f"model.{name}"].shape)

    def pieces(self) -> dict[str, Piece]:
        """Return the range of each moment that lies on this process, where some of it does."""
        found = {}
        for name, value in self.values.items():
            for kind, key in (("first", FIRST), ("second", SECOND)):
                begin, values = self._part(value, key)
                if len(values):
                    whole = tuple(self._blanks[f"model.{name}"].shape)
                    found[f"adamw.{kind}.{name}"] = Piece(values.detach(), (begin,), whole)
        return found

    def _part(self, value: Any, key: str) -> tuple[int, Tensor]:
        """Return where this process's part of a moment begins, counted flat, and the part."""
        if self.spec.stage == 3:
            utils: Any = library("deepspeed.utils", "engine deepspeed")
            begin = value.ds_tensor.ds_numel * self.world.rank
            part: Tensor = utils.safe_get_local_optimizer_state(value, key)
            return begin, part[: max(0, value.ds_numel - begin)]  # the last part is filled up
        place = value._hp_mapping  # noqa: SLF001  (what DeepSpeed's own safe_get_… reads)
        if place is None:
            return 0, torch.empty(0)
        return place.lp_fragment_address.start, place.get_optim_state_fragment(key)

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take what `state` holds; raises KeyError or RuntimeError where it is another model's."""
        for name in sorted(state):
            tensor = state[name].to(self.world.device)
            if name.startswith(BUFFER):
                self.buffers[name.removeprefix(BUFFER)].copy_(tensor)
            elif name.startswith(MOMENTS):
                self._set_moment(name, tensor)
            else:
                self._set_weights(self.values[name.removeprefix(MODEL)], tensor)

    def _set_weights(self, value: Any, weights: Tensor) -> None:
        utils: Any = library("deepspeed.utils", "engine deepspeed")
        gathered: Any = library("deepspeed", "engine deepspeed").zero.GatheredParameters
        if self.spec.stage == 3:
            utils.safe_set_local_fp32_param(value, self._share(value, weights))
        else:
            utils.safe_set_full_fp32_param(value, weights)
        # What the module computes with is another copy, which the next step alone would renew.
        with gathered([value], modifier_rank=0, enabled=self.spec.stage == 3), torch.no_grad():
            value.copy_(weights)

    def _set_moment(self, name: str, moment: Tensor) -> None:
        utils: Any = library("deepspeed.utils", "engine deepspeed")
        value, key = self.values[parameter_of(name)], _key_of(name)
        if self.spec.stage == 3:
            utils.safe_set_local_optimizer_state(value, self._share(value, moment), key)
        else:
            utils.safe_set_full_optimizer_state(value, moment, key)

    def fill(self, name: str, values: Tensor) -> None:
        """Write the range of a moment that lies on this process."""
        value: Any = self.values[parameter_of(name)]
        if self.spec.stage == 3:
            utils: Any = library("deepspeed.utils", "engine deepspeed")
            whole = torch.nn.functional.pad(values, (0, value.ds_tensor.ds_numel - len(values)))
            utils.safe_set_local_optimizer_state(value, whole, _key_of(name))
        else:
            self._part(value, _key_of(name))[1].copy_(values)

    def _share(self, value: Any, whole: Tensor) -> Tensor:
        """Return this process's part of a tensor, filled up: DeepSpeed's own cut fails where parts are not equal."""
        size = value.ds_tensor.ds_numel
        mine = whole.flatten()[size * self.world.rank :][:size]
        return torch.nn.functional.pad(mine, (0, size - len(mine)))

    def blanks(self) -> dict[str, Tensor]:
        """Return tensors of the names, shapes and types of the state, in one order, without values."""
        return self._blanks


def _key_of(moment: str) -> str:
    return FIRST if moment.startswith(FIRST_MOMENT) else SECOND


def _begin_anew() -> None:
    """Let DeepSpeed forget the processes of an earlier run of this process; raises ModelError without DeepSpeed."""
    library("deepspeed", "engine deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it writes to standard output, which is not its own
    comm: Any = library("deepspeed.comm.comm", "engine deepspeed")
    comm.cdb = None
    reload(library("deepspeed.utils.groups", "engine deepspeed"))
    # It numbers parameters and modules through the life of a process, and the processes of a run have to agree on them.
    library("deepspeed.runtime.zero.partition_parameters", "engine deepspeed").Init.param_id = 0
    offload: Any = library("deepspeed.runtime.zero.parameter_offload", "engine deepspeed").DeepSpeedZeRoOffload
    offload._register_deepspeed_module.__defaults__[0][0] = 0  # noqa: SLF001
    # Its communication over shared memory would be compiled for minutes, and leaves 69 MB files behind.
    library("deepspeed.ops", "engine deepspeed").__compatible_ops__["deepspeed_shm_comm"] = False


def _configuration(spec: DeepSpeedSpec, condition: Condition) -> dict[str, Any]:
    batch = condition.training.batch_size
    sharding: dict[str, Any] = {"stage": spec.stage}
    if spec.offload:
        sharding["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_batch_size": batch,
        "train_micro_batch_size_per_gpu": batch // (spec.processes * spec.accumulate),
        "gradient_accumulation_steps": spec.accumulate,
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its own would be compiled, and round otherwise
        "bf16": {"enabled": spec.precision == "bf16"},
        "steps_per_print": _SILENT,
    }
