"""`seedbed predict`: what runs would show at a condition that was not trained."""

from math import nan
from typing import Annotated

import typer

from jobs.errors import QueryError
from orchestrator.cli.estimate import answer
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.questions.asked import Options
from orchestrator.text import amount


def command(
    study: StudyName = "",
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="FACTOR=VALUE", help="The condition, such as model.width=256; repeatable."),
    ] = None,
    store: StoreFolder = DEFAULT_STORE,
    metric: Annotated[str, typer.Option(help="The metric; else that of the study's success rule.")] = "",
    condition: Annotated[list[str] | None, typer.Option(help="A condition's label, or part of it; repeatable.")] = None,
    threshold: Annotated[float, typer.Option(help="Of success; else the study's.", show_default=False)] = nan,
    level: Annotated[float, typer.Option(help="Of intervals; else .95.", show_default=False)] = nan,
    as_json: AsJson = False,
) -> None:
    """Predict the distribution of scores at a scale that was not trained, and say how such predictions did so far.

    Every scale that was trained is predicted from the smaller ones alone: that record is part of the answer. It is
    the answer of `seedbed estimate forecast`.

    [bold]Example:[/bold] seedbed predict demo --at model.width=64 --store demo-store
    """
    scale, places = _places(at or [])
    chosen = tuple(condition or ())
    options = Options(metric, conditions=chosen, scale=scale, threshold=threshold, level=level, at=places)
    answer("forecast", study, store, options, as_json=as_json)


def _places(asked: list[str]) -> tuple[str, tuple[float, ...]]:
    """Return the one factor that is named, and its values; raises QueryError for anything else."""
    if not asked:
        raise QueryError("say at which condition: --at FACTOR=VALUE, such as --at model.width=256")
    names, values = set(), []
    for one in asked:
        name, sign, text = one.partition("=")
        value = amount(text) if sign else None
        if value is None or value <= 0:
            raise QueryError(f"--at {one}: is not FACTOR=VALUE with a positive number, such as model.width=256")
        names.add(name.strip())
        values.append(float(value))
    if len(names) > 1:
        raise QueryError(f"a prediction goes along one factor, not along {', '.join(sorted(names))}")
    return names.pop(), tuple(values)
