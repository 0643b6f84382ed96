"""A tracker's export with every kind of dirt, which every question and every figure has an answer to.

Four widths x two numbers of tokens x 16 runs. Widths 4 and 8 cross 4 initialisations with 4 data orders; of widths 16
and 32 two runs share each initialisation. Rows are one measurement each, with k of m where items were counted.
"""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.store import Store
from orchestrator.imports.mapping import read_mapping
from orchestrator.imports.runs import assemble
from orchestrator.imports.sources import measurements, read_table
from orchestrator.imports.stored import Source, store_import
from orchestrator.library import Library
from orchestrator.questions.asked import Options

MAP = """\
step: step
metric: metric
value: value
correct: correct
total: total
factors: {model.width: width, data.tokens: tokens}
seeds: {init: init, data: data}
fragment: fragment
scale: model.width
success: {metric: heldout.accuracy, threshold: 0.9, sustained: 2}
"""
WIDTHS, TOKENS, RUNS = (4, 8, 16, 32), (1000, 4000), 16
P = {4: 0.15, 8: 0.4, 16: 0.6, 32: 0.85}
STEPS = range(0, 201, 25)
ITEMS = 5
MANY = "data.tokens=4000"
ONE = f"model.width=16 {MANY}"
CHOICES = {
    "loss-law": Options(tokens="data.tokens"),
    "order": Options(against="heldout.carries"),
    "states": Options(conditions=(ONE,)),
    "agreement": Options(metric="items"),
    "compare": Options(metric="items", conditions=(f"model.width=4 {MANY}", f"model.width=8 {MANY}")),
    "modes": Options(conditions=(ONE,)),
    "clusters": Options(conditions=(ONE,)),
    "success": Options(conditions=(ONE, f"model.width=4 {MANY}")),
    "commitment": Options(tolerance=0.1, unstable=0.2),
    "difference": Options(against="heldout.carries"),
}
# What an import has not: runs between others, and looks back. `test_lines.py` and `test_hidden.py` ask of those.
ON_LINES = ("lines", "hidden")
BY_SCALE = ("success-over-scale", "predict", "forecast", "scaling-law", "quantile-laws", "distances", "lineages")


def options(question: str) -> Options:
    """Return what a question is to be asked with."""
    return CHOICES.get(question) or Options(conditions=(MANY,) if question in BY_SCALE else ())


class Row(NamedTuple):
    """One measurement."""

    width: int
    tokens: int
    init: int
    data: int
    fragment: str
    step: int
    metric: str
    value: float | str
    correct: int | str = ""
    total: int | str = ""


def rows() -> Iterator[Row]:
    """Yield the rows: cut runs with overlaps that differ, a run that ends early, doubles, gaps, two runs of one key."""
    for width in WIDTHS:
        for tokens in TOKENS:
            for number in range(RUNS):
                one = [*_run(width, tokens, number)]
                if number == 3:  # cut at step 100; step 100 was measured again, and differs
                    yield from (row for row in one if row.step <= 100)
                    one = [row._replace(fragment=row.fragment + "b") for row in one if row.step >= 100]
                    one = [row._replace(value=row.value + 1e-3) if row.metric == "train.loss" else row for row in one]  # type: ignore[operator]
                if number == 5 and width == 32:
                    one = [row for row in one if row.step <= 150]
                if number == 7:
                    one = [row for row in one if not (row.step == 75 and row.metric == "heldout.accuracy")]
                if number == 8:
                    one += one[:6]
                yield from one
                if number == 9 and width == 4:
                    yield from (row._replace(fragment="other") for row in _run(width, tokens, number + 100))


def _run(width: int, tokens: int, number: int) -> Iterator[Row]:
    draw = np.random.default_rng(1000 * width + tokens + number)
    succeeds = draw.random() < P[width]
    onset = int(draw.choice([75, 100, 125])) if succeeds else 10_000
    place = number % RUNS
    init, data = (place // 4, place % 4) if width <= 8 else (place // 2, place)
    skill = draw.random(ITEMS) < (0.9 if succeeds else 0.4)
    for step in STEPS:
        key = (width, tokens, init, data, f"{width}.{tokens}.{number}", step)
        correct = int(draw.integers(95, 100)) if step >= onset else int(draw.integers(40, 60))
        yield Row(*key, "heldout.accuracy", "", correct, 100)
        yield Row(*key, "heldout.carries", float(0.95 if step >= onset - 25 else 0.3 + 0.1 * draw.random()))
        floor = 1.2 + 2 * width**-0.5 + 30 * tokens**-0.5
        loss = floor * (1 + 2 * np.exp(-step / 40) - 0.3 * (step >= onset)) * np.exp(0.01 * draw.normal())
        yield Row(*key, "train.loss", float(loss))
        for item in range(ITEMS):
            right = int(skill[item] if step >= 100 else draw.random() < 0.5)
            yield Row(*key, f"items.{item}", "", right, 1)


def imported(store: Store, folder: Path) -> Library:
    """Return a library with the study `dirty`, imported from a file in `folder`."""
    table, mapping = folder / "dirty.csv", folder / "dirty.yaml"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows())
    mapping.write_text(MAP, encoding="utf-8")
    source = read_mapping(mapping)
    made = assemble(measurements(read_table([table]), source), source.mapping)
    store_import(store, "dirty", made, source, [Source.of(table)])
    return Library(store)
