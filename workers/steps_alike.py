"""How alike a run's layers are at its own steps: each with the last, with the one before, or each with each; as rows.

A run that has ended is looked back at: its weights at each step come from its checkpoints, or are trained to again in
memory, and its layers read the same sequences. Rows stand at the run's steps: `SET.cka.LAYER.to_last` and `.to_before`,
and `.to_STEP` for each step that it is compared with; the same of `svcca` (`similarity.py`). What is not defined, as of
a layer that makes the same of everything, has no row.

Not here: likeness of two runs, which is measured where one lies on a line to the other (`Probes.ends`).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from jobs.measures import StepsSpec
from workers.engines import MODEL, Engine, Integers
from workers.polca import Past
from workers.similarity import similarities

Row = tuple[int, str, float]  # step, metric, value
Layers = Sequence[Tensor]  # [run, row, width] each


def rows_over_steps(
    spec: StepsSpec, engine: Engine, inputs: Integers, pasts: Sequence[Past], begin: Callable[[str], None]
) -> list[list[Row]]:
    """Return all rows of a look at each run of a pack; the engine ends with the weights that it has.

    inputs [run, item, length]; `begin` is told what is done next, once for each step
    """
    found: list[list[Row]] = [[] for _ in pasts]
    with _weights_kept(engine):

        def layers(step: int) -> Layers:
            begin("a look at a step")
            then = [past.weights(step) for past in pasts]
            _put(engine, {f"{MODEL}{name}": torch.stack([of[name] for of in then]) for name in then[0]})
            return [layer.cpu() for layer in engine.hidden(inputs)]

        for step, other, how, one, two in _compared(spec, pasts[0].last, layers):
            for run, rows in enumerate(found):
                for layer, (mine, others) in enumerate(zip(one, two, strict=True)):
                    for what, value in similarities(mine[run], others[run]).items():
                        name = f"{spec.set}.{what}.{layer}"
                        rows.append((step, f"{name}.{how}", value))
                        if how == f"to_{other}" and step != other:
                            rows.append((other, f"{name}.to_{step}", value))
    return found


def _compared(
    spec: StepsSpec, last: int, layers: Callable[[int], Layers]
) -> Iterator[tuple[int, int, str, Layers, Layers]]:
    """Yield step, the one that it is compared with, what that is called, and the layers at both."""
    steps = spec.looked_at(last)
    end = layers(last) if "last" in spec.to else None
    known: dict[int, Layers] = {}
    before: tuple[int, Layers] | None = None
    for step in steps:
        now = end if step == last and end is not None else layers(step)
        if end is not None:
            yield step, last, "to_last", now, end
        if before is not None and "before" in spec.to:
            yield step, before[0], "to_before", now, before[1]
        if "each" in spec.to:
            known[step] = now
            for other, then in known.items():
                yield step, other, f"to_{other}", now, then
        before = step, now


@contextmanager
def _weights_kept(engine: Engine) -> Iterator[None]:
    own = {name: tensor.clone() for name, tensor in engine.weights().items()}
    try:
        yield
    finally:
        _put(engine, own)


def _put(engine: Engine, weights: Mapping[str, Tensor]) -> None:
    engine.load(engine.state() | dict(weights))
