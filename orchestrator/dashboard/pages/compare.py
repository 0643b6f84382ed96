"""Compare: conditions of one study or of several, side by side, over the same axes."""

from jobs.errors import NotFound
from orchestrator.answers import rows_of
from orchestrator.dashboard import questions
from orchestrator.dashboard.pages.study import conditions_of, metrics_of
from orchestrator.dashboard.view import Body, Params, View

MOST = 8


def compare(view: View, params: Params) -> Body:
    """Return the chosen conditions (`with`: STUDY|CONDITION, one a line) and what can be chosen."""
    choice = {
        f"{name}|{condition.condition.label}": (name, index)
        for name in view.feed.names()
        for index, condition in enumerate(view.feed.shelf(name).summary.conditions)
    }
    asked = [line for line in params.get("with", "").split("\n") if line]
    unknown = [line for line in asked if line not in choice]
    if unknown:
        raise NotFound(unknown[0], "is no condition of this store")
    chosen = asked[:MOST] or list(choice)[: min(4, len(choice))]
    studies = sorted({choice[line][0] for line in chosen})
    metrics = sorted({metric for name in studies for metric in metrics_of(view.feed.shelf(name))})
    first_rule = view.feed.shelf(studies[0]).summary.rule.metric if studies else ""
    metric = params.get("metric") or first_rule
    return {
        "title": "Compare",
        "choice": list(choice),
        "by_study": {name: [c for c in choice if choice[c][0] == name] for name in view.feed.names()},
        "chosen": chosen,
        "questions": {name: _links(view, name, metric) for name in studies},
        "too_many": len(asked) > MOST,
        "metric": metric,
        "metrics": metrics,
        "rows": [_side(view, *choice[line], metric) for line in chosen],
    }


def _links(view: View, name: str, metric: str) -> dict[str, dict[str, str]]:
    asked = {"fan": questions.fan(name, metric), "scores": questions.scores(name, view.feed.shelf(name).summary.rule)}
    return {kind: q.links(name) | {"title": f"{name}: {q.title}"} for kind, q in asked.items()}


def _side(view: View, name: str, index: int, metric: str) -> Body:
    shelf = view.feed.shelf(name)
    numbers = conditions_of(shelf)[index]
    label = numbers["condition"]
    fan, scores = questions.fan(name, metric), questions.scores(name, shelf.summary.rule)
    return {
        "study": name,
        "label": label,
        "numbers": {key: value for key, value in numbers.items() if key != "runs"},
        "rule": shelf.summary.rule.model_dump(mode="json"),
        "fan": [row for row in rows_of(view.feed.ask(name, fan.sql)) if row["condition"] == label],
        "scores": [row for row in rows_of(view.feed.ask(name, scores.sql, at_last=True)) if row["condition"] == label],
        "questions": {"fan": fan.links(name), "scores": scores.links(name)},
    }
