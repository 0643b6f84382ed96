"""Probes: what a pack's runs get right on their held-out sets, as rows of `metrics`.

Each held-out set gives what the task measures (k correct of m, or a mean) and `<set>.loss`, the mean cross-entropy
over its targets in nats. `train.loss` and `train.grad_norm` are means over the steps since the last probe.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from jobs.faults import near
from jobs.measures import Asked, ShapleySpec, StepsSpec, shapleys_in, steps_in
from jobs.polca import PolcaSpec
from jobs.records import Status
from jobs.seeds import Streams
from jobs.tasks.task import IGNORE, Batch, Mean, Score, Task
from workers.attention_trees import Look, spans, tree_measures
from workers.batches import check_batch
from workers.crew import Crew, Member
from workers.effort import Effort
from workers.engines import Engine, Layered, parameters_of
from workers.engines.packed import PackedEngine
from workers.fast_forward import Forward
from workers.harness import Harness
from workers.interdependence import interdependence_measures
from workers.linear_probe import LOOKED_AT, checked_labels, first_items, probe_measures
from workers.memory import is_out_of_memory
from workers.polca import Past, polca_rows
from workers.shapley_probe import Questions, asked_of, questions_of, shapley_measures
from workers.similarity import similarities
from workers.steps_alike import rows_over_steps
from workers.structural_probe import structure_measures
from workers.weight_statistics import weight_statistics

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """Sums of what every training step reports, between two probes; part of a checkpoint."""

    loss: NDArray[np.float64]
    grad_norm: NDArray[np.float64]
    steps: NDArray[np.int64]

    @classmethod
    def empty(cls, runs: int) -> "Tally":
        """Return a tally of nothing for `runs` runs."""
        return cls(np.zeros(runs), np.zeros(runs), np.zeros(runs, np.int64))

    def add(self, engine: Engine) -> None:
        """Add what the engine's last step reported, run by run."""
        self.loss += engine.losses
        self.grad_norm += engine.grad_norms
        self.steps += 1

    def state(self) -> dict[str, torch.Tensor]:
        """Return the sums as tensors with a leading run axis."""
        return {name: torch.from_numpy(sums.copy()) for name, sums in self._sums().items()}

    def load(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from the sums in `state`."""
        for name, sums in self._sums().items():
            sums[:] = state[name].numpy()

    def _sums(self) -> dict[str, NDArray[Any]]:
        """Return the sums by name, in the order of the names: that in which a checkpoint in parts is read."""
        return {"tally.grad_norm": self.grad_norm, "tally.loss": self.loss, "tally.steps": self.steps}

    def clear(self) -> None:
        """Begin again from zero."""
        for sums in self._sums().values():
            sums[:] = 0


class Rows(Protocol):
    """Where rows of `metrics` go."""

    def add(
        self,
        run_id: str,
        attempt: int,
        step: int,
        metric: str,
        value: float,
        correct: int | None = None,
        total: int | None = None,
        /,
    ) -> None:
        """Add one row."""


@dataclass(slots=True)
class Probes:
    """Measures every run of a pack that is alive and adds the rows to its shards.

    measured  what is measured beside the task's held-out sets
    ends      of runs on lines: their engine and one that holds the other ends, to be compared layer by layer
    polca     how the past of each run is taken apart
    pasts     what is known of the past of each run, by slot, where it is looked back at
    harness   who asks the tasks of the lm-evaluation-harness, if they are asked
    effort    what an update takes, if that is counted
    """

    task: Task
    streams: Sequence[Streams]
    crew: Crew
    shards: Rows
    measured: Sequence[Asked] = ()
    ends: tuple[Layered, Layered] | None = None
    polca: PolcaSpec | None = None
    pasts: Sequence[Past] = ()
    harness: Harness | None = None
    effort: Effort | None = None
    _sets: dict[int, dict[str, Batch]] = field(default_factory=dict)
    _labels: dict[int, dict[str, dict[str, NDArray[np.int64]]]] = field(default_factory=dict)
    _questions: dict[tuple[int, str], Questions] = field(default_factory=dict)

    def measure(self, step: int, engine: Engine, tally: Tally) -> None:
        """Add the rows of every alive run at `step`, and begin a new tally."""
        for member in self.crew.alive:
            count = int(tally.steps[member.slot])
            if count:
                self._add(member, step, "train.loss", float(tally.loss[member.slot]) / count)
                self._add(member, step, "train.grad_norm", float(tally.grad_norm[member.slot]) / count)
        tally.clear()
        forward = engine.forward if isinstance(engine, PackedEngine) else None
        if forward:
            self._count_repeated(step, forward)
        if self.effort:
            self._count_effort(step, self.effort, forward)
        for name in self._names(step):
            self._measure_set(name, step, engine)
        if "weights" in self.measured:
            self._measure_weights(step, engine)
        for asked in shapleys_in(self.measured):
            self._measure_interactions(step, engine, asked)
        for look in steps_in(self.measured):
            self._compare_steps(step, engine, look)
        if self.polca:
            self._take_apart(step, self.polca)
        if self.harness:
            self._ask(self.harness, step, engine)

    def _count_repeated(self, step: int, forward: Forward) -> None:
        for member in self.crew.alive:
            tried = float(forward.tried[member.slot])
            self._add(member, step, "fast_forward.repeated", float(forward.repeated[member.slot]))
            self._add(member, step, "fast_forward.tried", tried)
            self._add(member, step, "fast_forward.flops", tried * forward.flops)

    def _count_effort(self, step: int, effort: Effort, forward: Forward | None) -> None:
        for member in self.crew.alive:
            beside = int(forward.tried[member.slot]) * forward.flops if forward else 0
            for metric, value in effort.rows(step, beside).items():
                self._add(member, step, metric, value)

    def _take_apart(self, step: int, spec: PolcaSpec) -> None:
        sets = self._set_of_all(step, spec.set)
        for member in self.crew.alive:
            streams, begin = self.streams[member.slot], self.crew.progress.begin
            batch, past = first_items(sets[member.slot], spec.items), self.pasts[member.slot]
            for at, metric, value, correct, total in polca_rows(spec, self.task, batch, past, streams, begin):
                self._add(member, at, metric, value, correct, total)

    def _set_of_all(self, step: int, name: str) -> list[Batch]:
        """Return the held-out set of this name of each slot, after ending runs that have none; [] where all are."""
        for member in self.crew.alive:
            sets = self._sets[member.slot]
            if name not in sets:
                told = f"has no held-out set {name!r}: there are {', '.join(sets)}{near(name, sets)}"
                self._fail(member, step, ValueError(told))
        return [self._sets[slot][name] for slot in self._stand_ins()]

    def _stand_ins(self) -> list[int]:
        """Return for each slot one that is alive, itself if it is: passes are of whole packs; [] where none is."""
        alive = [member.slot for member in self.crew.alive]
        return [slot if slot in alive else alive[0] for slot in range(len(self.streams))] if alive else []

    def _measure_interactions(self, step: int, engine: Engine, spec: ShapleySpec) -> None:
        sets = self._set_of_all(step, spec.set)
        for member in self.crew.alive:
            key, streams = (member.slot, spec.set), self.streams[member.slot]
            if key not in self._questions:
                try:
                    self._questions[key] = questions_of(spec, self.task, sets[member.slot], streams)
                except ValueError as error:
                    self._fail(member, step, error)
        asked = [self._questions[slot, spec.set] for slot in self._stand_ins()]
        if not asked:
            return
        values = asked_of(engine, asked, self.crew.progress.begin)
        for member in self.crew.alive:
            found = shapley_measures(spec.set, asked[member.slot], values[member.slot])
            self._add_all(member, step, found)

    def _compare_steps(self, step: int, engine: Engine, spec: StepsSpec) -> None:
        sets = self._set_of_all(step, spec.set)
        if sets:
            inputs = np.stack([one.inputs[: spec.items] for one in sets])
            found = rows_over_steps(spec, engine, inputs, self.pasts, self.crew.progress.begin)
            for member in self.crew.alive:
                for at, metric, value in found[member.slot]:
                    self._add(member, at, metric, value)

    def _ask(self, harness: Harness, step: int, engine: Engine) -> None:
        everyone = parameters_of(engine)
        for member in self.crew.alive:
            weights = {name: tensor[member.slot].detach().cpu() for name, tensor in everyone.items()}
            try:
                found = harness.measures(weights, self.streams[member.slot])
            except Exception as error:  # the border to the tasks of the harness, and a user's own
                if is_out_of_memory(error):
                    raise
                self._fail(member, step, error)
            else:
                self._add_all(member, step, found)

    def _measure_weights(self, step: int, engine: Engine) -> None:
        weights = engine.weights()
        for member in self.crew.alive:
            for metric, value in weight_statistics(weights, member.slot, self.crew.progress.begin).items():
                self._add(member, step, metric, value)

    def _names(self, step: int) -> list[str]:
        for member in self.crew.alive:
            if member.slot not in self._sets:
                try:
                    sets = self.task.held_out(self.streams[member.slot])
                    for batch in sets.values():
                        check_batch(self.task, batch)
                    if "linear-probe" in self.measured:
                        looked_at = {name: first_items(batch, LOOKED_AT) for name, batch in sets.items()}
                        self._labels[member.slot] = {
                            name: checked_labels(self.task.labels(batch), batch) for name, batch in looked_at.items()
                        }
                    self._sets[member.slot] = sets
                except Exception as error:  # the border to a user's code
                    self._fail(member, step, error)
        return sorted({name for member in self.crew.alive for name in self._sets[member.slot]})

    def _measure_set(self, name: str, step: int, engine: Engine) -> None:
        alive = [member for member in self.crew.alive if name in self._sets[member.slot]]
        if not alive:
            return
        self.crew.progress.begin(f"the set {name}")  # by its name: sets differ in size, and so does their time
        # Every slot computes, alive or not: the shapes, and with them the bits, do not depend on who is left.
        slots = [member.slot for member in alive]
        sets = [self._sets[slot if slot in slots else slots[0]][name] for slot in range(len(self.streams))]
        inputs, targets = np.stack([s.inputs for s in sets]), np.stack([s.targets for s in sets])
        is_asked = bool((targets != IGNORE).any())
        predicted, losses = engine.evaluate(inputs, targets) if is_asked else _nothing(inputs.shape)
        for member in alive:
            self._add_set(member, step, name, sets[member.slot], predicted[member.slot], losses[member.slot])
        if self.ends:
            self._measure_similarity(name, step, inputs, self.ends)
        if "attention" in self.measured:
            self._measure_attention(name, step, engine, sets)
        if "interdependence" in self.measured:
            self._measure_interdependence(name, step, engine, sets)
        if any(what in self.measured for what in ("linear-probe", "structural-probe")):
            self._fit_probes(name, step, engine, [first_items(one, LOOKED_AT) for one in sets])

    def _measure_similarity(
        self, name: str, step: int, inputs: NDArray[np.int64], ends: tuple[Layered, Layered]
    ) -> None:
        mine, others = (engine.hidden(inputs) for engine in ends)
        for member in self.crew.alive:
            for layer, (one, other) in enumerate(zip(mine, others, strict=True)):
                for what, value in similarities(one[member.slot], other[member.slot]).items():
                    self._add(member, step, f"{name}.{what}.{layer}", value)

    def _measure_attention(self, name: str, step: int, engine: Layered, sets: Sequence[Batch]) -> None:
        trees = {member.slot: sets[member.slot].trees for member in self.crew.alive}
        known = {slot: tree for slot, tree in trees.items() if tree is not None}
        if not known:
            return
        inputs = np.stack([s.inputs for s in sets])
        looks: dict[int, list[Look]] = {slot: [] for slot in known}
        for some in spans(inputs.shape[1]):
            layers = engine.attention(inputs[:, some])
            for slot, tree in known.items():
                looks[slot].append(Look.at([layer[slot].cpu().numpy() for layer in layers], tree.heads[some]))
        for member in self.crew.alive:
            if member.slot in known:
                found = tree_measures(name, looks[member.slot], known[member.slot], self.task.relations)
                self._add_all(member, step, found)

    def _measure_interdependence(self, name: str, step: int, engine: Engine, sets: Sequence[Batch]) -> None:
        everyone = parameters_of(engine)
        for member in self.crew.alive:
            mine = sets[member.slot]
            if mine.trees is not None:
                self.crew.progress.begin(f"the words of a run in {name}")
                own = {key: value[member.slot] for key, value in everyone.items()}
                self._add_all(member, step, interdependence_measures(name, own, mine.inputs, mine.trees))

    def _fit_probes(self, name: str, step: int, engine: Layered, sets: Sequence[Batch]) -> None:
        layers = engine.hidden(np.stack([one.inputs for one in sets]))
        for member in self.crew.alive:
            self.crew.progress.begin(f"the fits of a run in {name}")
            mine, streams = sets[member.slot], self.streams[member.slot]
            shown = [layer[member.slot] for layer in layers]
            if "linear-probe" in self.measured:
                labels = self._labels[member.slot][name]
                self._add_all(member, step, probe_measures(name, mine, labels, shown, streams))
            if "structural-probe" in self.measured:
                self._add_all(member, step, structure_measures(name, mine, shown, streams, len(self.task.vocabulary)))

    def _add_all(self, member: Member, step: int, found: Sequence[Score | Mean]) -> None:
        for one in found:
            if isinstance(one, Mean):
                self._add(member, step, one.metric, one.value)
            elif one.total:
                self._add(member, step, one.metric, one.correct / one.total, one.correct, one.total)

    def _add_set(
        self,
        member: Member,
        step: int,
        name: str,
        batch: Batch,
        predicted: NDArray[np.int64],
        losses: NDArray[np.float32],
    ) -> None:
        try:
            found = self.task.measure(name, batch, predicted, losses)
        except Exception as error:  # the border to a user's code
            self._fail(member, step, error)
            return
        self._add_all(member, step, found)
        asked = int((batch.targets != IGNORE).sum())
        if asked:
            self._add(member, step, f"{name}.loss", float(losses.sum(dtype=np.float64)) / asked)

    def _fail(self, member: Member, step: int, error: Exception) -> None:
        log.error("run %s, step %d: the task failed", member.run_id, step, exc_info=error)
        self.crew.leave(member, Status.FAILED, step, f"task: {type(error).__name__}: {error}")

    def _add(
        self,
        member: Member,
        step: int,
        metric: str,
        value: float,
        correct: int | None = None,
        total: int | None = None,
    ) -> None:
        self.shards.add(member.run_id, member.attempt.attempt, step, metric, value, correct, total)


def _nothing(shape: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the answers where nothing is asked, as of sentences of which only the attention is looked at."""
    return np.zeros(shape, np.int64), np.zeros(shape, np.float32)
