"""`seedbed watch`: how far studies are, in a terminal, over SSH too; it reads the store and needs no server."""

import sys
import time
from typing import Annotated, Self

import typer
from rich.console import Group
from rich.live import Live

from jobs.store import open_store
from orchestrator.cli.options import DEFAULT_STORE, AsJson, StoreFolder, StudyName
from orchestrator.cli.show import console, print_json, progress_line, progress_table
from orchestrator.library import Library
from orchestrator.progress import Snapshot, Watch


def command(
    study: StudyName = "",
    store: StoreFolder = DEFAULT_STORE,
    every_seconds: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show progress and conditions of the store's studies until they have ended, or until Ctrl-C.

    On a terminal the table is redrawn in place; elsewhere each look is a line, with --json a JSON object per study.

    [bold]Example:[/bold] seedbed watch demo --store demo-store
    """
    library = Library(open_store(store))
    names = [library.only(study)] if study else library.names()
    watches = [Watch(library, name, time.monotonic) for name in names]
    is_live = sys.stdout.isatty() and not as_json
    with Live(console=console, auto_refresh=False, transient=False) if is_live else _Lines(as_json=as_json) as screen:
        while True:
            snapshots = [found for watch in watches if (found := watch.look(at_once=True))]
            if isinstance(screen, Live):
                screen.update(Group(*map(progress_table, snapshots)), refresh=True)
            else:
                screen.show(snapshots)
            if once or all(snapshot.ended == snapshot.launched for snapshot in snapshots):
                return
            time.sleep(every_seconds)


class _Lines:
    """Where nobody looks: a line, or a JSON object, for each study at each look."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.flush()

    def show(self, snapshots: list[Snapshot]) -> None:
        for snapshot in snapshots:
            if self._as_json:
                fields = ("ended", "launched", "done", "run_steps", "steps_per_second", "seconds_left")
                print_json({"study": snapshot.summary.name} | {name: getattr(snapshot, name) for name in fields})
            else:
                console.print(progress_line(snapshot), highlight=False, markup=False)
        sys.stdout.flush()
