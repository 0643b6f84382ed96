"""`seedbed status`: what a store holds, at any time, from any terminal."""

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from jobs.records import Status
from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, print_summary
from orchestrator.library import Library
from orchestrator.summary import StudySummary


def command(study: StudyName = "", store: StoreFolder = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Show the studies of a store and where their runs stand, or one study condition by condition.

    Needs no cluster: it reads the store.

    [bold]Example:[/bold] seedbed status --store results
    """
    library = Library(open_store(store))
    names = [study] if study else library.names()
    summaries = [library.summary(name) for name in names]
    if as_json:
        print_json([summary.as_dict() for summary in summaries])
    elif not summaries:
        console.print("The store holds no study yet: seedbed run STUDY --store …")
    elif study:
        print_summary(summaries[0])
    else:
        console.print(_overview(summaries))


def _overview(summaries: list[StudySummary]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("study", "conditions", "runs", *(str(status) for status in Status), "findings"):
        table.add_column(name, justify="left" if name == "study" else "right")
    for summary in summaries:
        counts = [sum(condition.counts[status] for condition in summary.conditions) for status in Status]
        launched = sum(condition.launched for condition in summary.conditions)
        table.add_row(
            escape(summary.name), str(len(summary.conditions)), str(launched), *map(str, counts), str(summary.findings)
        )
    return table
