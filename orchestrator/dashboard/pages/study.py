"""The page of a study: fans, final scores, P(success), onsets, and where every run stands."""

from typing import Any

import pyarrow.compute as pc

from jobs.errors import NotFound
from jobs.records import Status
from orchestrator.dashboard import questions
from orchestrator.dashboard.control import seed_counts
from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.view import Body, Params, View, progress_of
from orchestrator.estimates.estimate import plain
from orchestrator.text import onset_text

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
        "success": questions.successes(name, summary.rule),
        "onsets": questions.onsets(name),
        "statuses": questions.statuses(name),
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


def run_at(view: View, params: Params) -> str:
    """Return the id of the run at a place of the completeness grid; raises NotFound."""
    shelf = view.feed.shelf(params["name"])
    try:
        condition = shelf.summary.conditions[int(params["condition"])].condition
        mine = [run.id for run in shelf.declared.runs if run.condition.id == condition.id]
        return mine[int(params["run"])]
    except (KeyError, ValueError, IndexError):
        raise NotFound(shelf.declared.name, "has no run at that place") from None
