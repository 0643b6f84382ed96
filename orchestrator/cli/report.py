"""`seedbed report`: figures and one self-contained HTML page of a study."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.store import is_url, open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json
from orchestrator.library import Library


def report_folder(store: str, study: str) -> Path:
    """Return where the report of a study goes; see `folder_beside`."""
    return folder_beside(store, "report", study)


def folder_beside(store: str, what: str, study: str) -> Path:
    """Return where files about a study go: beside the store, or here for one in a bucket; never into it."""
    place = Path(store.rstrip("/").rpartition("/")[2]) if is_url(store) else Path(store)
    return place.parent / f"{place.name}.{what}" / study


def command(
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="A folder; else beside the store.")] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option("--ask", help="A question of `seedbed estimate`, answered on the page; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the figures (PNG and SVG) and one HTML page of a study, finished or not.

    [bold]Example:[/bold] seedbed report demo --store demo-store
    """
    library = Library(open_store(store))
    name = library.only(study)
    library.collect(name)
    folder = out or report_folder(store, name)
    from orchestrator.questions.headlines import headlines
    from orchestrator.report import write_report  # matplotlib takes a second

    question = library.question(name)
    written = [str(path) for path in write_report(question, headlines(question), folder, ask or ())]
    if as_json:
        print_json(written)
    else:
        console.print("\n".join(written), highlight=False, markup=False)
