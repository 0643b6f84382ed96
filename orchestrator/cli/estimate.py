"""`seedbed estimate`: the answer to one question about a study, with its interval."""

from collections.abc import Sequence
from math import isnan, nan
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, working
from orchestrator.estimates.estimate import Estimate, plain
from orchestrator.library import Library
from orchestrator.questions.asked import Options

_MOST_ROWS = 60


def command(
    question: Annotated[str, typer.Argument(metavar="[QUESTION]", help="Which question; --list shows all.")] = "",
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    metric: Annotated[str, typer.Option(help="The metric; else that of the study's success rule.")] = "",
    against: Annotated[str, typer.Option(help="A second metric, for the order of two onsets.")] = "",
    condition: Annotated[list[str] | None, typer.Option(help="A condition's label, or part of it; repeatable.")] = None,
    scale: Annotated[str, typer.Option(help="The factor on the axis of scale; else the study's.")] = "",
    threshold: Annotated[float, typer.Option(help="Of success; else the study's.", show_default=False)] = nan,
    against_threshold: Annotated[
        float, typer.Option(help="Of the second onset; else that of the first.", show_default=False)
    ] = nan,
    level: Annotated[
        float, typer.Option(help="Of intervals; else .95, or what the study's stop rule says.", show_default=False)
    ] = nan,
    at: Annotated[list[float] | None, typer.Option(help="A scale, run or not; repeatable.")] = None,
    gap: Annotated[float, typer.Option(help="How far apart two modes must be to matter, in the metric's unit.")] = 0.2,
    loss_gap: Annotated[float, typer.Option(help="The same for the final training loss, in nats.")] = 0.1,
    window: Annotated[int, typer.Option(help="Of the break statistic, in steps; 0: a tenth of the training.")] = 0,
    falling: Annotated[bool, typer.Option("--falling", help="The metric breaks through downwards, as a loss.")] = False,
    tokens: Annotated[str, typer.Option(help="The factor that is D in L(N, D); else the steps of training.")] = "",
    shared: Annotated[str, typer.Option(help="The seed that a group shares: init, data; else every one.")] = "",
    tolerance: Annotated[float, typer.Option(help="What a rule may leave unexplained.", show_default=False)] = nan,
    unstable: Annotated[
        float, typer.Option(help="Mean change between probes of an unstable run.", show_default=False)
    ] = nan,
    seed: Annotated[int, typer.Option(help="Another number draws other resamples.")] = 0,
    list_: Annotated[bool, typer.Option("--list", help="Show the questions and answer none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer one question about a study, finished or not, with interval, cohort and all that the number rests on.

    The same runs give the same answer, to the last bit: here, in Python (`seedbed.open(STORE).estimate(…)`), in the
    SQL table `estimates`, in figures, and in the report.

    [bold]Example:[/bold] seedbed estimate success-over-scale demo --store demo-store
    """
    from orchestrator.questions.registry import QUESTIONS  # all estimates, and with them most of scipy, take a second

    if list_:
        _list({name: asked.tells for name, asked in QUESTIONS.items()}, as_json)
        return
    if not question:
        raise QueryError("\n".join(["say which question. There are:", *map(_told, QUESTIONS.values())]))
    places = tuple(condition or ()), scale, threshold, against_threshold, level, tuple(at or ())
    options = Options(
        metric, against, *places, gap, loss_gap, window, falling, tokens, shared, tolerance, unstable, seed
    )
    answer(question, study, store, options, as_json=as_json)


def answer(question: str, study: str, store: str, options: Options, *, as_json: bool) -> None:
    """Ask a question and print its answer."""
    from orchestrator.questions.lines import lines
    from orchestrator.questions.registry import QUESTIONS

    library = Library(open_store(store))
    name = library.only(study)
    with working(f"{name}: {question}", quiet=as_json) as watch:
        found = library.ask(question, name, options, watch)
    if as_json:
        measured = options.metric or library.declared(name).success.metric
        print_json({"question": question, "study": name, "metric": measured, "answer": plain(found)})
        return
    console.print(f"{name}: {QUESTIONS[question].tells}", highlight=False, markup=False, style="bold")
    _print(lines(found))


def _told(asked: Any) -> str:
    return f"  {asked.name:20} {asked.tells}"


def _print(told: Sequence[Any]) -> None:
    """Print estimates, facts, and grids as tables, then once what all estimates have in common."""
    from orchestrator.questions.lines import Grid

    estimates = [line for line in told if isinstance(line.value, Estimate)]
    facts = [line for line in told if not isinstance(line.value, Estimate | Grid)]
    if estimates:
        console.print(_estimates(estimates))
    if facts:
        table = _table("", "condition", "", "")
        for line in facts:
            table.add_row(escape(line.condition or "all"), escape(line.name), escape(_text(line.value)))
        console.print(table)
    for line in told:
        if isinstance(line.value, Grid):
            console.print(_grid(line))
    for text in _common(estimates):
        console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    table = Table(title=escape(title) or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(escape(name), justify="right" if name in right else "left", overflow="fold")
    return table


def _estimates(told: Sequence[Any]) -> Table:
    numbers = ("value", "low", "high", "n")
    methods = {line.value.method for line in told}
    several = ("method",) if len(methods) > 1 else ()
    table = _table("", "condition", "estimate", *numbers, "cohort", *several, right=numbers)
    for line in told:
        found: Estimate = line.value
        known = f"{found.cohort.known} of {found.cohort.launched}"
        cells = [line.condition or "all", line.name, *map(_text, (found.value, found.low, found.high)), known]
        cells += [found.cohort.digest[:8], *([found.method] if several else [])]
        table.add_row(*map(escape, cells))
    return table


def _grid(line: Any) -> Table:
    grid = line.value
    table = _table(f"{line.condition}: {line.name}" if line.condition else line.name, *grid.columns, right=grid.columns)
    for row in grid.rows[:_MOST_ROWS]:
        table.add_row(*(escape(_text(value)) for value in row))
    if len(grid.rows) > _MOST_ROWS:
        table.caption = f"the first {_MOST_ROWS} of {len(grid.rows):,}; --json has all"
    return table


def _common(told: Sequence[Any]) -> list[str]:
    """Return methods, unit, stopping rules, what became of the runs, and every note, each said once."""
    estimates = [line.value for line in told]
    if not estimates:
        return []
    cohorts = {found.cohort.digest: found.cohort for found in estimates}.values()
    methods = sorted({f"{found.method}, {100 * found.level:g} %" for found in estimates})
    rules = "; ".join(sorted({found.stopping_rule for found in estimates}))
    units = ", ".join(sorted({found.unit for found in estimates}))
    said = [
        f"Intervals: {'; '.join(methods)}.",
        f"n: runs with a known outcome of those launched. Unit of replication: {units}. Stopping rule: {rules}.",
    ]
    said += [
        f"cohort {c.digest[:8]}: {c.finished} finished, {c.diverged} diverged, {c.censored} censored"
        + (f"; {c.warning}" if c.warning else "")
        for c in cohorts
        if c.diverged or c.censored or c.warning
    ]
    noted: dict[str, list[str]] = {}
    for line in told:
        noted.setdefault(line.value.note, []).append(f"{line.condition} {line.name}".strip())
    return said + [f"note on {', '.join(names)}: {note}" for note, names in noted.items() if note]


def _text(value: Estimate | float | bool | str | None) -> str:
    if isinstance(value, Estimate):
        return f"{_text(value.value)} [{_text(value.low)}, {_text(value.high)}]"
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if isnan(value) else f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def _list(questions: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json([{"question": name, "tells": tells} for name, tells in questions.items()])
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("question", no_wrap=True)
    table.add_column("tells")
    for name, tells in questions.items():
        table.add_row(name, escape(tells))
    console.print(table)
