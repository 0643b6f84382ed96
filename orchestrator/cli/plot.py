"""`seedbed plot`: one figure of a paper."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.errors import QueryError
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, working
from orchestrator.library import Library


def command(
    kind: Annotated[str, typer.Argument(metavar="[KIND]", help="Which figure; --list shows all.")] = "",
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A .pdf, .svg or .png; else KIND.pdf here.")] = None,
    metric: Annotated[str, typer.Option(help="The metric; else that of the study's success rule.")] = "",
    against: Annotated[str, typer.Option(help="A second metric, for onset against onset.")] = "",
    condition: Annotated[list[str] | None, typer.Option(help="A condition's label, or part of it; repeatable.")] = None,
    scale: Annotated[str, typer.Option(help="The factor on the axis of scale; else the study's.")] = "",
    threshold: Annotated[float, typer.Option(help="Of success; else the study's.", show_default=False)] = float("nan"),
    against_threshold: Annotated[
        float, typer.Option(help="Of the second metric; else the first one's.", show_default=False)
    ] = float("nan"),
    list_: Annotated[bool, typer.Option("--list", help="Show the kinds of figures and draw none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Draw one figure of a study, finished or not, as PDF, SVG or PNG.

    Every figure says its n and its cohort below; the same runs give the same file, byte for byte.

    [bold]Example:[/bold] seedbed plot law demo --store demo-store -o law.pdf
    """
    from orchestrator.plots.kinds import KINDS  # matplotlib takes a second

    if list_:
        _list({name: entry.shows for name, entry in KINDS.items()}, as_json)
        return
    if kind not in KINDS:
        near = get_close_matches(kind, list(KINDS), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        lines = "\n".join(f"  {name:12} {entry.shows}" for name, entry in KINDS.items())
        asked = f"no figure is called {kind!r}{hint}" if kind else "say which figure"
        raise QueryError(f"{asked}. There are:\n{lines}")
    from orchestrator.plots.style import house_style, write
    from orchestrator.questions.asked import Options, Question

    library = Library(open_store(store))
    name = library.only(study)
    options = Options(metric, against, tuple(condition or ()), scale, threshold, against_threshold)
    with working(f"{name}: {kind}", quiet=as_json) as watch, house_style():
        question = Question(library.declared(name), library.collect(name), options, watch)
        written = write(KINDS[kind].draw(question), out or Path(f"{kind}.pdf"))
    if as_json:
        print_json({"kind": kind, "study": name, "file": str(written)})
    else:
        console.print(str(written), highlight=False, markup=False)


def _list(kinds: dict[str, str], as_json: bool) -> None:
    if as_json:
        print_json([{"kind": name, "shows": shows} for name, shows in kinds.items()])
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind")
    table.add_column("shows")
    for name, shows in kinds.items():
        table.add_row(name, escape(shows))
    console.print(table)
