"""The page of a study: fans, final scores, P(success), onsets, and where every run stands."""

import shlex
from typing import Any

import pyarrow.compute as pc

from jobs.errors import NotFound, QueryError
from jobs.records import Status
from orchestrator.dashboard import questions
from orchestrator.dashboard.control import seed_counts
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.pictures import KINDS
from orchestrator.dashboard.summaries import MORE_SEEDS
from orchestrator.dashboard.view import Body, Params, View, progress_of
from orchestrator.estimates.estimate import plain
from orchestrator.power_plan import bought
from orchestrator.rounds import read_decisions
from orchestrator.text import onset_text

MOST_MORE = 1_000  # seeds
LETTERS = {
    Status.WAITING: "w",
    Status.RUNNING: "r",
    Status.FINISHED: "f",
    Status.DIVERGED: "d",
    Status.FAILED: "x",
}


def study(view: View, params: Params) -> Body:
    """Return what a study shows; raises NotFound for a study or a metric that is not there."""
    shelf = view.feed.shelf(params["name"])
    name, summary = shelf.declared.name, shelf.summary
    metrics = metrics_of(shelf)
    metric = params.get("metric") or summary.rule.metric
    if metrics and metric not in metrics:
        raise NotFound(metric, f"is no metric of {name}; there are {', '.join(metrics)}")
    asked = {
        "fan": questions.fan(name, metric),
        "scores": questions.scores(name, summary.rule),
        "success": questions.intervals(name),
        "counts": questions.successes(name, summary.rule),
        "onsets": questions.onsets(name),
        "statuses": questions.statuses(name),
        "cells": questions.cells(name),
    }
    return {
        "title": name,
        "study": name,
        "version": shelf.version,
        "question": summary.question,
        "paper": summary.paper,
        "text": summary.text,
        "rule": summary.rule.model_dump(mode="json"),
        "scale": summary.scale,
        "metric": metric,
        "metrics": metrics,
        "findings": summary.findings,
        "counts": shelf.counts,
        "progress": progress_of(shelf),
        "conditions": conditions_of(shelf),
        "questions": {chart: question.links(name) for chart, question in asked.items()},
        "trouble": view.feed.trouble,
        "more": more_seeds(shelf, params.get("more", "")),
        "decisions": decisions_of(view, shelf),
        "pictures": _pictures(view, shelf, metric),
        "commands": view.control.commands(name),
        "drives_at": view.control.at,
        "seeds": {} if shelf.declared.imported else seed_counts(summary.text),
    }


def metrics_of(shelf: Shelf) -> list[str]:
    """Return the metrics of a study, sorted."""
    return sorted(pc.unique(shelf.tables["rollups"]["metric"]).to_pylist())


def conditions_of(shelf: Shelf) -> list[Body]:
    """Return the numbers of every condition, and where each of its runs stands: a letter per run, in declared order."""
    runs = shelf.tables["runs"]
    status = dict(zip(runs["run_id"].to_pylist(), runs["status"].to_pylist(), strict=True))
    letters: dict[str, list[str]] = {}
    for run in shelf.declared.runs:
        letters.setdefault(run.condition.id, []).append(LETTERS[Status(status[run.id])])
    found = []
    for condition in shelf.summary.conditions:
        numbers: dict[str, Any] = plain(condition.as_dict())
        numbers["runs"] = "".join(letters.get(condition.condition.id, []))
        numbers["onset"]["text"] = onset_text(condition.onset)
        numbers["known"] = condition.success.cohort.finished + condition.success.cohort.diverged
        found.append(numbers)
    return found


def more_seeds(shelf: Shelf, asked: str) -> Body:
    """Return what more seeds would do to each condition's interval of P(success); raises QueryError."""
    if asked and not (asked.isdecimal() and 1 <= int(asked) <= MOST_MORE):
        raise QueryError(f"more is a number of seeds from 1 to {MOST_MORE}, not {asked[:20]!r}")
    more = int(asked or MORE_SEEDS)
    known = more == MORE_SEEDS and shelf.bought
    return {"seeds": more, "rows": list(shelf.bought) if known else bought(shelf.summary, more)}


def decisions_of(view: View, shelf: Shelf) -> list[Body]:
    """Return what the study's stop rule decided, look by look; none where it has no rule."""
    if shelf.declared.stop is None:
        return []
    labels = {condition.id: condition.label for condition in shelf.declared.conditions}
    return [
        {
            "number": decision.number,
            "rule": decision.rule,
            "is_last": decision.is_last,
            "conditions": [
                {
                    "condition": labels.get(look.condition_id, look.condition_id),
                    "launched": look.launched,
                    "known": look.known,
                    "successes": look.successes,
                    "more": decision.counts[look.condition_id] - look.launched,
                }
                for look in decision.looks
            ],
        }
        for decision in read_decisions(view.feed.library.store, shelf.declared.name)
    ]


def _pictures(view: View, shelf: Shelf, metric: str) -> list[Body]:
    name = shelf.declared.name
    asked = {
        "ridgeline": ("values", questions.values(name, metric)),
        "onsets": ("brackets", questions.onset_brackets(name, metric)),
    }
    scores = "scores", questions.scores(name, shelf.summary.rule)
    found = []
    for kind, (title, note) in KINDS.items():
        chart, question = asked.get(kind, scores)
        command = f"seedbed plot {kind} {shlex.quote(name)} --store {shlex.quote(view.store_name)}"
        if metric != shelf.summary.rule.metric:
            command += f" --metric {shlex.quote(metric)}"
        links = question.links(name)
        found.append({"kind": kind, "title": title, "note": note, "csv": chart, "command": command, "question": links})
    return found


def picture_state(view: View, params: Params) -> Body:
    """Return how far a picture of the study is; it is begun where nobody has."""
    shelf = view.feed.shelf(params["name"])
    return view.pictures.state(shelf, params["kind"], params.get("metric") or shelf.summary.rule.metric)


def run_at(view: View, params: Params) -> str:
    """Return the id of the run at a place of the completeness grid; raises NotFound."""
    shelf = view.feed.shelf(params["name"])
    try:
        condition = shelf.summary.conditions[int(params["condition"])].condition
        mine = [run.id for run in shelf.declared.runs if run.condition.id == condition.id]
        return mine[int(params["run"])]
    except (KeyError, ValueError, IndexError):
        raise NotFound(shelf.declared.name, "has no run at that place") from None
