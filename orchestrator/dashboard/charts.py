"""The data of charts: answers of SQL as they are, and many lines reduced to what a screen can show.

Nothing is sampled. A chart of many lines keeps the smallest and the largest value of each run in each of the pixel
columns it is drawn in, so no spike is lost; a zoom asks again, with the same number of columns for fewer steps.
"""

import json
import os
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from jobs.errors import NotFound, QueryError
from jobs.records import METRICS
from orchestrator.collected import Collected, Tables, rows_of
from orchestrator.dashboard import questions
from orchestrator.dashboard.beside import Carried
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.questions import Question
from orchestrator.dashboard.view import Params, View
from orchestrator.summary import curves_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
_MOST_PIXELS, _PIXELS = 8_000, 1_200
_PIECE_BYTES = 256 * 1024


def chart_table(view: View, params: Params) -> pa.Table:
    """Return the rows behind one chart of a study, the answer of its question; raises NotFound, QueryError."""
    shelf = view.feed.shelf(params["name"])
    question = question_of(shelf, params)
    answer = view.feed.ask(shelf.declared.name, question.sql, at_last=question.at_last)
    if "step" in answer.column_names:
        for name, keeps in (("after", pc.greater_equal), ("from", pc.greater_equal), ("to", pc.less_equal)):
            if params.get(name):
                answer = answer.filter(keeps(answer["step"], _whole(params[name], name)))
    return answer


def question_of(shelf: Shelf, params: Params) -> Question:
    """Return the question of the chart that `params` names; raises NotFound."""
    name, rule = shelf.declared.name, shelf.summary.rule
    metric = params.get("metric") or rule.metric
    chart = params["chart"]
    if chart == "fan":
        return questions.fan(name, metric)
    if chart == "lines":
        return questions.lines(name, metric, _condition(shelf, params))
    if chart == "values":
        return questions.values(name, metric)
    if chart == "brackets":
        return questions.onset_brackets(name, metric)
    of_rule = {"scores": questions.scores, "counts": questions.successes}
    if chart in of_rule:
        return of_rule[chart](name, rule)
    of_study = {"success": questions.intervals, "onsets": questions.onsets, "statuses": questions.statuses}
    make = (of_study | {"cells": questions.cells}).get(chart)
    if make is not None:
        return make(name)
    known = ("fan", "lines", "values", "brackets", *of_rule, *of_study, "cells")
    raise NotFound(chart, f"is no chart; there are {', '.join(known)}")


def _condition(shelf: Shelf, params: Params) -> str:
    label = params.get("condition", "")
    if label not in {c.condition.label for c in shelf.summary.conditions}:
        raise NotFound(label or "condition", f"is no condition of {shelf.declared.name}")
    return label


def _whole(text: str, what: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise QueryError(f"{what} is a whole number, not {text!r}") from None


def lines(view: View, params: Params) -> Iterator[bytes]:
    """Return every run's line of one condition between two steps, reduced to `px` columns of pixels; see `packed`."""
    shelf = view.feed.shelf(params["name"])
    label = _condition(shelf, params)
    wanted = pc.field("condition") == label
    return packed(view, shelf, shelf.tables["runs"].filter(wanted), params)


def packed(view: View, shelf: Shelf, runs: pa.Table, params: Params) -> Iterator[bytes]:
    """Return the lines of these runs, `metric` of `params` between its steps `from` and `to`, piece by piece.

    4 bytes: the length of a JSON head {run_ids, steps, reduced, measured, launched, scores}, which is padded to a
    multiple of 8; then float64 [run, step], little-endian, NaN where a run was not measured. What comes from the
    process beside comes through a file: megabytes in one piece would be in this process several times at once.
    """
    metric = params.get("metric") or shelf.summary.rule.metric
    mine = runs["run_id"].to_pylist()
    first, last = _whole(params.get("from") or "0", "from"), params.get("to", "")
    bounds = first, _whole(last, "to") if last else int(np.iinfo(np.int64).max)
    pixels = min(max(_whole(params.get("px") or str(_PIXELS), "px"), 2), _MOST_PIXELS)
    carried = Carried.of(shelf.tables).only(set(runs["condition_id"].to_pylist()), metric)
    handle, path = tempfile.mkstemp(prefix="seedbed-lines-")
    os.close(handle)
    try:
        head = view.feed.beside.call(carried.size_bytes, _draw_into, path, carried, metric, mine, bounds, pixels)
        head |= {"launched": len(mine), "scores": _scores(view, shelf, mine)}
        file = Path(path).open("rb")  # noqa: SIM115  (what reads it closes it)
    finally:
        Path(path).unlink()
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 4) % 8)
    return _pieces(struct.pack("<I", len(text)) + text, file)


