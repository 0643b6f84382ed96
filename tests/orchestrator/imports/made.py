"""A made-up tracker export with every kind of dirt that real ones have, and its mapping."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

MAP = """\
step: step
metrics: {train.loss: loss, heldout.accuracy: accuracy}
factors: {model.size: size}
seed: seed
fragment: fragment
scale: model.size
success: {metric: heldout.accuracy, threshold: 0.8, sustained: 1}
question: does it learn?
"""
STEPS = range(0, 101, 10)


def curve(run: int, steps: range = STEPS) -> dict[int, tuple[float, float]]:
    """Return step → (loss, accuracy) of a run of its own."""
    draw = np.random.default_rng(run)
    top = 0.5 if run % 3 == 0 else 0.95
    return {
        step: (round(5 - 3 * step / 100 + float(draw.normal(0, 0.2)), 6), round(top * step / 100, 6)) for step in steps
    }


def rows() -> Iterator[tuple[str, int, str, int, object, object]]:
    """Yield size, seed, fragment, step, loss, accuracy.

    14m seed 1 is whole; seed 2 is cut in two with an overlap at 40 and 50 that differs at 50; seed 3 ends at 60;
    seed 4 stands there twice, as two different runs; 31m seed 1 lacks some cells; seed 2 is there word for word again.
    """
    for step, (loss, accuracy) in curve(1).items():
        yield "14m", 1, "a", step, loss, accuracy
    for step, (loss, accuracy) in curve(2).items():
        if step <= 50:
            yield "14m", 2, "b", step, loss, accuracy
        if step >= 40:
            yield "14m", 2, "c", step, loss + (0.25 if step == 50 else 0), accuracy
    for step, (loss, accuracy) in curve(3).items():
        if step <= 60:
            yield "14m", 3, "d", step, loss, accuracy
    for fragment, run in (("e", 4), ("f", 5)):
        for step, (loss, accuracy) in curve(run).items():
            yield "14m", 4, fragment, step, loss, accuracy
    for step, (loss, accuracy) in curve(6).items():
        yield "31m", 1, "g", step, loss, "" if step in (20, 30) else accuracy
    for _ in range(2):
        for step, (loss, accuracy) in curve(7).items():
            yield "31m", 2, "h", step, loss, accuracy


def write(folder: Path) -> tuple[Path, Path]:
    """Write the export as CSV and its mapping; returns both paths."""
    table, mapping = folder / "export.csv", folder / "map.yaml"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "seed", "fragment", "step", "loss", "accuracy"])
        writer.writerows(rows())
    mapping.write_text(MAP, encoding="utf-8")
    return table, mapping
