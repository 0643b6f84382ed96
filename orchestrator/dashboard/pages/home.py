"""Home: every study with its progress and P(success), and what happened."""

from orchestrator.dashboard.feed import Shelf
from orchestrator.dashboard.view import Body, Params, View, progress_of
from orchestrator.estimates.estimate import plain


def home(view: View, _params: Params) -> Body:
    """Return the studies of the store in the order of their names, and the newest alerts."""
    shelves = [view.feed.shelf(name) for name in view.feed.names()]
    return {
        "title": "Studies",
        "store": view.store_name,
        "trouble": view.feed.trouble or view.alarm.trouble,
        "studies": [_study(shelf) for shelf in shelves],
        "alerts": [alert.as_dict() for alert in list(view.alarm.kept)[:30]],
    }


def _study(shelf: Shelf) -> Body:
    summary = shelf.summary
    return {
        "study": summary.name,
        "version": shelf.version,
        "question": summary.question,
        "scale": summary.scale,
        "rule": summary.rule.model_dump(mode="json"),
        "counts": shelf.counts,
        "findings": summary.findings,
        "progress": progress_of(shelf),
        "success": [
            {
                "condition": condition.condition.label,
                "successes": condition.successes,
                "known": condition.success.cohort.finished + condition.success.cohort.diverged,
                "launched": condition.launched,
                "value": plain(condition.success.value),
                "low": condition.success.low,
                "high": condition.success.high,
            }
            for condition in summary.conditions
        ],
    }
