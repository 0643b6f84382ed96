"""Many runs as one model with a leading run axis, on one device.

On a CPU a run's bits do not depend on the pack: products are batched over runs, every sum stays inside a run and
in a fixed order, and parts are padded so that no value meets other code in another slot.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from jobs.flops import forward_flops
from jobs.scalar import at
from jobs.seeds import Streams
from jobs.spec import Condition, Given, HuggingFaceSpec
from jobs.tasks.task import IGNORE
from workers.attention_trees import tree_slope
from workers.engines import MODEL, SHOWN, Integers
from workers.fast_forward import Forward
from workers.low_rank import adapters, merged
from workers.models.family import Parameter, Seen
from workers.models.whole import family_of
from workers.optimizer import CHUNK, AdamW
from workers.parts import Cut
from workers.sharpness import TRUST, Noise, divergence, uphill

_EVALUATED_AT_ONCE = 256  # items of each run; fixed, so that it cannot change a bit


class PackedEngine:
    """The engine of seed-batched models; see `Engine` for its fields and methods."""

    def __init__(
        self,
        condition: Condition,
        vocabulary_size: int,
        length: int,
        streams: Sequence[Streams],
        device: str = "cpu",
        first_answer: int = 0,
        validation: tuple[Integers, Integers] | None = None,
    ) -> None:
        """Have the initial weights; `validation` inputs and targets [run, items, length] decide how far updates go."""
        if isinstance(condition.model, HuggingFaceSpec | Given) or isinstance(condition.optimizer, Given):
            raise TypeError(f"{type(condition.model).__name__} has no seed-batched form")
        self.family = family_of(condition.model, vocabulary_size, length, first_answer)
        self.streams, self.device = tuple(streams), torch.device(device)
        self.dropout, self.z_loss = condition.model.dropout, condition.training.z_loss
        self.tree_attention = condition.training.tree_attention
        self.radius, self.noise = condition.optimizer.sharpness_radius, condition.optimizer.trust_region_noise
        self.region = condition.optimizer.trust_region
        runs = len(self.streams)
        self.losses, self.grad_norms = np.zeros(runs), np.zeros(runs)
        self.diverged_at = np.full(runs, -1, np.int64)
        self.cuts: Sequence[Cut] = ()
        rule, forward = condition.training.low_rank, condition.training.fast_forward
        self.low_rank, self.validation = rule, validation
        looked_at = validation[0][0].size if validation else 0
        flops = forward_flops(sum(p.size for p in self.family.parameters), looked_at)
        self.forward = Forward(forward, runs, self.device, flops) if forward and validation else None
        trained = adapters(rule, self.family.parameters) if rule else self.family.parameters
        self._frozen = {p.name: self._drawn(p) for p in self.family.parameters} if rule else {}
        parameters = sorted(trained, key=lambda p: not p.decays)
        self._places, end = {}, 0
        for parameter in parameters:
            self._places[parameter.name] = (end, end + parameter.size, parameter.shape)
            end += parameter.size
        weights = torch.zeros(runs, -(-end // CHUNK) * CHUNK, device=self.device)
        decayed = sum(parameter.size for parameter in parameters if parameter.decays)
        self.optimizer = AdamW(condition.optimizer, condition.training.steps, weights, decayed)
        self.values = self._views(weights)
        for parameter in parameters:
            self.values[parameter.name].copy_(self._drawn(parameter))
        for value in self.values.values():
            value.requires_grad_()
        self._trusted = weights.clone() if self.region else None
        self._gradients = list(self._views(self.optimizer.gradients).values())
        self._state = self._everything()

    def _views(self, flat: Tensor) -> dict[str, Tensor]:
        return {name: flat[:, a:b].view(-1, *shape) for name, (a, b, shape) in self._places.items()}

    def _drawn(self, parameter: Parameter) -> Tensor:
        return torch.from_numpy(np.stack([parameter.draw(stream) for stream in self.streams])).to(self.device)

    def _whole(self, values: Mapping[str, Tensor] | None = None) -> Mapping[str, Tensor]:
        """Return what the model computes with, by name [run, …], with other values of what is trained where given."""
        trained = self.values if values is None else values
        return merged(self.low_rank, {**self._frozen, **trained}) if self.low_rank else trained

    def train_step(self, step: int, inputs: Integers, targets: Integers, heads: Integers | None = None) -> None:
        """Make update number `step` with inputs and targets [run, batch, length]."""
        optimizer, radius = self.optimizer, at(self.radius, step)
        tokens, asked = self._tensor(inputs), self._tensor(targets)[:, :, self.family.first_answer :]
        losses = self._learn(step, tokens, asked, heads)
        norms = optimizer.norms()
        if radius:
            radii = radius * self._trust(step, tokens, asked)
            with uphill(optimizer.weights, optimizer.gradients, norms, radii):
                self._learn(step, tokens, asked, heads)
            norms = optimizer.norms()
        self.losses, self.grad_norms = losses.double().cpu().numpy(), norms.double().cpu().numpy()
        self._note_divergence(step)
        optimizer.clip(norms, step)
        before = optimizer.weights.clone() if self.forward and self.forward.is_due(step) else None
        if self.region == "previous" and self._trusted is not None:
            self._trusted.copy_(optimizer.weights)
        self._update(step)
        if self.forward and before is not None:
            alive = torch.from_numpy(self.diverged_at < 0).to(self.device)
            self.forward.go_on(optimizer.weights, before, alive, self._validated)

    @torch.no_grad()
    def _validated(self) -> Tensor:
        """Return each run's loss on the small set that decides how far updates go on [run]."""
        if self.validation is None:
            raise ValueError("there is no set on which to validate")
        inputs, targets = map(self._tensor, self.validation)
        log_p = F.log_softmax(self.family.logits(self._whole(), inputs, _keep), dim=-1)
        return _mean_losses(log_p, targets[:, :, self.family.first_answer :])[0]

    @torch.no_grad()
    def _trust(self, step: int, tokens: Tensor, asked: Tensor) -> Tensor:
        """Return how much each run's answers change in its trust region [run]; without one 1."""
        spread, drop, mine = at(self.noise, step), self._drop_at, self._whole()
        if self._trusted is not None:  # with the same masks, so that equal weights are no distance apart
            other = self.family.logits(self._whole(self._views(self._trusted)), tokens, drop(step))
        elif spread:
            other = self.family.logits(mine, tokens, Noise(spread, self.streams, step, drop(step)))
        else:
            return torch.ones(len(tokens), device=self.device)
        plain = F.log_softmax(self.family.logits(mine, tokens, drop(step)), dim=-1)
        return divergence(F.log_softmax(other, dim=-1), plain, _mean_losses(plain, asked)[1])

    def _learn(self, step: int, tokens: Tensor, asked: Tensor, heads: Integers | None) -> Tensor:
        """Put the gradient at the weights as they stand in its place; returns each run's loss [run]."""
        seen = Seen(maps=[]) if heads is not None and at(self.tree_attention, step) else None
        logits = self.family.logits(self._whole(), tokens, self._drop_at(step), seen)
        with torch.no_grad():
            log_p = F.log_softmax(logits, dim=-1)
            losses, weight = _mean_losses(log_p, asked)
            slope = self._probabilities(logits, log_p, step)
            known = asked.clamp(min=0)[..., None]
            slope.scatter_add_(-1, known, slope.new_full((), -1.0).expand(known.shape))
            slope.mul_(weight[..., None])
        ends, slopes = [logits], [slope]
        if seen and seen.maps and heads is not None:
            pull = tree_slope(self._tensor(heads).flatten(0, 1), at(self.tree_attention, step))
            ends += seen.maps
            slopes += [pull.expand_as(found) for found in seen.maps]
        found = torch.autograd.grad(ends, list(self.values.values()), slopes)
        for kept, gradient in zip(self._gradients, found, strict=True):
            kept.copy_(gradient)
        return losses

    def _probabilities(self, logits: Tensor, log_p: Tensor, step: int) -> Tensor:
        """Return the softmax in the place of `log_p`, scaled by the slope of the z-loss where there is one."""
        weight = at(self.z_loss, step)
        if not weight:
            return log_p.exp_()
        log_z = logits[..., :1] - log_p[..., :1]
        return log_p.exp_().mul_(log_z.mul_(2 * weight).add_(1.0))

    def _note_divergence(self, step: int) -> None:
        lost = ~(np.isfinite(self.losses) & np.isfinite(self.grad_norms)) & (self.diverged_at < 0)
        self.diverged_at[lost] = step

    def _update(self, step: int) -> None:
        optimizer = self.optimizer
        dead = np.flatnonzero(self.diverged_at >= 0)
        buffers = (optimizer.weights, optimizer.first, optimizer.second)
        kept = [buffer[dead] for buffer in buffers] if len(dead) else []
        with torch.no_grad():
            optimizer.update(step)
            for buffer, part in zip(buffers, kept, strict=False):
                buffer[dead] = part

    @torch.no_grad()
    def evaluate(self, inputs: Integers, targets: Integers) -> tuple[Integers, NDArray[np.float32]]:
        """Return the likeliest token and the loss at each position, [run, items, length] each."""
        predicted, losses = np.zeros(inputs.shape, np.int64), np.zeros(inputs.shape, np.float32)
        first = self.family.first_answer
        for start in range(0, inputs.shape[1], _EVALUATED_AT_ONCE):
            some = slice(start, start + _EVALUATED_AT_ONCE)
            log_p = F.log_softmax(self.family.logits(self._whole(), self._tensor(inputs[:, some]), _keep), dim=-1)
            asked = self._tensor(targets[:, some, first:])
            nll = -log_p.gather(-1, asked.clamp(min=0)[..., None])[..., 0]
            predicted[:, some, first:] = log_p.argmax(-1).cpu().numpy()
            losses[:, some, first:] = nll.masked_fill_(asked == IGNORE, 0.0).cpu().numpy()
        return predicted, losses

    @torch.no_grad()
    def hidden(self, inputs: Integers) -> list[Tensor]:
        """Return what each layer makes of the first items of inputs [run, items, length]: [run, row, width]."""
        seen = Seen()
        self.family.logits(self._whole(), self._tensor(inputs[:, :SHOWN]), _keep, seen)
        return seen.layers

    @torch.no_grad()
    def attention(self, inputs: Integers) -> list[Tensor]:
        """Return each layer's weights of attention, [run, item, head, from, to], for inputs [run, item, length]."""
        seen = Seen(maps=[])
        self.family.logits(self._whole(), self._tensor(inputs), _keep, seen)
        return [found.view(*inputs.shape[:2], *found.shape[1:]) for found in seen.maps or ()]

    def state(self) -> dict[str, Tensor]:
        """Return weights and both moments by parameter, each [run, …]: what training writes to, not copies."""
        return dict(self._state)

    def weights(self) -> dict[str, Tensor]:
        """Return the parameters, each [run, …], adapters in their matrices; without adapters no copies."""
        if self.low_rank:
            return {f"{MODEL}{name}": value.detach() for name, value in self._whole().items()}
        return {name: tensor for name, tensor in self._state.items() if name.startswith(MODEL)}

    def _everything(self) -> dict[str, Tensor]:
        # Once: 48 views take longer to make than the weights of a small pack to copy, and the loop would stand still.
        optimizer = self.optimizer
        kinds = {"model": optimizer.weights, "adamw.first": optimizer.first, "adamw.second": optimizer.second}
        found = {
            f"{kind}.{name}": view.detach() for kind, flat in kinds.items() for name, view in self._views(flat).items()
        }
        found |= {f"{MODEL}{name}": tensor for name, tensor in self._frozen.items()}
        if self._trusted is not None:
            found |= {f"{TRUST}{name}": view for name, view in self._views(self._trusted).items()}
        return found | dict(self.forward.state() if self.forward else {})

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`; raises KeyError or RuntimeError where it is another model's."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

    def close(self) -> None:
        """Have nothing to end."""

    def _tensor(self, array: Integers) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _drop_at(self, step: int) -> "_Dropout | _Keep":
        rate = at(self.dropout, step)
        return _Dropout(rate, self.streams, step) if rate else _keep


class _Keep:
    """Drops nothing."""

    def __call__(self, values: Tensor) -> Tensor:
        return values


_keep = _Keep()


class _Dropout:
    """The dropout masks of one step: drawn run by run, site after site, from the run's own stream."""

    def __init__(self, rate: float, streams: Sequence[Streams], step: int) -> None:
        self.rate, self.generators = rate, [stream.dropout(step) for stream in streams]

    def __call__(self, values: Tensor) -> Tensor:
        shape = values.shape[1:]
        kept = np.stack([generator.random(shape, np.float32) >= self.rate for generator in self.generators])
        return values * torch.from_numpy(kept).to(values.device) / (1 - self.rate)


def _mean_losses(log_p: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return each run's mean loss over its targets [run], and each position's weight in it [run, batch, answers]."""
    counted = targets != IGNORE
    weight = counted.float()
    weight /= weight.sum(2).sum(1).clamp_(min=1)[:, None, None]
    nll = -log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    return (nll.masked_fill_(~counted, 0.0) * weight).sum(2).sum(1), weight
