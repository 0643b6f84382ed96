"""What every page is made from, and how a page goes out: the same plain data as HTML or as JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from jobs.records import Status
from orchestrator.dashboard.alerts import Alarm
from orchestrator.dashboard.control import Control
from orchestrator.dashboard.feed import Feed, Shelf
from orchestrator.dashboard.news import Broadcast
from orchestrator.dashboard.pictures import Pictures
from orchestrator.dashboard.sandbox import Sandbox
from orchestrator.dashboard.tokens import Gate
from orchestrator.estimates.estimate import plain
from orchestrator.text import duration, interval, probability, size

Params = Mapping[str, str]
Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class View:
    """The collaborators of a page; `store_name` is what a person calls the store."""

    feed: Feed
    sandbox: Sandbox
    alarm: Alarm
    broadcast: Broadcast
    gate: Gate
    control: Control
    pictures: Pictures
    store_name: str


@dataclass(frozen=True, slots=True)
class Templates:
    """Renders pages; every text is escaped, since names, labels and log lines may be hostile."""

    environment: Environment

    @classmethod
    def load(cls) -> "Templates":
        """Return the dashboard's templates."""
        environment = Environment(
            loader=PackageLoader("orchestrator.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters.update(
            probability=_or_dash(probability),
            interval=_or_dash(lambda bounds: interval((bounds[0], bounds[1]))),
            number=_or_dash(lambda value: f"{value:.4g}"),
            count=_or_dash(lambda value: f"{value:,}"),
            size=_or_dash(size),
            duration=_or_dash(duration),
            short=lambda text: text[:12],
            data=data_block,
        )
        environment.globals["statuses"] = [str(status) for status in Status]
        return cls(environment)

    def render(self, template: str, body: Body, **more: Any) -> str:
        """Return the page."""
        return self.environment.get_template(f"{template}.html").render(page=body, **more)


def _or_dash(show: Any) -> Any:
    return lambda value: "–" if value is None else show(value)


def data_block(value: Any) -> Markup:
    """Return JSON for a script element that holds data: no text in it can end the element."""
    text = json.dumps(plain(value), ensure_ascii=False, allow_nan=False)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))  # noqa: S704


def progress_of(shelf: Shelf) -> Body:
    """Return how far a study is: runs that ended, run-steps done of all; what ended early counts as done."""
    runs = shelf.tables["runs"]
    ends = {str(status) for status in Status if status.is_terminal}
    ended = sum(number for status, number in shelf.counts.items() if status in ends)
    over = pc.is_in(runs["status"], value_set=_array(ends))
    reached = pc.if_else(over, runs["planned_steps"], pc.max_element_wise(runs["last_step"], 0))
    done, planned = pc.sum(reached).as_py() or 0, pc.sum(runs["planned_steps"]).as_py() or 0
    return {
        "ended": ended,
        "launched": shelf.launched,
        "done_steps": done,
        "planned_steps": planned,
        "share": done / planned if planned else 1.0,
    }


def _array(values: set[str]) -> Any:
    import pyarrow as pa

    return pa.array(sorted(values), pa.string())