def _pieces(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield head
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _draw_into(
    path: str, carried: Carried, metric: str, run_ids: list[str], bounds: tuple[int, int], pixels: int
) -> dict[str, Any]:
    """Write the values of the lines between two steps, where the rows are read, here or beside; returns the head."""
    curves = curves_of(_rows(carried.tables(), metric), run_ids)
    chosen = (curves.steps >= bounds[0]) & (curves.steps <= bounds[1])
    steps, values = curves.steps[chosen], curves.values[:, chosen]
    shown_steps, shown = reduce_to_pixels(steps, values, pixels)
    head = {
        "run_ids": curves.run_ids,
        "steps": shown_steps.tolist(),
        "reduced": len(shown_steps) < len(steps),
        "measured": int((~np.isnan(values)).any(axis=1).sum()),
    }
    np.ascontiguousarray(shown, "<f8").tofile(path)
    return head


def _rows(tables: Tables, metric: str) -> pa.Table:
    """Return run, step and value of one metric."""
    if not isinstance(tables, Collected):
        return rows_of(tables, metric)
    parts = [placed.rows(metric, ("run_id", "step", "value")) for placed in tables.parts]
    whole = pa.concat_tables(parts).unify_dictionaries() if parts else METRICS.empty_table()
    return whole.set_column(0, "run_id", whole["run_id"].cast(pa.string())) if parts else whole


def _scores(view: View, shelf: Shelf, run_ids: list[str]) -> dict[str, bool]:
    answer = view.feed.ask(
        shelf.declared.name, questions.scores(shelf.declared.name, shelf.summary.rule).sql, at_last=True
    )
    mine = answer.filter(pc.is_in(answer["run_id"], pa.array(run_ids, pa.string())))
    return dict(zip(mine["run_id"].to_pylist(), mine["success"].to_pylist(), strict=True))


def reduce_to_pixels(steps: Integers, values: Floats, pixels: int) -> tuple[Integers, Floats]:
    """Return (steps, values [run, step]) with two columns for each pixel bucket: the lower and the upper end of a run.

    Which comes first within a bucket is as in the run, so a line through them has its shape. Where there are no more
    steps than two for each pixel, everything stays.
    """
    if len(steps) <= 2 * pixels:
        return steps, values
    edges = np.linspace(float(steps[0]), float(steps[-1]), pixels + 1)
    bucket = np.clip(np.searchsorted(edges, steps, side="right") - 1, 0, pixels - 1)
    starts = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1]])
    ends = np.r_[starts[1:], len(steps)]
    shown_steps: list[int] = []
    columns: list[Floats] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        part = values[:, start:end]
        if end - start == 1:
            shown_steps.append(int(steps[start]))
            columns.append(part[:, 0])
            continue
        empty = np.isnan(part).all(axis=1)
        low_at = np.where(np.isnan(part), np.inf, part).argmin(axis=1)
        high_at = np.where(np.isnan(part), -np.inf, part).argmax(axis=1)
        rows = np.arange(len(part))
        first = np.where(empty, np.nan, part[rows, np.minimum(low_at, high_at)])
        second = np.where(empty, np.nan, part[rows, np.maximum(low_at, high_at)])
        shown_steps += [int(steps[start]), int(steps[end - 1])]
        columns += [first, second]
    return np.array(shown_steps, np.int64), np.column_stack(columns)
